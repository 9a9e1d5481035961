"""Settings: defaults as the contract says, and every mistake reported at once with its fix."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from app.core.row import ROW_VERSION
from app.settings import INPUTS, SETTINGS, Settings, SettingsError, Start, duration, load_settings
from schemas.events import INPUT_TOPICS


def load(**given: str) -> Settings:
    return load_settings({f"LIFECYCLE_{name}": value for name, value in given.items()})


def problems(**given: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(**given)
    return caught.value.problems


def test_nothing_given_is_the_contracts_defaults() -> None:
    settings = load_settings({"PATH": "/bin", "KAFKA_HOME": "x"})
    assert (settings.kafka_bootstrap, settings.bootstrap_given) == ("127.0.0.1:9092", False)
    assert (settings.app_id, settings.topic_prefix) == ("lifecycle-triggers", "")
    assert settings.inputs == ("orders", "logins", "browse", "coupons", "profiles", "feedback")
    assert (settings.partitions, settings.partitioner, settings.replication) == (4, "murmur2", 1)
    assert (settings.clock, settings.lateness, settings.clock_skew) == ("wall", 5_000_000, 300_000_000)
    assert (settings.assume_zone, settings.unknown_types, settings.rules, settings.start) == (
        None,
        "ignore",
        None,
        None,
    )
    assert (settings.data_dir, settings.http_host) == (Path(".lifecycle"), "127.0.0.1")
    assert settings.kafka_security == {}


def test_the_inputs_are_those_of_the_contract_in_the_order_that_breaks_ties() -> None:
    assert INPUTS == INPUT_TOPICS
    assert load(INPUTS="coupons, orders").inputs == ("orders", "coupons")


def test_lateness_is_nothing_under_events_unless_it_is_given() -> None:
    assert load(CLOCK="events").lateness == 0
    assert load(CLOCK="events", LATENESS="90s").lateness == 90_000_000
    assert load(CLOCK="wall", LATENESS="0").lateness == 0


@pytest.mark.parametrize(
    ("bootstrap", "copies"),
    [
        ("127.0.0.1:9092", 1),
        ("localhost:1,[::1]:2", 1),
        ("127.8.8.8:9092", 1),
        ("kafka:9092", 3),
        ("127.0.0.1:1,10.0.0.1:2", 3),
    ],
)
def test_topics_have_one_copy_on_a_loopback_broker_and_three_elsewhere(bootstrap: str, copies: int) -> None:
    assert load(KAFKA_BOOTSTRAP=bootstrap).replication == copies
    assert load(KAFKA_BOOTSTRAP=bootstrap, REPLICATION="2").replication == 2
    assert load(KAFKA_BOOTSTRAP=bootstrap).bootstrap_given


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("0", 0),
        ("250ms", 250_000),
        ("5s", 5_000_000),
        ("1.5h", 5_400_000_000),
        ("7d", 604_800_000_000),
        ("2 m", 120_000_000),
    ],
)
def test_durations_are_whole_microseconds(text: str, microseconds: int) -> None:
    assert duration(text) == microseconds


@pytest.mark.parametrize("text", ["", "5", "-5s", "5 weeks", "s", "5S5", "٣s", "1e3s", "999999999999d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration(text)


def test_start_is_none_state_only_or_an_instant() -> None:
    assert load(START="none").start == Start("none")
    assert load(START="state-only").start == load(START="STATE_ONLY").start == Start("state_only")
    assert load(START="since:2026-01-01T08:00:00+08:00").start == Start("since", 1_767_225_600_000_000)
    assert load(START="since:2026-01-01T00:00:00Z").start == Start("since", 1_767_225_600_000_000)


def test_values_may_have_spaces_around_them_and_an_empty_one_counts_as_not_given() -> None:
    assert load(PARTITIONS=" 12 ", APP_ID="", CLOCK="  ") == load(PARTITIONS="12")


def test_a_zone_is_an_iana_name() -> None:
    assert load(ASSUME_ZONE="Asia/Shanghai").assume_zone == ZoneInfo("Asia/Shanghai")


def test_every_wrong_setting_is_reported_at_once_each_with_its_fix(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    wrong = {
        "KAFKA_BOOTSTRAP": ("kafka", "host:port, several separated by commas, e.g. kafka-1:9092,kafka-2:9092."),
        "APP_ID": ("my shop", "at most 200 letters, digits, dots, dashes or underscores, e.g. shop-1."),
        "INPUTS": (
            "orders,login",
            f"some of {', '.join(INPUTS)}, separated by commas (did you mean logins?).",
        ),
        "PARTITIONS": ("four", "a whole number from 1 to 10000, e.g. 4."),
        "PARTITIONER": ("murmur", "murmur2 or crc32 (did you mean murmur2?)."),
        "REPLICATION": ("0", "a whole number from 1 to 100, e.g. 3."),
        "TOPIC_PREFIX": ("a/b", "at most 100 letters, digits, dots, dashes or underscores, e.g. shop-1."),
        "CLOCK": ("sundial", "wall or events."),
        "LATENESS": ("5", "a duration from 0s to 7d with its unit (ms, s, m, h, d), e.g. 5s."),
        "CLOCK_SKEW": ("2d", "a duration from 0s to 1d with its unit (ms, s, m, h, d), e.g. 5m."),
        "ASSUME_ZONE": (
            "Asia/Shangai",
            "an IANA time zone such as Asia/Shanghai or UTC (did you mean Asia/Shanghai?).",
        ),
        "UNKNOWN_TYPES": ("warn", "ignore or reject."),
        "STATE_VERSION": (str(ROW_VERSION + 1), f"a whole number from 1 to {ROW_VERSION}, e.g. {ROW_VERSION}."),
        "RULES": (str(tmp_path / "none"), "a directory that exists; create it or correct the path."),
        "START": (
            "since:2026-01-01",
            "none, state-only, or since: with an instant and its offset, e.g. since:2026-01-01T00:00:00+08:00.",
        ),
        "DATA_DIR": (
            str(tmp_path / "taken"),
            "a directory (it is created when missing), but a file of that name is in the way.",
        ),
        "HTTP_HOST": (
            "no host",
            "an address to listen on, e.g. 127.0.0.1 (this machine only) or 0.0.0.0 (every interface).",
        ),
        "HTTP_PORT": ("65536", "a whole number from 0 to 65535, e.g. 6066."),
        "BATCH_MAX": ("many", "a whole number from 1 to 100000, e.g. 5000."),
        "SESSION_TIMEOUT": ("10", "a duration from 1s to 30m with its unit (ms, s, m, h, d), e.g. 10s."),
        "LOG_LEVEL": ("warn", "debug or info or warning or error (did you mean warning?)."),
    }
    expected = [f"LIFECYCLE_{name} is {value!r}: it must be {fix}" for name, (value, fix) in wrong.items()]
    assert problems(**{name: value for name, (value, _) in wrong.items()}) == expected


def test_a_name_that_is_no_setting_is_reported_with_the_nearest_that_is() -> None:
    assert problems(PARTITION="4", BOOTSTRAP="x", ZZZZ="1") == [
        "LIFECYCLE_BOOTSTRAP is not a setting: did you mean LIFECYCLE_KAFKA_BOOTSTRAP?",
        "LIFECYCLE_PARTITION is not a setting: did you mean LIFECYCLE_PARTITIONS?",
        "LIFECYCLE_ZZZZ is not a setting: remove it; all settings are listed in deploy/README.md.",
    ]


def test_scram_over_tls_becomes_what_aiokafka_takes() -> None:
    security = load(
        KAFKA_SECURITY_PROTOCOL="SASL_SSL",
        KAFKA_SASL_MECHANISM="scram-sha-512",
        KAFKA_SASL_USERNAME="worker",
        KAFKA_SASL_PASSWORD=" s3cret ",
    ).kafka_security
    context = security.pop("ssl_context")
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert security == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "worker",
        "sasl_plain_password": " s3cret ",
    }


def test_security_settings_that_do_not_go_together_are_reported() -> None:
    assert problems(KAFKA_SECURITY_PROTOCOL="SASL_PLAINTEXT", KAFKA_SASL_USERNAME="u") == [
        "LIFECYCLE_KAFKA_SASL_MECHANISM is missing: LIFECYCLE_KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT needs it.",
        "LIFECYCLE_KAFKA_SASL_PASSWORD is missing: LIFECYCLE_KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT needs it.",
    ]
    assert problems(KAFKA_SASL_PASSWORD="hunter2") == [
        (
            "LIFECYCLE_KAFKA_SASL_PASSWORD is set but not used:"
            " set LIFECYCLE_KAFKA_SECURITY_PROTOCOL=SASL_SSL or remove it."
        ),
    ]
    assert problems(KAFKA_SSL_CA_FILE=__file__) == [
        (
            "LIFECYCLE_KAFKA_SSL_CA_FILE is set but not used:"
            " set LIFECYCLE_KAFKA_SECURITY_PROTOCOL=SSL or SASL_SSL or remove it."
        ),
    ]
    assert problems(KAFKA_SECURITY_PROTOCOL="SSL", KAFKA_SSL_KEY_FILE=__file__) == [
        "LIFECYCLE_KAFKA_SSL_KEY_FILE is set without LIFECYCLE_KAFKA_SSL_CERT_FILE: give both or neither."
    ]


def test_files_that_are_no_certificates_are_reported() -> None:
    assert problems(KAFKA_SECURITY_PROTOCOL="SSL", KAFKA_SSL_CA_FILE=__file__) == [
        f"LIFECYCLE_KAFKA_SSL_CA_FILE is {__file__!r}: it must be a file of certificates in PEM form."
    ]
    assert problems(KAFKA_SECURITY_PROTOCOL="SSL", KAFKA_SSL_CERT_FILE=__file__)[0].startswith(
        f"LIFECYCLE_KAFKA_SSL_CERT_FILE is {__file__!r}: it must be a certificate in PEM form"
    )
    assert problems(KAFKA_SECURITY_PROTOCOL="SSL", KAFKA_SSL_CA_FILE="/nowhere.pem") == [
        (
            "LIFECYCLE_KAFKA_SSL_CA_FILE is '/nowhere.pem': it must be a file that exists and can be read;"
            " correct the path or its permissions."
        ),
    ]


@pytest.mark.skipif(subprocess.run(["which", "openssl"], capture_output=True).returncode != 0, reason="needs openssl")
def test_a_certificate_of_our_own_is_loaded_with_its_key(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-subj", "/CN=worker", "-days", "1"]
        + ["-passout", "pass:pw", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    given = {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CERT_FILE": str(cert), "KAFKA_SSL_KEY_FILE": str(key)}
    settings = load(**given, KAFKA_SSL_CA_FILE=str(cert), KAFKA_SSL_KEY_PASSWORD="pw")
    assert settings.kafka_security["ssl_context"].cert_store_stats()["x509"] == 1
    assert "it must be a certificate in PEM form that goes with its key" in problems(**given)[0]


def test_no_secret_shows_in_a_settings_repr() -> None:
    settings = load(
        KAFKA_SECURITY_PROTOCOL="SASL_PLAINTEXT",
        KAFKA_SASL_MECHANISM="PLAIN",
        KAFKA_SASL_USERNAME="worker",
        KAFKA_SASL_PASSWORD="hunter2",
    )
    assert settings.kafka_security["sasl_plain_password"] == "hunter2"
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)
    assert hash(settings) == hash(settings)


def test_the_key_of_erased_users_has_a_least_length_and_is_shown_nowhere() -> None:
    assert load().erasure_key is None
    settings = load(ERASURE_KEY=" correct horse battery")
    assert settings.erasure_key == " correct horse battery"
    assert "horse" not in repr(settings)
    [problem] = problems(ERASURE_KEY="short")
    assert problem == (
        "LIFECYCLE_ERASURE_KEY is set to a value that cannot be shown: it must be at least 16 characters that nobody "
        "can guess, e.g. what openssl rand -hex 32 prints."
    )


def test_the_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFECYCLE_APP_ID", "from-the-environment")
    assert load_settings().app_id == "from-the-environment"


def test_every_setting_is_listed_for_operators() -> None:
    text = (Path(__file__).parents[2] / "deploy" / "README.md").read_text()
    assert [s.name for s in SETTINGS if f"| `{s.name}` | {s.meaning} |" not in text] == []
