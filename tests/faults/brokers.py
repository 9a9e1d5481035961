"""What happens to brokers while workers and producers go on: stopped, killed, their leaders killed in turn."""

from __future__ import annotations

import asyncio
from collections import Counter

from app import topics
from tests.faults.outcome import Verdict
from tests.faults.stage import Failed, Stage

#: What a worker may take to end after SIGTERM when no broker answers.
SIGTERM_SECONDS = 30


async def _two_at_work(stage: Stage) -> None:
    stage.start("left", static=True)
    stage.start("right")
    stage.load.start()
    await stage.ready()
    await stage.moves(200)


async def stopped(stage: Stage, size: int) -> Verdict:
    """The broker is stopped for 20 s and started again."""
    await _two_at_work(stage)
    for _ in range(size):
        await stage.pause(0.5, 2.0)
        await asyncio.to_thread(stage.cluster.stop, 1)
        await asyncio.sleep(20)
        await asyncio.to_thread(stage.cluster.start, 1)
        await stage.ready(within=90)
    return await stage.verdict()


async def killed(stage: Stage, size: int) -> Verdict:
    """The broker is killed with -9 and started again after a while."""
    await _two_at_work(stage)
    for _ in range(size):
        await _killed_once(stage)
    return await stage.verdict()


async def _killed_once(stage: Stage) -> None:
    await stage.pause(0.5, 2.0)
    await kill(stage, 1)
    await stage.pause(0.0, 5.0)
    await asyncio.to_thread(stage.cluster.start, 1)
    await stage.ready(within=90)


async def silent(stage: Stage, size: int) -> Verdict:
    """The broker keeps its connections and says nothing for 20 s (SIGSTOP), as if the network had gone."""
    await _two_at_work(stage)
    for _ in range(size):
        await stage.pause(0.5, 2.0)
        await _freeze(stage, 1, 20)
        await stage.ready(within=90)
    return await stage.verdict()


async def _freeze(stage: Stage, broker: int, seconds: float) -> None:
    await asyncio.to_thread(stage.cluster.freeze, broker)
    try:
        await asyncio.sleep(seconds)
    finally:
        await asyncio.to_thread(stage.cluster.thaw, broker)


async def kill(stage: Stage, broker: int) -> None:
    """kill -9."""
    await asyncio.to_thread(stage.cluster.kill, broker)
    stage.kills += 1


async def leaders(stage: Stage, size: int) -> Verdict:
    """Three brokers, three copies, two in sync: whoever leads most is killed with -9, comes back; then the next one."""
    await _two_at_work(stage)
    turns: Counter[int] = Counter()
    for _ in range(size):
        victim = await _next_leader(stage, turns)
        await kill(stage, victim)
        await stage.pause(5.0, 12.0)  # past the brokers' own session: its leaderships move
        await asyncio.to_thread(stage.cluster.start, victim)
    await in_sync(stage)
    return await stage.verdict()


async def leaders_silent(stage: Stage, size: int) -> Verdict:
    """The same, but the leader freezes until others lead, and comes back believing that it still does."""
    await _two_at_work(stage)
    turns: Counter[int] = Counter()
    for _ in range(size):
        await _freeze(stage, await _next_leader(stage, turns), stage.dice.uniform(8.0, 15.0))
    await in_sync(stage)
    return await stage.verdict()


async def _next_leader(stage: Stage, turns: Counter[int]) -> int:
    """Of the brokers whose turn it is, the one that leads most; a moment later, all copies being in sync before."""
    led = await in_sync(stage)
    fewest = min(turns[broker] for broker in led)
    victim = max((broker for broker in led if turns[broker] == fewest), key=lambda broker: led[broker])
    turns[victim] += 1
    await stage.pause(0.5, 3.0)
    return victim


async def in_sync(stage: Stage) -> Counter[int]:
    """Wait until every partition has all its copies in sync; how many partitions each broker leads."""
    names = {spec.name for spec in topics.specs(stage.settings)} | {"__consumer_offsets", "__transaction_state"}

    async def look() -> Counter[int] | None:
        try:
            async with stage.admin() as admin:
                found = await admin.describe_topics(sorted(names))
        except Exception:  # a broker that is just coming back may answer anything
            return None
        partitions = [partition for topic in found for partition in topic["partitions"]]
        if not partitions or any(len(p["isr"]) < len(p["replicas"]) or p["leader"] < 0 for p in partitions):
            return None
        return Counter({node.id: 0 for node in stage.cluster.nodes}) + Counter(p["leader"] for p in partitions)

    for _ in range(200):
        led = await look()
        if led is not None:
            return Counter({node.id: led[node.id] for node in stage.cluster.nodes})
        await asyncio.sleep(0.5)
    raise Failed("the copies did not come back into sync")


async def sigterm(stage: Stage, size: int) -> Verdict:
    """SIGTERM while the broker is stopped, killed, or says nothing more: the workers are gone within 30 s; later ones
    go on where they stood."""
    await _two_at_work(stage)
    for number in range(size):
        await stage.moves(100)
        await _told_to_stop(stage, ("killed", "frozen", "stopped")[number % 3])
    return await stage.verdict()


async def killed_then_sigterm(stage: Stage, size: int) -> Verdict:
    """Both on one stage, for the short form: killed and back; killed, and the workers told to stop."""
    await _two_at_work(stage)
    for _ in range(size):
        await _killed_once(stage)
        await _told_to_stop(stage, "killed")
    return await stage.verdict()


async def _told_to_stop(stage: Stage, how: str) -> None:
    """With the broker killed, frozen or stopped."""
    cluster = stage.cluster
    if how == "killed":
        await kill(stage, 1)
    else:
        await asyncio.to_thread(cluster.freeze if how == "frozen" else cluster.stop, 1)
    await stage.pause(0.0, 3.0)
    took = await asyncio.gather(*(_gone_after(stage, name) for name in stage.workers))
    stage.told.append(f"SIGTERM with the broker {how}: gone after {', '.join(took)}")
    await asyncio.to_thread(cluster.thaw if how == "frozen" else cluster.start, 1)
    for name in stage.workers:
        stage.again(name)
    await stage.ready(within=90)


async def _gone_after(stage: Stage, name: str) -> str:
    code, seconds = await asyncio.to_thread(stage.workers[name].stop, SIGTERM_SECONDS)
    return f"{seconds:.1f} s (exit {code})"
