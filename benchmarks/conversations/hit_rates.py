"""Hit rates of a simulated day of returning users: the companion's own functions, two workers, one Redis.

The day has its own clock: before each event the TTLs of the user's keys are reduced by the time since the user's last
event. TTLs are those that the companion sets; hits are those of the shared statistics.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from redis.asyncio import Redis

from benchmarks.bench import Bench
from benchmarks.child import Child
from benchmarks.conversations.returning_users import Behaviour, day
from benchmarks.figures import share
from cache import keys

_SEED = 20251006
# KEYS: keys whose TTLs are reduced. ARGV: milliseconds.
_SHIFT_TTLS = """
for _, key in ipairs(KEYS) do
  local left = redis.call('PTTL', key)
  if left >= 0 then
    left = left - tonumber(ARGV[1])
    if left <= 0 then redis.call('UNLINK', key) else redis.call('PEXPIRE', key, left) end
  end
end
"""
RETURNING = Behaviour(visits=3, drops=1.5, call=240, again=0.6, save=0.1)
"""The assumption behind the documented targets: users return soon, and connections drop often."""
BEHAVIOURS: dict[str, Behaviour] = {
    "returning users: visits in groups, 1.5 drops a visit": RETURNING,
    "the same, 0.3 drops a visit": replace(RETURNING, drops=0.3),
    "the same, no drops": replace(RETURNING, drops=0),
    "the same as the first, but visits come alone": replace(RETURNING, again=0),
    "one visit a day, no drops": replace(RETURNING, visits=1, again=0, drops=0),
}
FAMILIES = ("profile", "greeting_instructions", "summary", "state")


async def run(bench: Bench) -> None:
    """Print the table and record the targets."""
    users = bench.pick(100, 20)
    bench.title(
        f"Hit rates: a day of {users} users, two workers, one Redis",
        "Replayed with the documented TTLs on the day's own clock. By family, and as callers met them: the reads\n"
        "at the start of a conversation, counted by the replay. Overall: the shared statistics. Warmed: loads that\n"
        "prepared a start when the conversation before it had ended, which the statistics count apart.",
    )
    days = await asyncio.gather(
        *(_replay(bench, behaviour, users, shared=True) for behaviour in BEHAVIOURS.values()),
        _replay(bench, RETURNING, users, shared=False),
    )
    names = [*BEHAVIOURS, "the first, but each worker has a cache of its own"]
    rows = [
        [name, f"{day.conversations:,}", *map(day.at_start, FAMILIES), day.at_start(), day.overall, f"{day.warmed:,}"]
        for name, day in zip(names, days, strict=True)
    ]
    families = ("profile", "greeting", "summary", "state")
    head = ("a day of", "conversations", *families, "as callers met them", "overall", "warmed")
    bench.table(head, rows)
    first = days[0]
    for what, low, high, rate in (
        ("profiles", 80, 90, first.at_start("profile")),
        ("greetings", 60, 70, first.at_start("greeting_instructions")),
        ("overall", 75, 85, first.overall),
    ):
        met = float(rate.rstrip(" %")) >= low
        bench.target(f"hit rate of returning users, {what}", f"{low}-{high} %", rate, met)


@dataclass(frozen=True, slots=True)
class DayResult:
    """The result of a replayed day.

    Attributes:
        conversations: number of conversations.
        reads: reads by "start" or "end" and family.
        loads: reads answered by the source.
        overall: the hit rate by the shared statistics.
        warmed: what they count as loaded ahead.
    """

    conversations: int
    reads: Counter[str]
    loads: Counter[str]
    overall: str
    warmed: int

    def at_start(self, family: str = "") -> str:
        """The hit rate of reads at the start of conversations, of one family or of all."""
        reads = [name for name in self.reads if name.startswith(f"start {family}")]
        total_reads, total_loads = (sum(counts[name] for name in reads) for counts in (self.reads, self.loads))
        return share(total_reads - total_loads, total_reads)


async def _replay(bench: Bench, behaviour: Behaviour, users: int, *, shared: bool) -> DayResult:
    server, rng = bench.server(), random.Random(_SEED)
    urls = [server.url, server.url if shared else server.url.removesuffix("/0") + "/1"]
    async with AsyncExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        workers = [await stack.enter_async_context(Child("conversations.session_worker", url, home)) for url in urls]
        for worker in workers:
            await worker.receive()
        clocks = [await stack.enter_async_context(Redis.from_url(url)) for url in urls]
        active: dict[str, Child] = {}
        last: dict[str, float] = {}
        conversations = 0
        for event in day(behaviour, users, _SEED):
            await _shift_ttls(
                clocks if not shared else clocks[:1], event.user, event.at - last.get(event.user, event.at)
            )
            last[event.user] = event.at
            if event.start:
                conversations += 1
                worker = active[event.user] = rng.choice(workers)
                await worker.ask(["start", event.user, event.save])
            else:
                await active.pop(event.user).ask(["end", event.user])
        total_reads: Counter[str] = Counter()
        total_loads: Counter[str] = Counter()
        for worker in workers:
            worker_reads, worker_loads = await worker.ask(["totals"])
            total_reads.update(worker_reads)
            total_loads.update(worker_loads)
        overall, warmed = await _counted(clocks if not shared else clocks[:1])
    return DayResult(conversations, total_reads, total_loads, overall, warmed)


async def _counted(clocks: Sequence[Redis]) -> tuple[str, int]:
    """The hit rate, and the loads ahead, by the shared statistics."""
    counted: Counter[bytes] = Counter()
    for clock in clocks:
        counted.update({name: int(value) for name, value in (await clock.hgetall(keys.system_stats())).items()})
    return share(counted[b"cache_hits"], counted[b"total_requests"]), counted[b"warmed"]


async def _shift_ttls(clocks: Sequence[Redis], user: str, seconds: float) -> None:
    names = [keys.user_prefix(user) + family for family in keys.FAMILIES]
    names += [keys.stale(name) for name in names]
    for clock in clocks:
        await clock.eval(_SHIFT_TTLS, len(names), *names, int(seconds * 1000))
