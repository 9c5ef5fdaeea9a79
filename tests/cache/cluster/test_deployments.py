"""Every documented operation has the same outcome on a cluster and behind Sentinels as on one server.

Also as the user of docs/security.md, who has the smallest rights. Other modules do so operation by operation, with the
marker ``every_deployment``.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.cache.cluster.test_discovery import MORE
from tests.cache.surface import Surface
from tests.cache.test_acl import RULE
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.replicated_cluster import ReplicatedCluster
from tests.real.redis.sentinels import Watched

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("smallest", [False, True], ids=["all rights", "the smallest rule"])
async def test_the_whole_surface(
    redis_server: RedisServer,
    shared_trio: Watched,
    cluster: ReplicatedCluster,
    monkeypatch: pytest.MonkeyPatch,
    smallest: bool,
) -> None:
    redis_server.cli("FLUSHALL")
    shared_trio.cli("FLUSHALL")
    expected: dict[str, Any] = await Surface(redis_server, redis_server.url).walk(monkeypatch)
    assert expected["connect"] is True
    for server, url, nodes, more in (
        (shared_trio, shared_trio.url, [shared_trio.primary()], []),
        (cluster, cluster.url, cluster.nodes, MORE),
    ):
        if smallest:
            for node in nodes:
                node.cli("ACL", "SETUSER", "companion", *(part.replace("PASSWORD", "pw") for part in (*RULE, *more)))
                node.cli("ACL", "LOG", "RESET")
            scheme, _, rest = url.partition("://")
            url = f"{scheme}://companion:pw@{rest.rpartition('@')[2]}"
        outcomes = await Surface(server, url).walk(monkeypatch)
        assert {name: each for name, each in outcomes.items() if each != expected[name]} == {}
        assert outcomes.keys() == expected.keys()
        if smallest:
            assert [entry for node in nodes for entry in node.cli("ACL", "LOG", "128")] == []
            for node in nodes:
                node.cli("ACL", "DELUSER", "companion")
