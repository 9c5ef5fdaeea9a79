"""What answers at the URL may change its kind: one server, a node of a cluster, a server without RESP3."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from cache.coherence.pending_pattern import PendingInvalidations
from cache.core.engine import Engine
from cache.transport.cluster.cluster import ClusterClient
from cache.transport.fallback.pool import PooledClient
from cache.transport.multiplexer import MultiplexedClient
from tests.inside import engine_of, enqueue
from tests.real.proxy import Proxy
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.resp2_server import without_resp3
from tests.wait import initialised, until

pytestmark = pytest.mark.integration
KEY = "user:1:profile"


def _uses(engine: Engine, kind: type) -> bool:
    return isinstance(engine.transport.client, kind) and engine.transport.connected


async def test_a_server_becomes_a_cluster_loses_resp3_and_is_a_server_again(
    clusters: dict[str, list[RedisServer]], own_redis: RedisServer, make_cache: Any
) -> None:
    (node,) = clusters["cluster of one"]
    node.cli("FLUSHALL")
    async with without_resp3(own_redis.port) as old, Proxy(own_redis.port) as proxy:
        cache = make_cache(
            f"redis://127.0.0.1:{proxy.port}/0",
            deadline=2.0,
            connect_wait=5.0,
            cluster_address_map={f"127.0.0.1:{node.port}": f"127.0.0.1:{proxy.port}"},
        )
        await initialised(cache)
        engine = engine_of(cache)
        kinds = (node.port, ClusterClient), (own_redis.port, MultiplexedClient), (old, PooledClient)
        for port, kind in kinds:
            proxy.target_port = port
            proxy.reset_all()
            await until(partial(_uses, engine, kind), timeout=20)
            await until(lambda: cache.set(KEY, "Ada", ttl=60))
            assert await cache.get(KEY) == "Ada"
            await until(lambda: not cache.invalidations.undelivered)
            assert len(engine.servers.epochs) <= 1, "what was known of another server is forgotten"
        await cache.close()


async def test_a_cache_that_is_switched_off_as_it_finds_a_cluster_stays_off(
    clusters: dict[str, list[RedisServer]], make_cache: Any
) -> None:
    """It connected to the cluster all the same, and delivered nothing pending when it was switched on again."""
    (node,) = clusters["cluster of one"]
    cache = make_cache(node.url, deadline=2.0, connect_wait=5.0)
    transport = engine_of(cache).transport
    found: list[Any] = []
    on_wrong_kind = transport.on_wrong_kind
    transport.on_wrong_kind = lambda *kind: (cache.disable(), found.append(kind), on_wrong_kind(*kind))
    cache.enable()
    await until(lambda: found)
    assert transport.client is None
    del transport.on_wrong_kind
    cache.enable()
    enqueue(cache, PendingInvalidations((KEY,)))
    await until(lambda: not cache.invalidations.undelivered)
