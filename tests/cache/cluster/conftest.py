"""Fixtures: caches that are connected to a cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from cache import RedisCache
from tests.real.redis.redis_server import installed_servers, server_name
from tests.real.redis.replicated_cluster import ReplicatedCluster, replicated_cluster
from tests.wait import initialised

Connect = Callable[..., Awaitable[RedisCache]]


@pytest.fixture
def connect(make_cache: Callable[..., RedisCache]) -> Connect:
    """Makes connected caches, with a generous deadline."""

    async def connect(url: str, **settings: Any) -> RedisCache:
        cache = make_cache(url, **({"deadline": 2.0, "connect_wait": 5.0} | settings))
        await initialised(cache)
        return cache

    return connect


@pytest.fixture(scope="session")
def _shared_isolating_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ReplicatedCluster]:
    default, *others = installed_servers()
    valkey = next((other for other in others if server_name(other).startswith("Valkey")), None)
    if valkey is None or server_name(default).startswith("Valkey"):
        yield request.getfixturevalue("_shared_cluster")
    else:
        with replicated_cluster(tmp_path_factory.mktemp("isolating"), binary=valkey) as cluster:
            yield cluster


@pytest.fixture
def isolating_cluster(_shared_isolating_cluster: ReplicatedCluster) -> Iterator[ReplicatedCluster]:
    """As ``cluster``, on Valkey: a node of Redis cannot be kept from hearing the others (``isolate``)."""
    _shared_isolating_cluster.flush()
    yield _shared_isolating_cluster
    _shared_isolating_cluster.settle()
