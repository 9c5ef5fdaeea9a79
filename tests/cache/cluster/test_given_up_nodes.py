"""Nodes that hang before they were ever connected, and nodes that the others have given up and that do not know."""

from __future__ import annotations

import pytest

from cache import RedisCache
from cache.transport import connection
from cache.transport.cluster import discovery
from tests.cache.cluster.conftest import Connect
from tests.cache.cluster.spread import key_on, profiles
from tests.lag import within
from tests.real.redis.replicated_cluster import ReplicatedCluster
from tests.wait import until

DEADLINE = 0.05
SLACK = 0.02
RECOVERY = 3.0
"""Seconds from an election until the cache is used again."""
pytestmark = pytest.mark.integration


@pytest.mark.timed
async def test_a_node_that_hangs_before_it_was_ever_connected(cluster: ReplicatedCluster, connect: Connect) -> None:
    """It costs a call of several batches one deadline, and the node that takes its place is found."""
    lost = cluster.nodes[1]
    replica, key = cluster.replica_of(lost), key_on(cluster, lost)
    cluster.keep_from_failing_over(replica)
    cache = await connect(cluster.url, deadline=DEADLINE)
    others = [key_on(cluster, node) for node in (cluster.nodes[0], cluster.nodes[2])]
    await until(lambda: cache.set_many(dict.fromkeys(others, 1), ttl=60))
    lost.pause()
    async with within(DEADLINE + SLACK):
        await cache.delete(*profiles(600))
    cluster.promote(replica)
    async with within(RECOVERY):
        await until(lambda: cache.set(key, 1, ttl=60))


async def test_a_primary_that_its_cluster_has_given_up_is_left(
    cluster: ReplicatedCluster, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reaches us, and no other node, and believes for half a minute that it is one."""
    monkeypatch.setattr(connection, "ROLE_SECONDS", 0.1)
    monkeypatch.setattr(discovery, "CONFIRM_EVERY", 0.1)
    lost = cluster.nodes[1]
    replica, key = cluster.replica_of(lost), key_on(cluster, lost)
    names = {key: "old"} | {key_on(cluster, node): "old" for node in (cluster.nodes[0], cluster.nodes[2])}
    readers = [await connect(cluster.url, near=near) for near in (frozenset[str](), frozenset({"profile"}))]
    await until(lambda: readers[0].set_many(names, ttl=600))
    for cache in readers:
        await until(lambda cache=cache: cache.get_many([*names]))
        assert await cache.get(key) == "old"
    lost.cli("CONFIG", "SET", "cluster-node-timeout", 30_000)
    lost.cli("DEBUG", "CLOSE-CLUSTER-LINK-ON-PACKET-DROP", 1)
    lost.cli("DEBUG", "DROP-CLUSTER-PACKET-FILTER", -2)
    try:
        replica.cli("CLUSTER", "FAILOVER", "TAKEOVER")
        await until(lambda: replica.cli("DEL", key))
        for cache in readers:
            await until(lambda cache=cache: _is_gone(cache, key), 5)
        assert lost.cli("GET", key) == "old", "or this has tested nothing"
    finally:
        lost.cli("DEBUG", "DROP-CLUSTER-PACKET-FILTER", -1)
        lost.cli("DEBUG", "CLOSE-CLUSTER-LINK-ON-PACKET-DROP", 0)
        lost.cli("CONFIG", "SET", "cluster-node-timeout", 2000)
        await until(lambda: not cluster.own_slots(lost), 20)


async def _is_gone(cache: RedisCache, key: str) -> bool:
    return await cache.get(key) is None
