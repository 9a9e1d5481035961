"""Each setting of a shipped rule is there for something: without it, or with another one, a scenario of the rule fails.

The rules are changed in memory, one setting at a time. What no scenario can tell from the shipped rule is listed here
with the reason; an entry of that list that a scenario can tell apart after all fails, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from app.backtest import scenario
from app.backtest.scenario import Scenario
from app.core.rules import End, Enter, Rule, Send, Step, index
from app.rulebook import load
from tests.scenarios.test_scenarios import CATALOGUES, SCENARIOS

SHIPPED = load()
_TAKEN_BACK = "what takes an order back takes along what it started; the end is declared for people"
_ENDS_SAY_SO = "its ends say the same, of whom they have heard; the condition is for those of before the rule was there"
_NO_SECOND = "facts know each order and coupon once, so that nobody can enter twice"
_NO_LATER = "no step comes so late; declared for people, and for shops that add one"
NOBODY_CAN_TELL = {
    (
        "activation_nudge",
        "reentry after_exit",
    ): "a later registration is no fact, and an earlier one has only past steps",
    ("anniversary", "reentry after_exit"): "its run never exits",
    ("birthday", "enter 0 without when"): "without a birthday it is never due: no run is kept for nothing",
    ("cart_abandoned", "without end at 0"): _NO_LATER,
    ("checkout_reminder", "without end 1"): _TAKEN_BACK,
    (
        "checkout_reminder",
        "enter 0 without when",
    ): "what is paid or cancelled is born ended: no run is kept for nothing",
    ("coupon_expiring", "without end at 0"): _NO_LATER,
    ("coupon_expiring", "reentry after_exit"): _NO_SECOND,
    (
        "first_order_nudge",
        "reentry after_exit",
    ): "a later registration is no fact, and an earlier one has only past steps",
    ("second_order_nudge", "without check"): "its entry and its ends say so; the check is for merged accounts",
    ("welcome_pack", "enter 0 without when"): _ENDS_SAY_SO,
}


class Mutant(NamedTuple):
    """A shipped rule with one setting changed."""

    what: str
    rule: Rule


def mutants(rule: Rule) -> Iterator[Mutant]:
    """The rule with each setting gone, or another one."""
    for number, end in enumerate(rule.ends):
        rest = (*rule.ends[:number], *rule.ends[number + 1 :])
        yield Mutant(f"without end {number}", rule._replace(ends=rest))
        for what, changed in _of_end(end):
            ends = (*rule.ends[:number], changed, *rule.ends[number + 1 :])
            yield Mutant(f"end {number} {what}", rule._replace(ends=ends))
    for number in range(len(rule.end_at)):
        yield Mutant(f"without end at {number}", rule._replace(end_at=rule.end_at[:number] + rule.end_at[number + 1 :]))
    for number, enter in enumerate(rule.enter):
        for what, entries in _of_entry(enter):
            yield Mutant(
                f"enter {number} {what}", rule._replace(enter=rule.enter[:number] + entries + rule.enter[number + 1 :])
            )
    for number, step in enumerate(rule.steps):
        for what, steps in _of_step(step, len(rule.steps) == 1):
            yield Mutant(
                f"step {number} {what}", rule._replace(steps=rule.steps[:number] + steps + rule.steps[number + 1 :])
            )
    without = {"check": rule.check, "holds": rule.holds, "yearly": rule.yearly}
    yield from (Mutant(f"without {name}", rule._replace(**{name: None})) for name, value in without.items() if value)
    for kind in sorted(rule.retime_on):
        yield Mutant(f"not retimed on {kind}", rule._replace(retime_on=rule.retime_on - {kind}))
    others = {"once", "after_exit", *(["every_key"] if rule.reentry == "every_purchase" else [])}
    for reentry in sorted(others - {rule.reentry}):
        yield Mutant(f"reentry {reentry}", rule._replace(reentry=reentry))
    yield from (Mutant(what, rule._replace(send=send)) for what, send in _of_sending(rule.send))
    if rule.recheck:
        yield Mutant("without recheck", rule._replace(recheck=()))


def _of_end(end: End) -> Iterator[tuple[str, End]]:
    if end.when is not None:
        yield "without when", end._replace(when=None)
    for name in ("same_line", "any_key", "whenever"):
        if getattr(end, name):
            yield f"without {name}", end._replace(**{name: False})


def _of_entry(enter: Enter) -> Iterator[tuple[str, tuple[Enter, ...]]]:
    yield "gone", ()
    for name in ("when", "at"):
        if getattr(enter, name) is not None:
            yield f"without {name}", (enter._replace(**{name: None}),)
    if enter.of_first_order:
        yield "without as_of", (enter._replace(of_first_order=False),)


def _of_step(step: Step, alone: bool) -> Iterator[tuple[str, tuple[Step, ...]]]:
    if not alone:
        yield "gone", ()
    for name in ("offer", "kind"):
        if getattr(step, name) is not None:
            yield f"without {name}", (step._replace(**{name: None}),)


def _of_sending(send: Send) -> Iterator[tuple[str, Send]]:
    for name in ("once_in", "discount_every", "expires_after"):
        if length := getattr(send, name):
            yield f"half of {name}", send._replace(**{name: length // 2})
            yield f"twice {name}", send._replace(**{name: length * 2})
    for name in ("once_in", "discount_every", "coupon_instead"):
        if getattr(send, name):
            yield f"without {name}", send._replace(**{name: 0})
    if send.collapse is not None:
        yield "without collapse", send._replace(collapse=None)
    if send.on_cap == "drop":
        yield "without on_cap", send._replace(on_cap="defer")
    if send.action == "contact":
        yield "of the other class", send._replace(kind="marketing" if send.kind == "transactional" else "transactional")
    for channel in send.channels:
        yield f"without {channel}", send._replace(channels=tuple(one for one in send.channels if one != channel))


MUTANTS = [(name, *mutant) for name, rule in SHIPPED.rules.items() for mutant in mutants(rule) if mutant.rule.enter]
_OWN = {name: [(on, one) for on, one in SCENARIOS if on != "three" and one.rules == (name,)] for name in SHIPPED.rules}


def _tells_apart(one: Scenario, on: str, mutant: Rule) -> bool:
    """In the order in which it is written, which most of them need, else in any."""
    shipped = CATALOGUES[on]()
    changed = index({**shipped.rules, mutant.name: mutant}, shipped.policy)
    as_written = one._replace(any_order=False)
    return scenario.check(as_written, changed) is not None or (
        one.any_order and scenario.check(one, changed) is not None
    )


@pytest.mark.parametrize(("rule", "what", "mutant"), MUTANTS, ids=[f"{name}: {what}" for name, what, _ in MUTANTS])
def test_a_setting_of_a_shipped_rule_is_there_for_something(rule: str, what: str, mutant: Rule) -> None:
    found = any(_tells_apart(one, on, mutant) for on, one in _OWN[rule])
    assert found is ((rule, what) not in NOBODY_CAN_TELL), f"{rule} {what}: no scenario of the rule can tell"


def test_what_nobody_can_tell_is_of_settings_that_there_are() -> None:
    assert NOBODY_CAN_TELL.keys() <= {(name, what) for name, what, _ in MUTANTS}
