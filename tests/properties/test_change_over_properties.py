"""What holds of catalogues that change under any history, at any instants: the cuts of batches, restarts and crashes
change not a byte, and every candidate still has one final decision.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

from app import rulebook
from app.publications.record import Loaded, Loader, Publication, Way
from schemas import events as ev
from schemas.events import INPUT_TOPICS
from tests.catalogues import THREE
from tests.core.shard import Shard
from tests.core.shop import DAY
from tests.properties.histories import START, histories

#: Without shrinking: each try compiles catalogues, and a counterexample of four users is small enough.
FEW = settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
END = START + 200 * DAY
FILES = rulebook.texts(THREE)
RULE_FILES = sorted(FILES.keys() - set(rulebook.POLICY_FILES))
#: What a version changes of each rule: when its first step is due.
STEPS = {
    "coupon_unused.yaml": ("min(7d,", "min({}d,"),
    "replenishment.yaml": ("supply.runs_out_at - policy.lead", "supply.runs_out_at - {}d"),
    "winback.yaml": ("after: 60d", "after: 5{}d"),
}


@st.composite
def publications(draw: st.DrawFn) -> list[Loaded]:
    """A few catalogues, each with an instant: rules changed in any way, taken out, brought back, paused."""
    loader = Loader()
    found = [loader.add(Publication(1, None, FILES, {}, START))]
    for number in range(2, draw(st.integers(2, 5)) + 1):
        files = dict(FILES)
        for name in RULE_FILES:
            what = draw(st.sampled_from(["keep", "keep", "drop", "finish", "follow", "restart", "exit"]))
            if what == "drop":
                del files[name]
            elif what != "keep":
                old, new = STEPS[name]
                text = files[name].replace(old, new.format(draw(st.integers(1, 6))))
                assert text != files[name]
                files[name] = text.replace("version: 1", f"version: {number}") + f"on_change: {what}\n"
        if not files.keys() - set(rulebook.POLICY_FILES):
            files = dict(FILES)
        ways: st.SearchStrategy[Way] = st.sampled_from(["hold", "skip", "expire"])
        paused = draw(st.dictionaries(st.sampled_from(["*", "winback"]), ways, max_size=1))
        at = START + draw(st.integers(0, 150 * 24)) * DAY // 24
        found.append(loader.add(Publication(number, at, files, paused, START)))
    return found


def shard(published: list[Loaded]) -> Shard:
    found = Shard(rulebook.compiled(FILES), inputs=INPUT_TOPICS)
    offer(found, published)
    return found


def offer(shard: Shard, published: list[Loaded]) -> None:
    for publication, catalogue, problem in published:
        assert catalogue is not None, problem
        if publication.number >= shard.processor.catalogue_number:
            shard.processor.offer(publication.number, publication.since, catalogue)


@FEW
@given(histories(users=4, most=24), publications(), st.data())
def test_batches_and_restarts_across_change_overs_change_not_a_byte(
    history: list[ev.Event], published: list[Loaded], data: st.DataObject
) -> None:
    note(str([(loaded.publication.number, loaded.publication.effective_at) for loaded in published]))
    plain = shard(published).write(*history).clock(END).run()
    cut = shard(published).write(*history).clock(END)
    while cut.committed != plain.committed or cut.processor.merged < plain.processor.merged:
        cut.fetch(most=data.draw(st.integers(1, 4)))
        cut.take(data.draw(st.sampled_from([1, 2, 7])))
        if data.draw(st.booleans()):
            cut.reopen()
            offer(cut, published)
    assert cut.outputs == plain.outputs
    assert cut.state() == plain.state()
    assert cut.processor._meta == plain.processor._meta


@FEW
@given(histories(users=3, most=24), publications())
def test_every_candidate_has_one_final_decision_whatever_catalogues_come_and_go(
    history: list[ev.Event], published: list[Loaded]
) -> None:
    done = shard(published).write(*history).clock(END).run()
    decisions = done.decisions()
    finals = Counter(d["trigger_id"] for d in decisions if d["final"])
    assert finals == dict.fromkeys({d["trigger_id"] for d in decisions}, 1)
    ids = [t for t in done.sent(lambda t: t.get("trigger_id") if "rule_version" in t else None) if t]
    assert len(ids) == len(set(ids))
    assert done.processor.catalogue_number == max(
        loaded.publication.number for loaded in published if loaded.publication.since <= END
    )
