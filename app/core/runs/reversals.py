"""What a reversal does: it takes back what the order had started, and gives back what it had ended."""

from __future__ import annotations

from msgspec.structs import replace

from app.core import release
from app.core.happenings import Happening, Reversal
from app.core.moment import Moment
from app.core.row import Row, Run
from app.core.runs import parts
from app.core.runs.ends import close
from app.core.runs.keeping import REVERSAL_WINDOW, put
from app.core.runs.marks import seen_ends
from app.core.runs.things import is_locked
from app.core.runs.timing import with_ends
from app.core.scope import AFTERMATH


def on_reversal(row: Row, reversal: Reversal, happening: Happening, moment: Moment) -> Row:
    """Takes back what the order had started, and gives back what it had ended."""
    order_id = reversal.order_id

    def concerned(kind: str, key: str, mine: bool) -> bool:
        types = reversal.product_types
        if kind != "product_type":
            return reversal.purchase
        return types is None or key in (reversal.no_own if mine else types)

    for name in sorted(row.runs):
        after = []
        for run in row.runs[name]:
            rule = moment.catalogue.rule_of(run)
            own = not _of_the_aftermath(run)
            mine = own and run.order_id == order_id
            whole = own and not mine and parts.of_the_whole(row, run, order_id)
            if rule is None or not concerned(run.kind, run.key, mine) or (whole and parts.is_left(row, run.key)):
                after.append(run)
            elif mine and (heir := parts.heir_of(row, rule, run, moment)) is not None:
                after.append(replace(run, order_id=heir.order_id))
            elif mine or whole:
                if not run.ends:
                    run = close(row, rule, run, f"order {order_id} was taken back", moment)
                    moment.tally("runs", "taken_back", rule.name)
                release.retract(row, rule, run, f"Order {order_id} was taken back.", happening, moment)
                # What was given for good stays given: only what could be taken back may come again.
                freed = set() if rule.reentry == "every_purchase" else {name}
                freed = freed if _given(run, moment) else {name, run.rule}
                row = replace(row, entries={k: at for k, at in row.entries.items() if k not in freed})
            elif any(m.order_id == order_id and m.at >= moment.floor - REVERSAL_WINDOW for m in run.ends):
                ends = (
                    seen_ends(row, rule, run, moment)
                    if rule.key in ("coupon", "pack")
                    else tuple(m for m in run.ends if m.order_id != order_id)
                )
                run = replace(run, held=rule.holds is not None and is_locked(row, run, run.held))
                after.append(with_ends(row, rule, run, ends, moment))
            else:
                after.append(run)
        row = put(row, name, after, moment)
    return row


def _of_the_aftermath(run: Run) -> bool:
    return bool(run.evidence) and run.evidence[0][1] in AFTERMATH


def _given(run: Run, moment: Moment) -> bool:
    return bool(run.fired) and all(fired.expires_at <= moment.now for fired in run.fired)
