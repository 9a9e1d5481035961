"""The only reader of the environment. Every wrong setting is reported at once, each with its fix.

Durations are written `5s`, `250ms`, `10m`, `1h`, `7d` and held as whole microseconds; instants are microseconds since
1970-01-01T00:00:00Z. An empty value counts as not given. Secrets never show in `repr`, logs or error sentences.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast
from zoneinfo import ZoneInfo, available_timezones

from app.core.row import ROW_VERSION

PREFIX: Final = "LIFECYCLE_"

INPUTS: Final = ("orders", "logins", "browse", "coupons", "profiles", "feedback")

_MICROSECONDS: Final = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class SettingsError(Exception):
    """All that is wrong with the settings: `problems` holds one sentence each, with the fix."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Start:
    """The rules' start policy, for what was before a rule was switched on: none starts no run, state_only starts runs
    and sends nothing that was due before, since sends what was due since T, too."""

    kind: Literal["none", "state_only", "since"]
    since: int | None = None
    """Microseconds since 1970-01-01T00:00:00Z; only with kind `since`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One deployment's settings. Durations (`lateness`, `clock_skew`, `session_timeout`) are microseconds."""

    kafka_bootstrap: str
    """`host:port`, several separated by commas."""
    bootstrap_given: bool
    """False when nobody named a cluster and `kafka_bootstrap` is the embedded broker's default address."""
    app_id: str
    inputs: tuple[str, ...]
    """Logical names in the order that breaks ties in the merge."""
    partitions: int
    partitioner: Literal["murmur2", "crc32"]
    replication: int
    topic_prefix: str
    clock: Literal["wall", "events"]
    lateness: int
    clock_skew: int
    """How far an event may be ahead of its record's own timestamp."""
    assume_zone: ZoneInfo | None
    """The zone of instants that come without one; None rejects them."""
    unknown_types: Literal["ignore", "reject"]
    reject_ceiling: int
    """So many rejected messages in a row are an alarm."""
    on_reject_ceiling: Literal["alarm", "stop"]
    state_version: int | None
    """The row version that all workers can read by now; None keeps the one the state is written in."""
    rules: Path | None
    start: Start | None
    """Overrides every rule's own start policy; None leaves it to the rules."""
    data_dir: Path
    http_host: str
    http_port: int
    """0 = any free one."""
    batch_max: int
    """At most so many events and timers in one transaction."""
    session_timeout: int
    """A worker not heard of for so long loses its partitions."""
    instance_id: str | None
    """Static membership: a worker that comes back under the same name gets its partitions back without a rebalance."""
    log_level: Literal["debug", "info", "warning", "error"]
    log_format: Literal["auto", "json", "text"]
    erasure_key: str | None = field(repr=False)
    """A secret: keys the hashes that erased users leave behind; None = each shard makes one and keeps it."""
    kafka_security: dict[str, Any] = field(repr=False, hash=False)
    """Keyword arguments for every aiokafka client; empty when the cluster is open."""


class _Wrong(Exception):
    """What a value must be, said so that it completes the sentence `X is 'y': it must be ...`."""


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if raw.lower() not in allowed:
            near = difflib.get_close_matches(raw.lower(), allowed, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise _Wrong(f"{' or '.join(allowed)}{hint}")
        return raw.lower()

    return parse


def _whole(low: int, high: int, example: int) -> Callable[[str], int]:
    def parse(raw: str) -> int:
        if not re.fullmatch(r"\d{1,9}", raw, re.ASCII) or not low <= int(raw) <= high:
            raise _Wrong(f"a whole number from {low} to {high}, e.g. {example}")
        return int(raw)

    return parse


def duration(raw: str) -> int:
    """Microseconds of a duration such as `5s`, `250ms`, `1.5h`. Raises ValueError on anything else."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)\s*(ms|s|m|h|d)|(0)", raw.strip(), re.ASCII)
    if not found:
        raise ValueError(f"{raw!r} is not a duration")
    if found[3]:
        return 0
    whole, _, fraction = found[1].partition(".")
    unit = _MICROSECONDS[found[2]]
    return int(whole) * unit + int(fraction.ljust(6, "0") or 0) * unit // 1_000_000


def _duration(low: str, high: str, example: str) -> Callable[[str], int]:
    def parse(raw: str) -> int:
        try:
            value = duration(raw)
        except ValueError:
            value = -1
        if not duration(low) <= value <= duration(high):
            raise _Wrong(f"a duration from {low} to {high} with its unit (ms, s, m, h, d), e.g. {example}")
        return value

    return parse


def _bootstrap(raw: str) -> str:
    servers = [part.strip() for part in raw.split(",") if part.strip()]
    for server in servers:
        host, colon, port = server.rpartition(":")
        bad_host = not re.fullmatch(r"\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+", host)
        if not colon or bad_host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
            raise _Wrong("host:port, several separated by commas, e.g. kafka-1:9092,kafka-2:9092")
    if not servers:
        raise _Wrong("host:port, e.g. 127.0.0.1:9092")
    return ",".join(servers)


def _kafka_name(longest: int) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", raw) or raw in (".", "..") or len(raw) > longest:
            raise _Wrong(f"at most {longest} letters, digits, dots, dashes or underscores, e.g. shop-1")
        return raw

    return parse


def _inputs(raw: str) -> tuple[str, ...]:
    names = {name.strip() for name in raw.split(",") if name.strip()}
    unknown = sorted(names.difference(INPUTS))
    if unknown or not names:
        near = difflib.get_close_matches(unknown[0], INPUTS, n=1) if unknown else []
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise _Wrong(f"some of {', '.join(INPUTS)}, separated by commas{hint}")
    return tuple(name for name in INPUTS if name in names)


def _zone(raw: str) -> ZoneInfo:
    if raw not in available_timezones():
        near = difflib.get_close_matches(raw, sorted(available_timezones()), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise _Wrong(f"an IANA time zone such as Asia/Shanghai or UTC{hint}")
    return ZoneInfo(raw)


def _start(raw: str) -> Start:
    word = raw.lower().replace("-", "_")
    if word in ("none", "state_only"):
        return Start(cast(Literal["none", "state_only"], word))
    try:
        if not word.startswith("since:"):
            raise ValueError(word)
        at = datetime.fromisoformat(raw[len("since:") :].strip())
        if at.tzinfo is None:
            raise ValueError(word)
    except ValueError:
        raise _Wrong(
            "none, state-only, or since: with an instant and its offset, e.g. since:2026-01-01T00:00:00+08:00"
        ) from None
    return Start("since", (at - _EPOCH) // timedelta(microseconds=1))


def _directory(raw: str) -> Path:
    path = Path(raw).expanduser()
    if not path.is_dir():
        raise _Wrong("a directory that exists; create it or correct the path")
    return path


def _data_dir(raw: str) -> Path:
    path = Path(raw).expanduser()
    if path.exists() and not path.is_dir():
        raise _Wrong("a directory (it is created when missing), but a file of that name is in the way")
    return path


def _file(raw: str) -> Path:
    path = Path(raw).expanduser()
    if not (path.is_file() and os.access(path, os.R_OK)):
        raise _Wrong("a file that exists and can be read; correct the path or its permissions")
    return path


def _secret(least: int) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if len(raw) < least:
            raise _Wrong(f"at least {least} characters that nobody can guess, e.g. what openssl rand -hex 32 prints")
        return raw

    return parse


def _host(raw: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:-]+", raw):
        raise _Wrong("an address to listen on, e.g. 127.0.0.1 (this machine only) or 0.0.0.0 (every interface)")
    return raw


class _Setting(NamedTuple):
    name: str
    parse: Callable[[str], Any]
    default: str | None
    """As it would be written; None = not set, or worked out from the others."""
    meaning: str
    secret: bool = False


SETTINGS: Final[Sequence[_Setting]] = (
    _Setting(
        "KAFKA_BOOTSTRAP", _bootstrap, "127.0.0.1:9092", "The cluster, host:port; the embedded Kafka when not given."
    ),
    _Setting(
        "APP_ID",
        _kafka_name(200),
        "lifecycle-triggers",
        "Names the consumer group, the changelog and the triggers' source.",
    ),
    _Setting("INPUTS", _inputs, ",".join(INPUTS), "The input topics that exist."),
    _Setting("PARTITIONS", _whole(1, 10_000, 4), "4", "Partitions of every input; also the number of shards."),
    _Setting("PARTITIONER", _choice("murmur2", "crc32"), "murmur2", "How the upstream producers choose the partition."),
    _Setting("REPLICATION", _whole(1, 100, 3), None, "Copies of each topic: 1 on a loopback broker, else 3."),
    _Setting("TOPIC_PREFIX", _kafka_name(100), "", "Put before every topic name, for several shops on one cluster."),
    _Setting(
        "CLOCK",
        _choice("wall", "events"),
        "wall",
        "What moves time on: wall, the clock of the machine, or events, the events themselves (replay).",
    ),
    _Setting(
        "LATENESS",
        _duration("0s", "7d", "5s"),
        None,
        "How long a timer waits for stragglers: 0 under events, 5s under wall.",
    ),
    _Setting(
        "CLOCK_SKEW", _duration("0s", "1d", "5m"), "5m", "How far an event may be ahead of its record's timestamp."
    ),
    _Setting("ASSUME_ZONE", _zone, None, "The zone of instants that come without one; without it they are rejected."),
    _Setting(
        "UNKNOWN_TYPES",
        _choice("ignore", "reject"),
        "ignore",
        "Event types we don't know: ignore counts them, reject makes dead letters of them.",
    ),
    _Setting("REJECT_CEILING", _whole(1, 1_000_000, 1000), "1000", "So many rejected messages in a row are an alarm."),
    _Setting("ON_REJECT_CEILING", _choice("alarm", "stop"), "alarm", "alarm only says so; stop stops the shard, too."),
    _Setting(
        "STATE_VERSION",
        _whole(1, ROW_VERSION, ROW_VERSION),
        None,
        "Set it once all workers run the release that brought a new row version: from then on rows are written in it.",
    ),
    _Setting(
        "ERASURE_KEY",
        _secret(16),
        None,
        "A secret, the same for all workers: keys the hashes of erased users. Else each shard makes one and keeps it.",
        secret=True,
    ),
    _Setting("RULES", _directory, None, "A directory of rules to publish while none are, instead of the shipped ones."),
    _Setting(
        "START",
        _start,
        None,
        "Of what was before a rule was switched on: none starts no run, state-only sends nothing that was due before, "
        "since:T sends what was due since T. Overrides the rules' own start policy, which is state-only.",
    ),
    _Setting("DATA_DIR", _data_dir, ".lifecycle", "Where the embedded Kafka and downloaded data live."),
    _Setting("HTTP_HOST", _host, "127.0.0.1", "Where /metrics, /live and /ready listen."),
    _Setting("HTTP_PORT", _whole(0, 65_535, 6066), "6066", "Their port; 0 = any free one."),
    _Setting("BATCH_MAX", _whole(1, 100_000, 5_000), "5000", "At most so many events and timers in one transaction."),
    _Setting(
        "SESSION_TIMEOUT",
        _duration("1s", "30m", "10s"),
        "10s",
        "A worker not heard of for so long loses its partitions.",
    ),
    _Setting("INSTANCE_ID", _kafka_name(200), None, "A name that a worker keeps over restarts (static membership)."),
    _Setting(
        "LOG_LEVEL",
        _choice("debug", "info", "warning", "error"),
        "info",
        "debug, info, warning or error: the least severe that is written.",
    ),
    _Setting(
        "LOG_FORMAT",
        _choice("auto", "json", "text"),
        "auto",
        "json, text, or auto: text on a terminal, else JSON lines.",
    ),
    _Setting(
        "KAFKA_SECURITY_PROTOCOL",
        _choice("plaintext", "ssl", "sasl_plaintext", "sasl_ssl"),
        "PLAINTEXT",
        "How to talk to the cluster: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.",
    ),
    _Setting(
        "KAFKA_SASL_MECHANISM",
        _choice("plain", "scram-sha-256", "scram-sha-512"),
        None,
        "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.",
    ),
    _Setting("KAFKA_SASL_USERNAME", str, None, "The user of the cluster."),
    _Setting("KAFKA_SASL_PASSWORD", str, None, "Its password.", secret=True),
    _Setting(
        "KAFKA_SSL_CA_FILE", _file, None, "Certificates (PEM) that the cluster's must be signed by; else the system's."
    ),
    _Setting("KAFKA_SSL_CERT_FILE", _file, None, "Our own certificate (PEM), where the cluster asks for one."),
    _Setting("KAFKA_SSL_KEY_FILE", _file, None, "The key (PEM) of that certificate."),
    _Setting("KAFKA_SSL_KEY_PASSWORD", str, None, "The password of that key.", secret=True),
)


def start_policy(settings: Settings) -> str:
    """The start policy as the engine takes it: '' leaves each rule its own."""
    if settings.start is None:
        return ""
    since = settings.start.kind == "since"
    return f"since:{settings.start.since}" if since else settings.start.kind.replace("_", "-")


def load_settings(env: Mapping[str, str] | None = None) -> Settings:
    """The settings in `env` (default: the process's environment).

    Raises SettingsError with every problem at once, unknown names that begin with LIFECYCLE_ included.
    """
    env = os.environ if env is None else env
    problems = _unknown_names(env)
    given = {s.name: text for s in SETTINGS if (text := env.get(PREFIX + s.name, "")).strip()}
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        raw = given.get(setting.name, setting.default)
        raw = raw if setting.secret or raw is None else raw.strip()
        try:
            values[setting.name] = setting.parse(raw) if raw else None
        except _Wrong as wrong:
            shown = "set to a value that cannot be shown" if setting.secret else repr(raw)
            problems.append(f"{PREFIX}{setting.name} is {shown}: it must be {wrong}.")
    security = _security(given, values, problems)
    if problems:
        raise SettingsError(problems)
    if values["REPLICATION"] is None:
        values["REPLICATION"] = 1 if _on_loopback(values["KAFKA_BOOTSTRAP"]) else 3
    if values["LATENESS"] is None:
        values["LATENESS"] = 0 if values["CLOCK"] == "events" else duration("5s")
    fields = {
        name.lower(): value
        for name, value in values.items()
        if name == "KAFKA_BOOTSTRAP" or not name.startswith("KAFKA_")
    }
    fields["topic_prefix"] = fields["topic_prefix"] or ""
    return Settings(**fields, bootstrap_given="KAFKA_BOOTSTRAP" in given, kafka_security=security)


def _unknown_names(env: Mapping[str, str]) -> list[str]:
    known = [s.name for s in SETTINGS]
    problems = []
    for name in sorted(n for n in env if n.startswith(PREFIX) and n[len(PREFIX) :] not in known):
        near = difflib.get_close_matches(name[len(PREFIX) :], known, n=1, cutoff=0.5)
        fix = f"did you mean {PREFIX}{near[0]}?" if near else "remove it; all settings are listed in deploy/README.md."
        problems.append(f"{name} is not a setting: {fix}")
    return problems


def _on_loopback(bootstrap: str) -> bool:
    for server in bootstrap.split(","):
        host = server.rpartition(":")[0].strip("[]")
        if host == "localhost":
            continue
        try:
            if not ipaddress.ip_address(host).is_loopback:
                return False
        except ValueError:
            return False
    return True


def _security(given: Mapping[str, str], values: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """aiokafka's keyword arguments; what does not go together is added to `problems`."""
    protocol = values.get("KAFKA_SECURITY_PROTOCOL")
    if protocol is None:
        return {}
    sasl = {"KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"}
    kwargs: dict[str, Any] = {}
    if protocol != "plaintext":
        kwargs["security_protocol"] = protocol.upper()
    if protocol.startswith("sasl"):
        missing = sorted(sasl.difference(given))
        problems += [
            f"{PREFIX}{name} is missing: {PREFIX}KAFKA_SECURITY_PROTOCOL={protocol.upper()} needs it."
            for name in missing
        ]
        kwargs["sasl_mechanism"] = (values.get("KAFKA_SASL_MECHANISM") or "").upper()
        kwargs["sasl_plain_username"] = values.get("KAFKA_SASL_USERNAME")
        kwargs["sasl_plain_password"] = values.get("KAFKA_SASL_PASSWORD")
    else:
        problems += [_unused(name, "SASL_SSL") for name in sorted(sasl.intersection(given))]
    if protocol.endswith("ssl"):
        kwargs["ssl_context"] = _ssl_context(values, problems)
    else:
        problems += [_unused(name, "SSL or SASL_SSL") for name in sorted(given) if name.startswith("KAFKA_SSL_")]
    return kwargs


def _unused(name: str, protocol: str) -> str:
    return f"{PREFIX}{name} is set but not used: set {PREFIX}KAFKA_SECURITY_PROTOCOL={protocol} or remove it."


def _ssl_context(values: Mapping[str, Any], problems: list[str]) -> ssl.SSLContext | None:
    authority, own, key = (values.get(f"KAFKA_SSL_{part}_FILE") for part in ("CA", "CERT", "KEY"))
    if key and not own:
        problems.append(f"{PREFIX}KAFKA_SSL_KEY_FILE is set without {PREFIX}KAFKA_SSL_CERT_FILE: give both or neither.")
        return None
    try:
        context = ssl.create_default_context(cafile=authority)
    except (ssl.SSLError, OSError):
        problems.append(
            f"{PREFIX}KAFKA_SSL_CA_FILE is {str(authority)!r}: it must be a file of certificates in PEM form."
        )
        return None
    try:
        if own:
            # With no password given OpenSSL would ask for an encrypted key's on the terminal: an empty one stops that.
            context.load_cert_chain(own, key, password=values.get("KAFKA_SSL_KEY_PASSWORD") or "")
    except (ssl.SSLError, OSError):
        problems.append(
            f"{PREFIX}KAFKA_SSL_CERT_FILE is {str(own)!r}: it must be a certificate in PEM form that goes with its key"
            f" (and {PREFIX}KAFKA_SSL_KEY_PASSWORD, where the key has one)."
        )
        return None
    return context
