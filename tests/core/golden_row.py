"""A row with something in every field, and its bytes as each version wrote them (`golden/row_v<version>.bin`).

The bytes of a version are written once and never change: `python -m tests.core.golden_row --update` replaces those of
the current version, which is right only before it was released. A new field means a new version, and a new file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from msgspec.structs import replace

from app.core.row import (
    ROW_VERSION,
    Baseline,
    Cart,
    Consent,
    Coupon,
    Fired,
    Mark,
    Order,
    OrderLine,
    Row,
    Run,
    Sent,
    View,
    encode,
)

GOLDEN = Path(__file__).parent / "golden"

_MARK = Mark(at=1_772_400_000_000_000, event_id="e-7", kind="CouponRedeemed", order_id="o-2")

ROW = Row(
    user_id="u-42",
    ledger=bytes(range(24)),
    zone="Asia/Shanghai",
    zone_at=1_772_000_000_000_000,
    locale="zh-CN",
    locale_at=1_772_000_000_000_001,
    registered_at=1_700_000_000_000_000,
    baseline=Baseline(
        registered_at=1_600_000_000_000_000,
        orders=7,
        first_order_at=1_610_000_000_000_000,
        last_order_at=1_690_000_000_000_000,
        spend_minor=123_456,
        currency="CNY",
    ),
    last_login_at=1_772_300_000_000_000,
    orders={
        "o-1": Order(
            order_id="o-1",
            parent_id="o-0",
            placed_at=1_772_100_000_000_000,
            paid_at=1_772_100_060_000_000,
            cancelled_at=1_772_200_000_000_000,
            received_at=1_772_300_000_000_000,
            currency="CNY",
            total_minor=25_800,
            refunded_minor=100,
            refunded_whole=True,
            returned_whole=True,
            returned_for_sum=True,
            refunds=("r-1", "r-2"),
            pending_returns=(("p-9", 1, True),),
            lines=(OrderLine("p-1", "milk_powder", 2, 3, "gift", "Milk powder", "https://shop/p-1.png", 1, 1),),
            coupons_used=("c-1",),
            coupons_issued=("c-2",),
            paid_event_id="e-1",
            pay_url="https://shop/pay/o-1",
            pay_deadline=1_772_100_900_000_000,
            cases=("k-1", ""),
            deposit_until=1_772_900_000_000_000,
            deposit_from=1_772_800_000_000_000,
        )
    },
    coupons={
        "c-2": Coupon(
            coupon_id="c-2",
            issued_at=1_772_100_060_000_000,
            event_id="e-1",
            kind="percent",
            value="15",
            currency="CNY",
            value_minor=1_500,
            min_spend="100.00",
            batch="repurchase-a",
            pack_id="pack-1",
            valid_from=1_772_150_000_000_000,
            expires_at=1_775_000_000_000_000,
            order_id="o-1",
            redeemed=_MARK,
            revoked=Mark(1_772_500_000_000_000, "e-8", "CouponRevoked", "o-1"),
            locked_at=1_772_350_000_000_000,
            locked_by="o-2",
            returned_at=1_772_340_000_000_000,
        )
    },
    forgotten=bytes(range(100, 116)),
    old_orders=3,
    old_last_order_at=1_650_000_000_000_000,
    old_spend_minor={"CNY": 77_700, "JPY": 5_000},
    runs={
        "coupon_unused\x1fpack-1": (
            Run(
                rule="coupon_unused",
                version=2,
                kind="pack",
                key="pack-1",
                event_id="e-1",
                entered_at=1_772_100_060_000_000,
                order_id="o-1",
                ordinal=1,
                step=1,
                due_at=1_772_700_000_000_000,
                timer_at=1_772_740_000_000_000,
                sequence=2,
                held=True,
                ends=(_MARK,),
                fired=(Fired("t-1", 0, 1_772_600_000_000_000, 1_772_700_000_000_000, 1, 1_772_610_000_000_000),),
                data={"units": 6, "product_id": "p-1"},
                evidence=(("e-1", "OrderPaid", 1_772_100_060_000_000),),
            ),
        )
    },
    marks={"UserLoggedIn": Mark(1_772_300_000_000_000, "e-5", "UserLoggedIn")},
    entries={"winback": 1_772_100_060_000_000},
)


#: As version 2 first wrote it: what came with it is set, too.
ROW_2 = replace(
    ROW,
    orders={
        "o-1": replace(
            ROW.orders["o-1"],
            deposit_at=1_772_790_000_000_000,
            case_words=(("k-1", 1_772_790_000_000_001, True),),
            refunded_unnamed=1_000_000,
            lines=(replace(ROW.orders["o-1"].lines[0], category="baby"),),
        )
    },
    coupons={"c-2": replace(ROW.coupons["c-2"], locked_until=1_772_750_000_000_000)},
    runs={
        key: tuple(
            replace(
                run,
                competing=True,
                slot=1_772_740_000_000_000,
                waits_for="coupon",
                fired=tuple(
                    replace(fired, ordinal=1, version=1, family="winback", mode="shadow") for fired in run.fired
                ),
            )
            for run in runs
        )
        for key, runs in ROW.runs.items()
    },
    last_seen_at=1_772_300_000_000_001,
    birthday="--02-29",
    consents={"wechat_service/coupon": Consent(True, 1_772_300_000_000_002, 3, 2, 1_772_200_000_000_000, 1)},
    sent=(Sent(1_772_300_000_000_003, "push", "coupon", "t-1", True),),
    window_until=1_772_300_000_000_004,
    last_fired={"winback": ("run-1", 1_772_300_000_000_005)},
    views={
        "p-1": View(
            "p-1",
            1_772_300_000_000_006,
            3,
            41,
            "baby",
            "milk_powder",
            "Milk",
            "https://shop/p-1.png",
            (1_772_200_000_000_000, 2, 12),
            ((1_772_300_000_000_006, "e-31", 41),),
        )
    },
    carts={"": Cart("cart", 1_772_300_000_000_007, (replace(ROW.orders["o-1"].lines[0], category="baby"),))},
    stage="growth",
    stage_at=1_772_300_000_000_008,
    stage_due=1_772_300_000_000_009,
    catalogue=4_000_000_000,
    birthday_at=1_772_300_000_000_010,
    merged={"u-41": replace(ROW.baseline, orders=2), "u-40": None},  # type: ignore[type-var]  # it has one
    alone=replace(ROW.baseline, orders=5),  # type: ignore[type-var]  # it has one
    birthday_said_at=1_772_300_000_000_020,
    ghosts_until=1_772_300_000_000_021,
)
ROWS = {1: ROW, 2: ROW_2}


def path(version: int) -> Path:
    return GOLDEN / f"row_v{version}.bin"


if __name__ == "__main__":
    target = path(ROW_VERSION)
    if target.exists() and sys.argv[1:] != ["--update"]:
        sys.exit(f"{target.name} is there. Rows of a released version never change; --update if this one is not.")
    GOLDEN.mkdir(exist_ok=True)
    target.write_bytes(encode(ROWS[ROW_VERSION]))
