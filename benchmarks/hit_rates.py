"""A day of returning users, replayed through the companion's own functions, two workers and one Redis.

The day has its own clock: before each event the user's keys are made as much older as the day has moved on since the
user's last one. TTLs are those the companion sets, hits those the fleet's statistics count.
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

from cache import keys

from .bench import Bench
from .child import Child
from .figures import share
from .returning_users import Habit, day

_SEED = 20251006
# KEYS: what may be aged. ARGV: by how many milliseconds.
_AGE = """
for _, key in ipairs(KEYS) do
  local left = redis.call('PTTL', key)
  if left >= 0 then
    left = left - tonumber(ARGV[1])
    if left <= 0 then redis.call('UNLINK', key) else redis.call('PEXPIRE', key, left) end
  end
end
"""
RETURNING = Habit(visits=3, drops=1.5, call=240, again=0.6, save=0.1)
"""What the documented targets take for granted: who comes, comes again soon, and seldom stays connected."""
HABITS: dict[str, Habit] = {
    "returning users: visits in groups, 1.5 drops a visit": RETURNING,
    "the same, 0.3 drops a visit": replace(RETURNING, drops=0.3),
    "the same, no drops": replace(RETURNING, drops=0),
    "the same as the first, but visits come alone": replace(RETURNING, again=0),
    "one visit a day, no drops": replace(RETURNING, visits=1, again=0, drops=0),
}
FAMILIES = ("profile", "greeting_instructions", "summary", "state")


async def run(bench: Bench) -> None:
    """The table."""
    users = bench.pick(100, 20)
    bench.title(
        f"Hit rates: a day of {users} users, two workers, one Redis",
        "Replayed with the documented TTLs on the day's own clock. By family: the reads at the start of a "
        "conversation,\nwhich somebody waits for. Overall: all reads, as the fleet's statistics count them, "
        "with those that\nprepare the next start.",
    )
    days = await asyncio.gather(
        *(_replay(bench, habit, users, shared=True) for habit in HABITS.values()),
        _replay(bench, RETURNING, users, shared=False),
    )
    names = [*HABITS, "the first, but each worker has a cache of its own"]
    rows = [
        [name, f"{day.conversations:,}", *map(day.at_start, FAMILIES), day.at_start(), day.overall]
        for name, day in zip(names, days, strict=True)
    ]
    head = ("a day of", "conversations", "profile", "greeting", "summary", "state", "all at starts", "overall")
    bench.table(head, rows)
    first = days[0]
    for what, low, high, rate in (
        ("profiles", 80, 90, first.at_start("profile")),
        ("greetings", 60, 70, first.at_start("greeting_instructions")),
        ("overall", 75, 85, first.overall),
    ):
        good = float(rate.rstrip(" %")) >= low
        bench.goal(f"hit rate of returning users, {what}", f"{low}-{high} %", rate, good)


@dataclass(frozen=True, slots=True)
class Day:
    """What a replayed day came to.

    Attributes:
        conversations: how many there were.
        asked: reads, by "start" or "end" and family.
        loaded: those that the source had to answer.
        overall: the hit rate by the fleet's statistics.
    """

    conversations: int
    asked: Counter[str]
    loaded: Counter[str]
    overall: str

    def at_start(self, family: str = "") -> str:
        """The hit rate of reads at the start of conversations; of all families where none is named."""
        reads = [read for read in self.asked if read.startswith(f"start {family}")]
        asked, loaded = (sum(counts[read] for read in reads) for counts in (self.asked, self.loaded))
        return share(asked - loaded, asked)


async def _replay(bench: Bench, habit: Habit, users: int, *, shared: bool) -> Day:
    server, choice = bench.server(), random.Random(_SEED)
    urls = [server.url, server.url if shared else server.url.removesuffix("/0") + "/1"]
    async with AsyncExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        workers = [await stack.enter_async_context(Child("conversations", url, home)) for url in urls]
        for worker in workers:
            await worker.hear()
        clocks = [await stack.enter_async_context(Redis.from_url(url)) for url in urls]
        talking: dict[str, Child] = {}
        last: dict[str, float] = {}
        conversations = 0
        for event in day(habit, users, _SEED):
            await _age(clocks if not shared else clocks[:1], event.user, event.at - last.get(event.user, event.at))
            last[event.user] = event.at
            if event.start:
                conversations += 1
                worker = talking[event.user] = choice.choice(workers)
                await worker.ask(["start", event.user, event.save])
            else:
                await talking.pop(event.user).ask(["end", event.user])
        asked: Counter[str] = Counter()
        loaded: Counter[str] = Counter()
        for worker in workers:
            these, those = await worker.ask(["totals"])
            asked.update(these)
            loaded.update(those)
        overall = await _counted(clocks if not shared else clocks[:1])
    return Day(conversations, asked, loaded, overall)


async def _counted(clocks: Sequence[Redis]) -> str:
    """The hit rate by the fleet's own statistics."""
    hits = total = 0
    for clock in clocks:
        fleet = await clock.hgetall(keys.system_stats())
        hits, total = hits + int(fleet[b"cache_hits"]), total + int(fleet[b"total_requests"])
    return share(hits, total)


async def _age(clocks: Sequence[Redis], user: str, seconds: float) -> None:
    names = [keys.user_prefix(user) + family for family in keys.FAMILIES]
    names += [keys.stale(name) for name in names]
    for clock in clocks:
        await clock.eval(_AGE, len(names), *names, int(seconds * 1000))
