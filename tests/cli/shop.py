"""A small catalogue of the tests' own, and events for it: what is shipped may change, these do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from click.testing import CliRunner, Result

from app.cli import cli

NUDGE = """\
rule: nudge
version: 3
family: coupon
about: A coupon that has not been used for a week is worth a nudge.
enter: {on: CouponIssued, key: coupon, when: "coupon.value_minor >= 500"}
ends: [{on: CouponRedeemed}, {on: CouponRevoked}, {at: coupon.expires_at}]
holds: {from: CouponLocked, until: CouponReturned}
steps:
  - {at: "coupon.valid_from + min(7d, coupon.validity / 2)"}
  - {after: 10d, offer: bigger}
check: "coupon.expires_in > duration('72h')"
send:
  action: contact
  class: marketing
  channels: [push, sms]
  priority: 50
  collapse: buy_again
  expires_after: 36h
reason: "Coupon {coupon.id} has not been used for {waited}."
facts: [coupon.value]
reentry: every_key
"""
THANKS = """\
rule: thanks
version: 1
family: order
about: A gift for every paid order.
enter: {on: OrderPaid, key: order}
steps: [{at_once: true}]
send: {action: grant, expires_after: 1h}
reason: "Thank you."
reentry: every_key
mode: shadow
"""
POLICY = 'zone: Asia/Shanghai\nquiet_hours: {from: "21:00", until: "09:00", jitter: 15min}\n'
#: The night is the only gate: what is shown beside the gates is shown without them.
POLICY += """caps: []
arbitration: 0s
consent: {push: allowed, sms: allowed, email: allowed, in_app: allowed, wechat_service: allowed}
offers: {bigger: {kind: gift}}
"""


def shop(directory: Path, **texts: str) -> Path:
    """A catalogue in a directory: NUDGE and THANKS, or other texts under those names."""
    for name, text in {"nudge": NUDGE, "thanks": THANKS, "shop": POLICY, **texts}.items():
        (directory / f"{name}.yaml").write_text(text)
    return directory


def event(kind: str, user: str, at: str, **fields: object) -> dict[str, Any]:
    return {"event_id": f"{kind}-{user}-{at}", "type": kind, "user_id": user, "occurred_at": at, **fields}


def coupon(user: str, coupon_id: str, at: str, value: str = "20.00") -> dict[str, Any]:
    ends = "2026-03-31T23:59:59+08:00"
    return event("CouponIssued", user, at, coupon_id=coupon_id, value=value, currency="CNY", expires_at=ends)


def file_of(path: Path, *events: dict[str, Any]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in events))
    return path


def run(*arguments: object) -> Result:
    # The variables of the test run itself are none of the settings.
    env = {"TEST_KAFKA_BOOTSTRAP": None, "LIFECYCLE_RULES": None}
    result = CliRunner().invoke(cli, [str(one) for one in arguments], env=env)
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def words(text: str) -> str:
    """Text without its line breaks and columns."""
    return " ".join(text.split())
