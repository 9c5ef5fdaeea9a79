"""The real code against a real server, with its operations interleaved in a seeded random order.

Several caches (each as in a process of its own) read one key through ``get_or_load``, and refresh it, while others
write the source and invalidate it in one of the four ways, loads fail, leases and values are evicted, and scripts are
flushed.
Each operation on Redis waits at a gate; a seeded scheduler opens one gate at a time. When all tasks have finished, the
cache holds nothing older than the source: every write was followed by an acknowledged invalidation.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from cache import CacheSettings, RedisCache, keys
from cache.invalidation import invalidator as invalidation
from cache.loading import lease
from cache.transport import capabilities as road
from cache.transport.commands import Transport
from cache.transport.scripts import Script
from tests.inside import filler_of
from tests.real.redis.redis_server import RedisServer, installed_servers, server_name
from tests.wait import initialised, until

pytestmark = pytest.mark.integration
SEEDS = range(150)
KEYS = ("user:1:profile", "user:1:notes")  # a key of a family, and one that is only in the user's index


@pytest.fixture(scope="module", params=installed_servers(), ids=server_name)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("interleavings"), binary=request.param) as running:
        yield running


class Gate:
    """A scheduler: operations wait until it lets one through.

    Each task has a random priority, which is redrawn occasionally, and the first in order proceeds. A task may thus be
    delayed until all others have finished, which uniform choices would hardly ever produce.
    """

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.rank: dict[asyncio.Task[Any], float] = {}
        self.waiting: list[tuple[asyncio.Task[Any], asyncio.Future[None]]] = []
        self.closed = True
        self.in_the_air = 0
        """Operations in flight: no other task proceeds meanwhile, so that a seed determines the order."""
        self.landed = asyncio.Event()

    @contextmanager
    def flying(self) -> Iterator[None]:
        """Mark an operation as in flight within the block."""
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
    none = gate.draw.choice([None, 0, 1, 2])  # the version at which the source has no value
    server.cli("FLUSHALL")

    def gated(name: str) -> Any:
        original = getattr(Transport, name)

        async def wrapper(self: Transport, *args: Any, **options: Any) -> Any:
            await gate.passing()
            with gate.flying():
                reply = await original(self, *args, **options)
            await gate.passing()  # the server has replied, the caller has not resumed
            return reply

        return wrapper

    with monkeypatch.context() as patch:
        patch.setattr(invalidation, "SMALL", small)
        for name in ("send", "send_all", "send_to"):  # all operations pass through one of these, except a reader's GET
            patch.setattr(Transport, name, gated(name))

        async def load() -> int | None:
            await gate.passing()
            seen = source
            await gate.passing()
            if gate.draw.random() < 0.1:
                raise ConnectionError
            return None if seen == none else seen

        async def read(cache: RedisCache) -> None:
            for _ in range(gate.draw.choice([1, 2])):
                # A value stored with a TTL of a minute is due for refresh to a reader with a TTL of ten seconds.
                ttl, refresh_after = gate.draw.choice([60, 600]), gate.draw.choice([None, 1])
                with suppress(ConnectionError):
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
            # Run all tasks that can continue, then open one gate.
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
    """Whether a background scan is in progress."""
    return cache.invalidations.background_scan.running


async def test_no_order_leaves_an_old_value(
    caches: list[RedisCache], server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in SEEDS:
        await play(seed, caches, server, monkeypatch)


async def test_the_hand_would_find_a_broken_fence(
    caches: list[RedisCache], server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a fill that ignores its token, some seed fails: the test above can detect it."""
    blind = Script("redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])\nredis.call('DEL', KEYS[2])\nreturn 1\n")
    monkeypatch.setattr(lease, "FILL", blind)
    monkeypatch.setattr(road, "LOAD_SCRIPTS", (*road.LOAD_SCRIPTS, ("SCRIPT", "LOAD", blind.text)))

    async def every_seed() -> None:
        for seed in range(4 * len(SEEDS)):
            await play(seed, caches, server, monkeypatch)

    with pytest.raises(AssertionError, match="the cache holds"):
        await every_seed()
