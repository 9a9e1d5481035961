"""What happens to workers: killed, frozen, joining, leaving, replaced, robbed of their files. Each ends in a verdict.

`size` says how often: the short form's or the long form's number.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from app import topics
from tests.faults import outcome
from tests.faults.outcome import Verdict
from tests.faults.stage import INPUTS, SESSION_SECONDS, Failed, Stage, shards, until


async def calm(stage: Stage, size: int) -> Verdict:
    """Nothing happens: a worker that nobody disturbs writes what the processor alone would write."""
    await stage.load.publish(stage.shop.days(), size)
    stage.start("alone")
    await stage.moves(1)
    return await stage.verdict()


async def killed(stage: Stage, size: int) -> Verdict:
    """kill -9 at random moments under load: one worker or both, at work, while it opens, during the rebalance."""
    stage.start("static", static=True)
    stage.start("dynamic")
    stage.load.start()
    while stage.kills < size:
        if stage.dice.random() < 0.7:
            await stage.ready()
            await stage.pause(0.0, 1.5)
        else:
            await stage.pause(0.5, 4.0)
        roll = stage.dice.random()
        # The one without a name leaves its partitions to nobody until its session is over: kill it less often.
        victims = ["static"] if roll < 0.6 else ["dynamic"] if roll < 0.8 else ["static", "dynamic"]
        for name in victims:
            stage.kill(name)
        await stage.pause(0.0, 0.5)
        for name in victims:
            stage.again(name)
    return await stage.verdict()


async def killed_alone(stage: Stage, size: int) -> Verdict:
    """kill -9 of the only worker, at work: the quickest way to many kills inside transactions."""
    stage.start("only", static=True)
    stage.load.start()
    for _ in range(size):
        await stage.ready()
        await stage.pause(0.0, 1.0)
        stage.kill("only")
        stage.again("only")
    return await stage.verdict()


async def frozen(stage: Stage, size: int) -> Verdict:
    """SIGSTOP under load until the other has taken everything over, then SIGCONT: it gets nothing through, and rejoins
    or ends by itself."""
    stage.start("left", static=True)
    stage.start("right")
    stage.load.start()
    await stage.has_shards("left", 2)
    await stage.has_shards("right", 2)
    for number in range(size):
        victim, other = ("left", "right") if number % 2 == 0 else ("right", "left")
        await stage.pause(0.0, 1.0)
        stage.workers[victim].freeze()
        began = time.monotonic()
        await stage.has_shards(other, stage.settings.partitions)
        await asyncio.sleep(max(0.0, SESSION_SECONDS + 1 - (time.monotonic() - began)))
        await stage.pause(0.0, 2.0)
        stage.workers[victim].thaw()
        await _is_back_or_gone(stage, victim)
    return await stage.verdict()


async def replaced_while_frozen(stage: Stage, size: int) -> Verdict:
    """A worker with a name of its own (static membership) freezes and is replaced by one of the same name; then it
    comes back to life."""
    stage.load.start()
    stage.start("zombie0", instance_id="one-and-only")
    for number in range(size):
        zombie, heir = f"zombie{number}", f"zombie{number + 1}"
        await stage.ready(zombie)
        await stage.pause(0.2, 1.0)
        stage.workers[zombie].freeze()
        stage.start(heir, instance_id="one-and-only")
        await stage.ready(heir)
        await stage.pause(0.0, 2.0)
        stage.workers[zombie].thaw()
        old = stage.workers[zombie].process
        await until(lambda old=old: old.poll() is not None, 45, stage.workers[zombie].log)
        log = stage.workers[zombie].log()
        if "Traceback" in log[-6000:] or old.returncode == 0:
            raise Failed(f"replaced, the thawed worker ended with {old.returncode}, unclearly:\n{log[-4000:]}")
        stage.told.append(f"replaced, it ended with {old.returncode}: {log.splitlines()[-1]}")
        await stage.ready(heir)
    return await stage.verdict()


async def _is_back_or_gone(stage: Stage, victim: str) -> None:
    """The thawed one has ended by itself (then it is started anew), or has shards again, all of them being open."""
    workers, count = stage.workers, stage.settings.partitions

    def settled() -> bool:
        if workers[victim].process.poll() is not None:
            return True
        open_now = [shards(worker) for worker in workers.values()]
        return sum(open_now) == count and min(open_now) > 0

    await until(settled, 60, lambda: "".join(w.log()[-2000:] for w in workers.values()))
    if workers[victim].process.poll() is not None:
        stage.again(victim)
        await stage.ready(victim)


async def joining_and_leaving(stage: Stage, size: int) -> Verdict:
    """Two to four workers: one joins, one leaves (SIGTERM, sometimes kill -9), again and again, under load."""
    names = ("a", "b", "c", "d")
    stage.start("a")
    stage.start("b")
    stage.load.start()
    await stage.ready()
    for _ in range(size):
        running = [n for n in names if n in stage.workers and stage.workers[n].process.poll() is None]
        absent = [n for n in names if n not in running]
        if len(running) == 2 or (len(running) < len(names) and stage.dice.random() < 0.5):
            stage.start(stage.dice.choice(absent))
        elif stage.dice.random() < 0.25:
            stage.kill(stage.dice.choice(running))
        else:
            code, seconds = await asyncio.to_thread(stage.workers[stage.dice.choice(running)].stop)
            if code != 0:
                raise Failed(f"a worker that left ended with {code} after {seconds:.0f} s")
        if stage.dice.random() < 0.7:
            await _all_shards_open(stage)
        await stage.pause(0.0, 3.0)
    return await stage.verdict()


async def _all_shards_open(stage: Stage) -> None:
    def there() -> bool:
        alive = [worker for worker in stage.workers.values() if worker.process.poll() is None]
        return sum(map(shards, alive)) == stage.settings.partitions

    await until(there, 60, lambda: "".join(w.log()[-2000:] for w in stage.workers.values()))


async def all_lost(stage: Stage, size: int) -> Verdict:
    """Every worker and every local file is gone; others, elsewhere, have nothing but Kafka."""
    stage.load.start()
    for number in range(size):
        names = [f"a{number}", f"b{number}"]
        for name in names:
            stage.start(name)
        await stage.ready(*names)
        if number:
            rows = sum(stage.workers[name].metric("lifecycle_recovery_records") for name in names)
            if not rows:
                raise Failed("the new workers restored nothing from the changelog")
        await stage.moves(200)
        await stage.pause(0.5, 2.0)
        for name in names:
            stage.kill(name)
        _nothing_kept(stage)
        stage.forget_files()
    stage.start("heir")
    return await stage.verdict()


def _nothing_kept(stage: Stage) -> None:
    kept = [path for name in stage.workers for path in Path(stage.directory / f"data-{name}").rglob("*")]
    if kept:
        raise Failed(f"a worker keeps local files, which nobody may rely on: {kept[:3]}")


async def deploy(stage: Stage, size: int) -> Verdict:
    """A rolling deploy adds an input: one worker after the other is replaced by one that reads it, under load."""
    for name in ("old-a", "old-b"):
        stage.start(name)
    stage.load.start()
    await stage.ready()
    await stage.moves(300)
    # The topic comes first, with nothing in it but how far time is; its producers are deployed after the workers.
    stage.change(inputs=",".join(INPUTS))
    await topics.create_topics(stage.settings)
    stage.shop.read_by(INPUTS, silent="coupons")
    for old, new in (("old-a", "new-a"), ("old-b", "new-b")):
        stage.start(new)
        await stage.pause(1.0, 4.0)
        code, _ = await asyncio.to_thread(stage.workers[old].stop)
        if code != 0:
            raise Failed(f"{old} ended with {code}:\n{stage.workers[old].log()[-3000:]}")
        await stage.pause(0.0, 3.0)
    await _all_shards_open(stage)
    stage.shop.read_by(INPUTS)
    await asyncio.sleep(size)
    return await stage.verdict()


async def upgrade(stage: Stage, size: int) -> Verdict:
    """A release with a new row version, under load: one worker after the other is replaced, then all of it is rolled
    back, and done again (`size` times); only then it is finalised. A worker of the old release that comes now refuses
    the newer rows with a sentence, writes nothing, and costs nothing."""
    stage.change(state_version=1)
    stage.shop.read_by(stage.settings.inputs, silent="profiles")  # rows of version 1 hold no consents
    for name in ("a", "b"):
        stage.start(name, command=OLD_RELEASE)
    stage.load.start()
    await stage.ready()
    await stage.moves(200)
    for _ in range(size):
        await _replaced(stage)
        await _replaced(stage, command=OLD_RELEASE)
    await _replaced(stage)
    await _written_in(stage, 1)
    stage.change(state_version=2)
    await _replaced(stage)
    await _written_in(stage, 2)
    await _refused_by_the_old(stage)
    return await stage.verdict(seen=lambda left: outcome.in_version(left, 1))


OLD_RELEASE = ("-m", "tests.faults.old_release")


async def _replaced(stage: Stage, **more: object) -> None:
    """Both workers by others, one after the other, while events flow."""
    for name in ("a", "b"):
        code, _ = await asyncio.to_thread(stage.workers[name].stop)
        if code != 0:
            raise Failed(f"{name} ended with {code}:\n{stage.workers[name].log()[-3000:]}")
        stage.start(name, **more)
        await _all_shards_open(stage)
        await stage.pause(0.0, 1.0)
    await stage.moves(20)


async def _written_in(stage: Stage, version: int) -> None:
    """Wait until the newest row of each shard is of this version. Raises Failed when one is of a later one."""
    give_up = time.monotonic() + 90
    while True:
        newest = {}
        for (_, shard), log in (await outcome.read(stage.settings, [topics.CHANGELOG])).items():
            found = [record.value[0] for record in log if record.key and record.value and record.key[0]]
            newest[shard] = found[-1] if found else 0
            if max(found, default=0) > version:
                raise Failed(f"shard {shard} writes rows of version {max(found)}, not {version}")
        if set(newest.values()) == {version}:
            return
        if time.monotonic() > give_up:
            raise Failed(f"by shard, the newest rows are of the versions {newest}, not {version}")
        await asyncio.sleep(1)


async def _refused_by_the_old(stage: Stage) -> None:
    """An old worker takes shards over: they stop there and say why; when it has gone, the others go on."""
    before = await stage.committed()
    late = stage.start("late", command=OLD_RELEASE, state_version=1)
    said = "The state holds a row of version 2; this worker reads up to 1. A newer worker has finalised its format"
    await until(lambda: said in late.get("ready")[1], 60, lambda: f"{late.get('ready')}\n{late.log()[-3000:]}")
    stage.told.append(f"the old release said: {late.get('ready')[1].strip()}")
    if late.metric("lifecycle_events_total"):
        raise Failed("the old release went on nevertheless")
    await asyncio.to_thread(late.stop)
    await _all_shards_open(stage)
    after = await stage.committed()
    if any(after[tp] < offset for tp, offset in before.items()):
        raise Failed("committed offsets went back")
