"""Nodes that hang before they were ever connected, and nodes that the others have given up and that do not know."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import Mock

import pytest

from cache import RedisCache
from cache.slots import SLOTS
from cache.transport import connection, connector
from cache.transport.cluster import discovery
from cache.transport.cluster.slot_table import SlotTable
from cache.transport.cluster.topology import Range
from cache.transport.dial import dial
from cache.transport.handshake import CLIENT_NAME
from tests.cache.cluster.conftest import Connect
from tests.cache.cluster.spread import key_on, keys_on, profiles
from tests.inside import engine_of
from tests.lag import within
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.replicated_cluster import ReplicatedCluster
from tests.wait import initialised, until

DEADLINE = 0.05
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
    async with within(2 * DEADLINE):  # half of it is our own work
        await cache.delete(*profiles(750))
    cluster.promote(replica)
    async with within(RECOVERY):
        await until(lambda: cache.set(key, 1, ttl=60))


@pytest.mark.timed
async def test_a_start_that_is_slow_connects_to_no_node_that_is_not_needed(
    cluster: ReplicatedCluster, make_cache: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connecting may take longer than a call: over TLS, from far away, or where our own loop is busy."""

    async def dial_slowly(*args: Any) -> Any:
        await asyncio.sleep(0.15)
        return await dial(*args)

    monkeypatch.setattr(connector, "dial", dial_slowly)

    def connections() -> list[int]:
        return [node.cli("CLIENT", "LIST").count(CLIENT_NAME) for node in cluster.nodes]

    await until(lambda: not any(connections()))
    cache = make_cache(cluster.url, deadline=0.12)
    await initialised(cache)
    await asyncio.sleep(0.2)  # in which others would connect
    assert connections() == [1, 0, 0, 0, 0, 0]


@asynccontextmanager
async def cut_off_and_replaced(cluster: ReplicatedCluster, lost: RedisServer) -> AsyncIterator[RedisServer]:
    """The node reaches us, and no other node, and believes for half a minute that it is a primary. Yields the other."""
    replica = cluster.replica_of(lost)
    lost.cli("CONFIG", "SET", "cluster-node-timeout", 30_000)
    # Closed links are made anew; one on which an answer was dropped waits for it for ever, and the node seems to fail.
    cluster.isolate(lost)
    try:
        replica.cli("CLUSTER", "FAILOVER", "TAKEOVER")
        await until(lambda: cluster.own_slots(replica))
        yield replica
    finally:
        cluster.rejoin(lost)
        lost.cli("CONFIG", "SET", "cluster-node-timeout", 2000)
        await until(lambda: not cluster.own_slots(lost), 20)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roles and slots are asked for ten times a second."""
    monkeypatch.setattr(connection, "ROLE_SECONDS", 0.1)
    monkeypatch.setattr(discovery, "CONFIRM_EVERY", 0.1)


@pytest.mark.usefixtures("often")
async def test_a_primary_that_its_cluster_has_given_up_is_left(
    isolating_cluster: ReplicatedCluster, connect: Connect
) -> None:
    cluster = isolating_cluster
    lost = cluster.nodes[1]
    names = [key_on(cluster, node) for node in cluster.nodes[:3]]
    readers = [await connect(cluster.url, near=near) for near in (frozenset[str](), frozenset({"profile"}))]
    await until(lambda: readers[0].set_many(dict.fromkeys(names, "old"), ttl=600))
    for cache in readers:
        await until(lambda cache=cache: _has(cache, *names))
    async with cut_off_and_replaced(cluster, lost) as replica:
        await until(lambda: replica.cli("DEL", names[1]))
        for cache in readers:
            await until(lambda cache=cache: _has_not(cache, names[1]), 5)
        assert lost.cli("EXISTS", names[1]), "or this has tested nothing"


@pytest.mark.usefixtures("maintained_often")
async def test_what_it_acknowledged_last_is_delivered_to_the_other(
    isolating_cluster: ReplicatedCluster, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has recovered that one before, and has left its mark: it looks right."""
    cluster = isolating_cluster

    async def revalidated() -> bool:
        return True

    lost = cluster.nodes[1]
    names = keys_on(cluster, lost, profiles(40))[:4]
    monkeypatch.setattr(discovery, "CONFIRM_EVERY", math.inf)
    late = await connect(cluster.url)
    monkeypatch.setattr(discovery, "CONFIRM_EVERY", 0.1)
    monkeypatch.setattr(connection, "ROLE_SECONDS", 0.1)
    early = await connect(cluster.url)
    probes = [key_on(cluster, node, 500) for node in cluster.nodes[:3]]
    for cache in (late, early):
        cache.recall_with(revalidated)
        await until(lambda cache=cache: cache.set_many(dict.fromkeys(probes, 1), ttl=60))
    await until(lambda: len(cluster.names() & {cluster.mark_of(node) for node in cluster.nodes[:3]}) == 3)
    for key in names:
        cluster.cli("SET", key, '"a profile"')  # what they store themselves they would deliver again, too
    replica = cluster.replica_of(lost)
    await until(lambda: _there(replica, names) == 4)
    async with cut_off_and_replaced(cluster, lost):
        await until(lambda: _recovered(early, names, replica, cluster.mark_of(replica)))
        assert await late.delete(*names[:2]) == 2
        assert (_there(lost, names), _there(replica, names)) == (2, 4), "or this has tested nothing"
        await engine_of(late).transport.nodes()  # asks for the slots
        await until(lambda: _there(replica, names) == 2)
        assert await early.get_many(names) == dict.fromkeys(names[2:], "a profile")


def _there(node: RedisServer, names: list[str]) -> int:
    """How many of the keys the node has, whether they are its own or not."""
    return len({*node.cli("KEYS", "*")} & {*names})


async def _recovered(cache: RedisCache, names: list[str], node: RedisServer, mark: str) -> bool:
    return await _has(cache, *names) and _there(node, [mark]) == 1


@pytest.mark.usefixtures("often")
async def test_a_planned_failover_is_no_outage(
    cluster: ReplicatedCluster, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """The old primary says that it is a replica before it says MOVED. The log knows of no URL that is wrong."""
    cache, lost = await connect(cluster.url), cluster.nodes[1]
    key = key_on(cluster, lost)
    await until(lambda: cache.set(key, 1, ttl=60))
    await asyncio.sleep(connection.ROLE_SECONDS)
    cluster.promote(cluster.replica_of(lost))
    await until(lambda: lost.cli("ROLE")[0] == "slave")
    await cache.get(key)
    assert (await cache.get_stats())["connection_errors"] == 1, "or this has tested nothing: MOVED is followed"
    await until(lambda: cache.set(key, 2, ttl=60))
    assert caplog.text == ""


def test_a_slot_that_moved_before_the_others_of_its_node_counts_when_they_do() -> None:
    """MOVED says so of one slot, and CLUSTER SLOTS of the rest: all of them have failed over."""
    old, new = Mock(away=False), Mock(away=False)
    table = SlotTable(old)

    def view(node: Any) -> list[Any]:
        return [(Range(0, SLOTS - 1, ("h", 1), "an id", ()), node)]

    table.use(view(old))
    table.move(7, new)
    table.move(7, new)
    table.use(view(old))
    assert table.take_moves() == ({7}, {(old, new)})
    table.use(view(new))
    assert table.take_moves() == ({*range(SLOTS)}, {(old, new)})


async def _has(cache: RedisCache, *names: str) -> bool:
    return all([await cache.get(key) for key in names])


async def _has_not(cache: RedisCache, key: str) -> bool:
    return await cache.get(key) is None
