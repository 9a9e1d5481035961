"""What operators are given fits the code: settings, metrics, locks, images."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli import COMMANDS
from app.metrics import Metrics
from app.settings import load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WORKERS = {name: service for name, service in SERVICES.items() if name.startswith("worker")}


def settings_of(service: dict[str, Any]) -> dict[str, str]:
    image = dict(re.findall(r"^\s*(?:ENV )?(LIFECYCLE_\w+)=(\S+)", CONTAINERFILE, re.MULTILINE))
    return {**image, **service["environment"]}


def test_compose_runs_kafka_its_topics_and_two_workers() -> None:
    assert sorted(SERVICES) == ["kafka", "topics", "worker-1", "worker-2"]
    assert SERVICES["kafka"]["image"] == "apache/kafka:4.1.1"
    assert SERVICES["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    for worker in WORKERS.values():
        assert worker["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}
        assert "/live" in worker["healthcheck"]["test"][-1]
    assert SERVICES["topics"]["command"][0] in COMMANDS
    assert (DEPLOY / SERVICES["topics"]["build"]["context"] / SERVICES["topics"]["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("name", ["topics", *WORKERS])
def test_the_settings_that_compose_gives_are_accepted(name: str) -> None:
    settings = load_settings(settings_of(SERVICES[name]))
    listeners = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"INSIDE://{settings.kafka_bootstrap}" in listeners.split(",")
    assert (settings.replication, settings.http_host, settings.http_port) == (1, "0.0.0.0", 6066)


def test_each_worker_keeps_a_name_and_a_port_of_its_own() -> None:
    assert {load_settings(settings_of(w)).instance_id for w in WORKERS.values()} == {"worker-1", "worker-2"}
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(set(published)) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_image_is_built_from_what_its_context_lets_through() -> None:
    let_through = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", CONTAINERFILE, re.MULTILINE)
    assert {source for line in copied for source in line.split()} == let_through


def test_images_are_pinned_and_the_worker_is_nobody_special() -> None:
    bases = re.findall(r"^FROM (\S+)", CONTAINERFILE, re.MULTILINE)
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", bases[0])
    assert all(re.search(r":\d+\.\d+\.\d+$", service["image"]) for service in SERVICES.values())
    assert re.findall(r"^USER (\S+)", CONTAINERFILE, re.MULTILINE) == ["10001:10001"]
    assert re.search(r"HEALTHCHECK [^\n]*\\\n\s+CMD .*127\.0\.0\.1:6066/live", CONTAINERFILE)
    for service in ("topics", *WORKERS):
        assert SERVICES[service]["cap_drop"] == ["ALL"]


@pytest.mark.skipif(
    shutil.which("docker") is None
    or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0,
    reason="docker compose is not installed here",
)
def test_docker_compose_accepts_the_file() -> None:
    done = subprocess.run(
        ["docker", "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def sample_names() -> set[str]:
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {
        family.name + suffix
        for family in Metrics().registry.collect()
        if family.name.startswith("lifecycle_")
        for suffix in suffixes[family.type]
    }


@pytest.mark.parametrize("name", ["deploy/alerts.yaml", "deploy/dashboard.json", "deploy/README.md"])
def test_every_metric_that_is_read_exists(name: str) -> None:
    named = set(re.findall(r"\blifecycle_[a-z_]+", (ROOT / name).read_text()))
    assert named
    assert named - sample_names() == set()


def test_the_dashboard_shows_what_comes_in_goes_out_and_waits() -> None:
    dashboard = json.loads((DEPLOY / "dashboard.json").read_text())
    expressions = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    shown = set(re.findall(r"\blifecycle_[a-z_]+", expressions))
    assert {"lifecycle_events_total", "lifecycle_triggers_total", "lifecycle_rejects_total"} <= shown
    assert {"lifecycle_consumer_lag_records", "lifecycle_merged_time_seconds", "lifecycle_timers_pending"} <= shown
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_each_alert_says_how_bad_what_and_what_to_do() -> None:
    rules = [
        rule for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
    ]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 8
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["description"].endswith((".", ")"))


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", path.read_text(), re.MULTILINE))


def test_the_image_gets_the_tested_versions_without_the_test_tools() -> None:
    image, tested = pins(DEPLOY / "requirements.lock"), pins(ROOT / "requirements.lock")
    assert {name: version for name, version in image.items() if tested.get(name) != version} == {}
    assert {"faust-streaming", "aiokafka", "hatchling"} <= image.keys()
    assert not {"pytest", "mypy", "ruff", "hypothesis"} & image.keys()


@pytest.mark.parametrize("path", [ROOT / "requirements.lock", DEPLOY / "requirements.lock"])
def test_a_lock_has_hashes_and_names_no_host_and_no_folder(path: Path) -> None:
    text = path.read_text()
    blocks = re.findall(r"^[a-z0-9-]+==.*(?:\n .*)*", text, re.MULTILINE)
    assert len(blocks) > 50
    assert [block for block in blocks if "--hash=sha256:" not in block] == []
    assert re.findall(r"https?:|file:|--index|--find-links|/(?:root|home|tmp|opt)/", text) == []
