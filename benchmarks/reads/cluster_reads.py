"""Warm reads on a cluster of three primaries: this layer against redis-py's RedisCluster, and against one server."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from redis.asyncio.cluster import RedisCluster

from benchmarks.bench import Bench
from benchmarks.comparison import compare
from benchmarks.reads.warm_reads import PROFILE
from cache import CacheSettings, RedisCache, keys
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.replicated_cluster import replicated_cluster
from tests.wait import initialised

ROUNDS: Final = 5
TARGET: Final = 5
NAMES: Final = [keys.profile(str(number)) for number in range(600)]
_CALLERS: Final = (1, 50, 500)
_PLAIN, _OURS, _ONE, _GLIDE = (
    "redis-py RedisCluster",
    "this layer, cluster",
    "this layer, one server",
    "valkey-glide cluster",
)
Get = Callable[[str], Awaitable[Any]]


@asynccontextmanager
async def _ours(url: str) -> AsyncIterator[Get]:
    cache = RedisCache(settings=CacheSettings(url=url, url_is_default=False, deadline=5.0, connect_wait=5.0))
    await initialised(cache)
    if await cache.set_many(dict.fromkeys(NAMES, PROFILE), ttl=3600) != len(NAMES):
        raise ConnectionError("not all values could be stored")
    yield cache.get
    await cache.close()


@asynccontextmanager
async def _plain(port: int) -> AsyncIterator[Get]:
    async with RedisCluster(host="127.0.0.1", port=port, max_connections=600, decode_responses=True) as client:
        yield client.get


@asynccontextmanager
async def _glide(port: int) -> AsyncIterator[Get]:
    from glide import GlideClusterClient, GlideClusterClientConfiguration, NodeAddress

    settings = GlideClusterClientConfiguration([NodeAddress("127.0.0.1", port)], request_timeout=5000)
    client = await GlideClusterClient.create(settings)

    async def get(key: str) -> Any:
        value = await client.get(key)
        return value.decode() if value is not None else None

    yield get
    await client.close()


async def run(bench: Bench) -> None:
    """Print the tables and record the targets."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, replicated_cluster(Path(folder)) as cluster:
        await _compare(bench, cluster.nodes[0], bench.server())


async def _compare(bench: Bench, node: RedisServer, single: RedisServer) -> None:
    # What this layer stores, a text, is what the others read.
    openers: dict[str, AbstractAsyncContextManager[Get]] = {_OURS: _ours(node.url), _ONE: _ours(single.url)}
    openers |= {_PLAIN: _plain(node.port), _GLIDE: _glide(node.port)}
    async with AsyncExitStack() as stack:
        clients: dict[str, Get] = {}
        for name, opener in openers.items():
            try:
                clients[name] = await stack.enter_async_context(opener)
            except ImportError as problem:
                bench.note(f"{name}: not installed ({problem.name})")
        for tasks in _CALLERS:
            await _table(bench, clients, tasks)


async def _table(bench: Bench, clients: dict[str, Get], tasks: int) -> None:
    callers = "one caller" if tasks == 1 else f"{tasks} callers"
    bench.title(
        f"Warm read of a profile on a cluster, {callers}",
        f"600 keys on three primaries, {ROUNDS} rounds; microseconds per read, median [least greatest].",
    )
    readers = {name: _reader(get) for name, get in clients.items()}
    found = await compare(readers, PROFILE, tasks=tasks, rounds=ROUNDS, seconds=bench.pick(0.5, 0.2))
    rows = []
    for name in readers:
        row = [name, str(found.spread(name, "wall").times(1e6)), str(found.spread(name, "cpu").times(1e6))]
        row += [str(found.ratio(_PLAIN, name, "wall")), str(found.ratio(_ONE, name, "wall")), found.failures(name)]
        rows.append(row)
    bench.table(("client", "wall", "CPU", "throughput / RedisCluster", "throughput / our one server", "errors"), rows)
    if tasks > 1:
        ratio = found.ratio(_PLAIN, _OURS, "wall")
        met = ratio.median >= TARGET and found.all_correct(_OURS)
        bench.target(
            f"throughput on a cluster against RedisCluster, {tasks} callers", f">= {TARGET}x", f"{ratio}x", met
        )


def _reader(get: Get) -> Callable[[], Awaitable[Any]]:
    """Reads one key after the other, so that every call is about another node."""
    names = itertools.cycle(NAMES)
    return lambda: get(next(names))
