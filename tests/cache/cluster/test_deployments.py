"""Every documented operation has the same outcome on a cluster and behind Sentinels as on one server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cache.surface import Surface
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.replicated_cluster import ReplicatedCluster
from tests.real.redis.sentinels import Watched, watched

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A primary, a replica and three Sentinels."""
    with watched(tmp_path_factory.mktemp("watched")) as servers:
        yield servers


async def test_the_whole_surface(
    redis_server: RedisServer, trio: Watched, cluster: ReplicatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.cli("FLUSHALL")
    expected: dict[str, Any] = await Surface(redis_server, redis_server.url).walk(monkeypatch)
    assert expected["connect"] is True
    for server, url in ((trio.primary(), trio.url), (cluster, cluster.url)):
        outcomes = await Surface(server, url).walk(monkeypatch)
        assert {name: each for name, each in outcomes.items() if each != expected[name]} == {}
        assert outcomes.keys() == expected.keys()
