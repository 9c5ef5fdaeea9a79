"""The real code, paused at its awaits and let go in every order a seed can think of, against a real server.

Several caches (each as in a process of its own) read one key through ``get_or_load``, and refresh it, while others
write the source and invalidate it in one of the four ways there are, leases and values are evicted, and the scripts
are flushed. Each operation that goes to Redis waits at
a gate; a seeded hand opens the gates one at a time. When everybody has finished, the cache holds nothing older than
the source: every write was followed by an invalidation that was acknowledged.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cache import CacheSettings, RedisCache, keys
from cache.invalidation import invalidator as invalidation
from cache.loading import lease
from cache.transport import commands as road
from cache.transport.commands import Transport
from cache.transport.scripts import Script
from tests.inside import filler_of
from tests.real.redis_server import RedisServer, installed_servers, server_version
from tests.wait import initialised, until

pytestmark = pytest.mark.integration
SEEDS = range(150)
KEYS = ("user:1:profile", "user:1:notes")  # one of a family, and one that only the user's index knows


@pytest.fixture(scope="module", params=installed_servers(), ids=lambda binary: f"redis {server_version(binary)[0]}")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("interleavings"), binary=request.param) as running:
        yield running


class Gate:
    """Where operations wait until a seeded hand lets one through.

    Each task has a rank, drawn at random and now and then anew, and the first in rank moves. So one may stand still
    for as long as all the others need, which a fair hand would hardly ever let happen.
    """

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.rank: dict[asyncio.Task[Any], float] = {}
        self.waiting: list[tuple[asyncio.Task[Any], asyncio.Future[None]]] = []
        self.closed = True
        self.in_the_air = 0
        """Operations that have been sent and not yet answered: nobody else moves meanwhile, so a seed is an order."""
        self.landed = asyncio.Event()

    @contextmanager
    def flying(self) -> Iterator[None]:
        """For as long as an operation is with the server."""
        self.in_the_air += 1
        self.landed.clear()
        try:
            yield
        finally:
            self.in_the_air -= 1
            if not self.in_the_air:
                self.landed.set()

    async def passing(self) -> None:
        if self.closed:
            task, mine = asyncio.current_task(), asyncio.get_running_loop().create_future()
            assert task is not None
            self.rank.setdefault(task, self.draw.random())
            self.waiting.append((task, mine))
            await mine

    def open_one(self) -> bool:
        self.waiting = [(task, future) for task, future in self.waiting if not future.done()]
        if not self.waiting:
            return False
        first = max(self.waiting, key=lambda one: self.rank[one[0]])
        self.waiting.remove(first)
        if self.draw.random() < 0.6:
            self.rank[first[0]] = self.draw.random()
        first[1].set_result(None)
        return True

    def open_all(self) -> None:
        self.closed = False
        while self.open_one():
            pass


@pytest.fixture
async def caches(server: RedisServer) -> AsyncIterator[list[RedisCache]]:
    made = [RedisCache(settings=CacheSettings(url=server.url, deadline=5.0, connect_wait=5.0)) for _ in range(3)]
    for one in made:
        await initialised(one)
    yield made
    for one in made:
        await one.close()


async def play(seed: int, caches: list[RedisCache], server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(seed)
    source = 0
    key, small = gate.draw.choice(KEYS), gate.draw.choice([0, 2_000])
    none = gate.draw.choice([None, 0, 1, 2])  # the version of which the source says that there is none
    server.cli("FLUSHALL")

    def gated(name: str) -> Any:
        original = getattr(Transport, name)

        async def wrapper(self: Transport, *args: Any, **options: Any) -> Any:
            await gate.passing()
            with gate.flying():
                reply = await original(self, *args, **options)
            await gate.passing()  # the server has answered, and the caller does not know yet
            return reply

        return wrapper

    with monkeypatch.context() as patch:
        patch.setattr(invalidation, "SMALL", small)
        for name in ("send", "send_all", "call"):  # everything goes through one of these, but a reader's plain GET
            patch.setattr(Transport, name, gated(name))

        async def load() -> int | None:
            await gate.passing()
            seen = source
            await gate.passing()
            return None if seen == none else seen

        async def read(cache: RedisCache) -> None:
            for _ in range(gate.draw.choice([1, 2])):
                # What another one stored for a minute is past its first second for whoever keeps it for ten.
                ttl, refresh_after = gate.draw.choice([60, 600]), gate.draw.choice([None, 1])
                await cache.get_or_load(key, load, ttl=ttl, stale_for=60, refresh_after=refresh_after)

        async def write(cache: RedisCache) -> None:
            nonlocal source
            await gate.passing()
            source += 1
            committed = source
            how = gate.draw.randrange(4)
            if how == 0:
                await cache.delete(key)
            elif how == 1:
                await cache.invalidate_pattern("user:*")
            elif how == 2:
                await cache.clear_user_cache("1")
            else:
                await cache.set(key, committed, ttl=60)  # may be older than the next commit, which deletes it again
                if committed != source:
                    await cache.delete(key)

        async def weather() -> None:
            for _ in range(2):
                await gate.passing()
                what = gate.draw.choice(["lease", "value", "scripts", "nothing"])
                if what == "lease":
                    server.cli("DEL", keys.lease(key))
                elif what == "value":
                    server.cli("DEL", key)
                elif what == "scripts":
                    server.cli("SCRIPT", "FLUSH")

        writers = gate.draw.choice([1, 2])
        players = [read(caches[n % 3]) for n in range(4)] + [write(caches[n]) for n in range(writers)] + [weather()]
        tasks = [asyncio.ensure_future(player) for player in players]
        idle = 0
        while not all(task.done() for task in tasks) and idle < 200:
            # Let whoever can go on do so, then open one gate.
            for _ in range(3):
                await asyncio.sleep(0)
            if gate.in_the_air:
                await gate.landed.wait()
            elif gate.open_one():
                idle = 0
            else:
                idle += 1
                await asyncio.sleep(0.0005)
        gate.open_all()
        await asyncio.wait_for(asyncio.gather(*tasks), 10)
        await until(lambda: not any(filler_of(cache).background or walking(cache) for cache in caches))

    held = server.cli("GET", key)
    assert held is None or int(held) == source, f"seed {seed}: the cache holds {held}, the source {source}"
    stale = server.cli("GET", keys.stale(key))
    assert stale is None or int(stale) == source, f"seed {seed}: the last good value is {stale}, the source {source}"


def walking(cache: RedisCache) -> bool:
    """Whether a sweep is still under way in the background."""
    return cache.invalidations.background_scan.running


async def test_no_order_leaves_an_old_value(
    caches: list[RedisCache], server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in SEEDS:
        await play(seed, caches, server, monkeypatch)


async def test_the_hand_would_find_a_broken_fence(
    caches: list[RedisCache], server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a fill that does not look at its token, some seed fails: so the test above can see."""
    blind = Script("redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])\nredis.call('DEL', KEYS[2])\nreturn 1\n")
    monkeypatch.setattr(lease, "FILL", blind)
    monkeypatch.setattr(road, "LOAD_SCRIPTS", (*road.LOAD_SCRIPTS, ("SCRIPT", "LOAD", blind.text)))

    async def every_seed() -> None:
        for seed in range(4 * len(SEEDS)):
            await play(seed, caches, server, monkeypatch)

    with pytest.raises(AssertionError, match="the cache holds"):
        await every_seed()
