"""The commands that look back and put right, on a real Kafka with a real worker: why, dead-letters, quarantine."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from click.testing import CliRunner

from app.cli import cli
from app.settings import PREFIX, Settings
from schemas.instant import parse_instant
from tests.kafka.defective_worker import POISON
from tests.kafka.harness import environment, until

from .conftest import ConsumeAll, MakeSettings, Produce, Start

pytestmark = pytest.mark.kafka

DEFECTIVE = ("-m", "tests.kafka.defective_worker")


async def lifecycle(settings: Settings, *arguments: str, answer: str = "", **more: object) -> tuple[int, str, str]:
    """A command as a person runs it: exit code, what it printed, what it said on stderr."""
    env = {name: text for name, text in environment(settings, **more).items() if name.startswith(PREFIX)}
    done = await asyncio.to_thread(CliRunner().invoke, cli, arguments, input=answer, env=env)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def event(kind: str, user: str, at: str, **fields: object) -> tuple[bytes, bytes]:
    body = {"event_id": f"{kind}-{user}-{at}", "type": kind, "user_id": user, "occurred_at": at, **fields}
    return user.encode(), orjson.dumps(body)


def clock_at(at: str) -> tuple[None, bytes]:
    return None, orjson.dumps({"type": "ClockAdvanced", "occurred_at": at})


ISSUED = event(
    "CouponIssued", "u-42", "2026-03-01T00:15:30Z", coupon_id="c-4", value="20.00", currency="CNY",
    expires_at="2026-03-31T15:59:59Z",
)  # fmt: skip
OTHER = event("CouponIssued", "u-43", "2026-03-01T00:15:30Z", coupon_id="c-5", value="20.00", currency="CNY")


async def decided(consume_all: ConsumeAll, settings: Settings, count: int) -> bool:
    return len(await consume_all(settings, "decisions")) >= count


# -- why


async def test_why_tells_what_happened_what_was_held_what_went_out_and_what_is_to_come(
    make_settings: MakeSettings, produce: Produce, consume_all: ConsumeAll, start: Start
) -> None:
    settings = await make_settings(inputs="orders,coupons", partitions=1, clock="events")
    worker = start(settings)
    await produce(settings, "coupons", [ISSUED, OTHER, ISSUED, (b"u-42", b"{}"), clock_at("2026-03-09T00:00:00Z")])
    await produce(settings, "orders", [clock_at("2026-03-09T00:00:00Z")])
    # u-42's and u-43's first steps, both due before the morning: deferred, then fired.
    await until(lambda: decided(consume_all, settings, 4), 30, worker.log)

    code, out, err = await lifecycle(settings, "why", "u-42")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "u-42 (times in Asia/Shanghai)"
    told = "\n".join(" ".join(line.split()) for line in lines)
    assert "2026-03-01 08:15:30 happened CouponIssued: coupon c-4, value 20.00 CNY, expires at 2026-03-31" in told
    assert "published 2 times, counted once" in " ".join(told.split())
    assert "rejected missing_field (type): `type` is required" in told
    assert "held coupon_unused, step 1 (coupon c-4), by quiet hours: It is night where the user is" in told
    assert "sent coupon_unused, step 1 (coupon c-4) by push, else wechat_service or sms: Coupon c-4" in told
    assert "still to come: coupon_unused, step 2 (pack c-4): due 2026-03-18 08:15:30" in told
    assert "c-5" not in told
    assert [line[21:31].strip() for line in lines if line[:2] == "20"] == ["happened", "held", "sent", "rejected"]

    code, out, _ = await lifecycle(settings, "why", "u-42", "--rule", "winback")
    assert code == 0
    assert "happened" in out
    assert "coupon_unused" not in out
    told = " ".join(out.split())
    assert "winback: nothing of it is kept for this user" in told
    assert "It is entered when an order is paid (OrderPaid); or when" in told

    code, out, _ = await lifecycle(settings, "why", "u-42", "--rule", "coupon_unused")
    assert "nothing of it is kept" not in out

    code, out, err = await lifecycle(settings, "why", "u-42", "--rule", "winbak")
    assert (code, out) == (2, "")
    assert "There is no rule 'winbak'. Did you mean winback?" in err

    code, out, _ = await lifecycle(settings, "why", "u-42", "--since", "2026-03-02T00:00:00Z")
    assert code == 0
    assert "happened" not in out
    assert "held" in out


async def test_why_says_when_nothing_is_known_of_a_user(make_settings: MakeSettings) -> None:
    settings = await make_settings(inputs="orders", partitions=2)
    code, out, err = await lifecycle(settings, "why", "nobody")
    assert (code, out) == (1, "")
    assert "Nothing is known of nobody: no event, no decision, no trigger and no state in partition" in err


async def test_commands_say_in_a_sentence_that_there_is_no_kafka_or_no_topic(make_settings: MakeSettings) -> None:
    settings = await make_settings(inputs="orders", create=False)
    for command in (["why", "u"], ["dead-letters", "list"], ["quarantine", "orders", "0", "0", "--because", "x"]):
        code, _, err = await lifecycle(settings, *command)
        assert code == 1
        assert "lifecycle topics create" in err
    code, _, err = await lifecycle(settings, "dead-letters", "redrive", kafka_bootstrap="127.0.0.1:1")
    assert code == 1
    assert "No Kafka answers at 127.0.0.1:1" in err


# -- dead letters


async def test_dead_letters_are_listed_and_sent_again_once_the_cause_is_mended_and_only_once(
    make_settings: MakeSettings, produce: Produce, consume_all: ConsumeAll, start: Start
) -> None:
    settings = await make_settings(inputs="orders,logins", partitions=2)
    no_zone = [event("UserLoggedIn", f"u-{n}", "2026-03-01T08:00:00") for n in range(6)]
    hopeless = (b"u-1", b'{"type": "UserLoggedIn"}')
    astray = event("UserLoggedIn", "u-1", "2026-03-01T08:00:00Z")
    right = [n for n, _ in await produce(settings, "logins", [*no_zone, hopeless])][1]
    await produce(settings, "logins", [(*astray, 1 - right)])
    worker = start(settings)
    await until(lambda: letters(consume_all, settings, 8), 30, worker.log)
    worker.stop()

    code, out, err = await lifecycle(settings, "dead-letters", "list")
    assert code == 0, err
    assert "when" in out.splitlines()[0]
    assert out.count("bad_time") == 7  # six lines, and the sum
    assert "8 of 8 dead letters (6 bad_time, 1 " in out
    assert "logins[" in out
    assert "wrong_partition" in out
    told = " ".join(out.split())
    assert "UserLoggedIn UserLoggedIn-u-5-2026-03-01T08:00:00, key u-5" in told
    assert "UserLoggedIn, key u-1" in told
    _, out, _ = await lifecycle(settings, "dead-letters", "list", "--code", "missing_field", "--limit", "1")
    assert "1 of 1 dead letter (1 missing_field)" in out
    assert "user_id" in out or "event_id" in out

    # Nothing is mended yet, but for the partition.
    _, out, _ = await lifecycle(settings, "dead-letters", "redrive", "--dry-run")
    assert "1 message to send" in out
    assert "7 would be refused again as they are" in out

    before = await consume_all(settings, "logins")
    code, out, _ = await lifecycle(settings, "dead-letters", "redrive", answer="n\n", assume_zone="Asia/Shanghai")
    assert code == 1
    assert await consume_all(settings, "logins") == before
    # With a zone to assume they can be used. One code first, then the rest; nothing goes twice.
    mended = {"assume_zone": "Asia/Shanghai"}
    _, out, _ = await lifecycle(settings, "dead-letters", "redrive", "--code", "bad_time", "--yes", **mended)
    assert "Sent 6 messages." in out
    _, out, _ = await lifecycle(settings, "dead-letters", "redrive", "--topic", "logins", "--yes", **mended)
    assert "Sent 1 message." in out
    assert "6 dealt with by an earlier redrive" in out
    _, out, _ = await lifecycle(settings, "dead-letters", "redrive", "--yes", **mended)
    assert "There is nothing to send." in out
    assert "Sent" not in out

    sent = [r for r in await consume_all(settings, "logins") if r not in before]
    assert sorted((r.key, r.value) for r in sent if (r.key, r.value) != astray) == sorted(no_zone)
    assert [r.partition for r in sent if (r.key, r.value) == astray] == [right]
    places = {r.key: r.partition for r in before if r.value != astray[1]}
    assert all(r.partition == places[r.key] for r in sent)

    again = start(settings, "again", **mended)
    await until(lambda: again.metric("lifecycle_events_total", type="UserLoggedIn") == 7, 30, again.log)
    assert await letters(consume_all, settings, 8)
    assert not await letters(consume_all, settings, 9)


async def letters(consume_all: ConsumeAll, settings: Settings, count: int) -> bool:
    return len(await consume_all(settings, "dead-letters")) >= count


# -- quarantine


async def test_an_event_that_stops_a_shard_is_set_aside_by_a_person_and_sent_again_once_the_defect_is_mended(
    make_settings: MakeSettings, produce: Produce, consume_all: ConsumeAll, start: Start
) -> None:
    settings = await make_settings(inputs="logins", partitions=2)
    bad = event("UserLoggedIn", "u-1", "2026-03-01T08:00:00Z", event_id=f"{POISON}-1")
    ok = event("UserLoggedIn", "u-1", "2026-03-01T09:00:00Z")
    [(shard, first), (_, offset), _] = await produce(settings, "logins", [ok, bad, ok])
    worker = start(settings, command=DEFECTIVE)
    await until(lambda: "stopped" in worker.get("ready")[1], 30, worker.log)
    place = ["logins", str(shard), str(offset)]
    assert f"lifecycle quarantine {' '.join(place)}" in worker.log()

    for wrong, sentence in (
        (["login", "0", "0"], "There is no input 'login'. Did you mean logins?"),
        (["logins", "7", "0"], "There is no partition 7"),
        (["logins", str(shard), "99"], "does not exist: the partition ends before offset 3"),
    ):
        code, _, err = await lifecycle(settings, "quarantine", *wrong, "--because", "x")
        assert code == 1
        assert sentence in err
    code, out, err = await lifecycle(settings, "quarantine", *place, "--because", "it divides by zero", answer="n\n")
    assert code == 1
    assert "UserLoggedIn, happened 2026-03-01 08:00:00 UTC, hash of its id" in out
    assert POISON not in out + err
    assert "u-1" not in out + err

    code, out, err = await lifecycle(settings, "quarantine", *place, "--because", "it divides by zero", "--yes")
    assert code == 0, err
    assert f"Set aside: logins[{shard}] offset {offset}. Shard {shard} takes this up when it opens" in out
    worker.stop()
    worker.start()
    await until(lambda: worker.get("ready")[0] == 200 and worker.metric("lifecycle_events_total") == 2, 30, worker.log)
    found = await consume_all(settings, "dead-letters")
    assert [(r.key, r.value) for r in found] == [bad]
    said = dict(found[0].headers)
    assert said["dlq.reason_code"] == b"cannot_apply"
    assert said["dlq.reason"] == b"Set aside by a person: it divides by zero"
    worker.stop()

    code, _, err = await lifecycle(settings, "quarantine", "logins", str(shard), str(first), "--because", "x", "--yes")
    assert code == 1
    assert "has been applied already" in err
    _, out, _ = await lifecycle(settings, "dead-letters", "redrive", "--yes")
    assert "1 set aside by a person (--code cannot_apply takes them too)" in out
    assert "nothing to send" in out
    mended = start(settings, "mended")
    _, out, _ = await lifecycle(settings, "dead-letters", "redrive", "--code", "cannot_apply", "--yes")
    assert "Sent 1 message." in out
    await until(lambda: mended.metric("lifecycle_events_total", type="UserLoggedIn") == 1, 30, mended.log)
    assert len(await consume_all(settings, "dead-letters")) == 1


async def test_what_is_due_and_stops_a_shard_is_set_aside_by_a_person_and_the_others_get_theirs(
    make_settings: MakeSettings, produce: Produce, consume_all: ConsumeAll, start: Start
) -> None:
    settings = await make_settings(inputs="coupons", partitions=1, clock="events")
    at, due = "2026-03-01T04:00:00Z", parse_instant("2026-03-08T04:00:00Z")
    coupons = [
        event("CouponIssued", user, at, coupon_id=f"c-{user}", value="20.00", currency="CNY")
        for user in (f"{POISON}-u", "u-1")
    ]
    await produce(settings, "coupons", [*coupons, clock_at("2026-03-09T00:00:00Z")])
    worker = start(settings, command=DEFECTIVE)
    await until(lambda: "stopped" in worker.get("ready")[1], 30, worker.log)
    assert f"lifecycle quarantine timer 0 {due}" in worker.log()
    assert POISON not in worker.log()

    for wrong, sentence in ((["9", str(due)], "There is no partition 9"), (["0", "9" * 20], "is no instant")):
        code, _, err = await lifecycle(settings, "quarantine", "timer", *wrong, "--because", "x")
        assert code == 1
        assert sentence in err
    why = ["--because", "it divides by zero", "--yes"]
    code, out, err = await lifecycle(settings, "quarantine", "timer", "0", str(due), *why)
    assert code == 0, err
    assert "What is due in shard 0 at 2026-03-08 04:00:00 UTC: where the rules fail on it" in out
    assert f"Set aside: timer[0] instant {due}." in out
    assert "dead letters" not in out
    worker.stop()
    worker.start()
    await until(lambda: worker.metric("lifecycle_runs_total", what="exited") == 1, 30, worker.log)
    assert worker.get("ready")[0] == 200

    async def fired() -> bool:
        return bool(await consume_all(settings, "triggers.coupon"))

    await until(fired, 30, worker.log)
    assert [r.key for r in await consume_all(settings, "triggers.coupon")] == [b"u-1"]
