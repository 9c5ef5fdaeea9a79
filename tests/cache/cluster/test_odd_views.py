"""What a cluster shows for a moment, or should not: nodes without slots, nonsense, slots of an untrusted node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from cache.exceptions import CommandRejected
from cache.redis_url import read_address_map
from cache.slots import SLOTS
from cache.transport.cluster import discovery as asking
from cache.transport.cluster.cluster import ClusterClient
from cache.transport.cluster.discovery import Discovery
from cache.transport.cluster.redirections import Redirections
from cache.transport.cluster.topology import ranges
from tests.cache.cluster.conftest import Connect
from tests.cache.cluster.spread import elsewhere, key_on, profiles
from tests.inside import engine_of
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.replicated_cluster import ReplicatedCluster, slot, wait_for
from tests.wait import until

pytestmark = pytest.mark.integration


@contextmanager
def without_slots(node: RedisServer, other: RedisServer) -> Iterator[None]:
    """All slots of an empty node are the other's meanwhile."""
    mine = range(SLOTS // 2, SLOTS)
    names = [each.cli("CLUSTER", "MYID") for each in (other, node)]
    for each in (node, other):
        each.cli("FLUSHALL")
        each.cli("CONFIG", "SET", "cluster-allow-replica-migration", "no")
    try:
        for name in names:
            if name == names[1]:
                yield
                node.cli("FLUSHALL")
                other.cli("FLUSHALL")
            wait_for(lambda name=name: _give(name, mine, (other, node)), "not known to both")
    finally:
        for each in (node, other):
            each.cli("CONFIG", "SET", "cluster-allow-replica-migration", "yes")


def _give(name: str, slots: range, nodes: tuple[RedisServer, ...]) -> bool:
    """Make the slots those of the node with this id, unless all know.

    What the other node has sent before it lost them would undo it, so that one comes first.
    """
    if all(_owner(each) == name for each in nodes):
        return True
    for each in sorted(nodes, key=lambda node: bool(node.cli("CLUSTER", "MYID") == name)):
        each.many([("CLUSTER", "SETSLOT", number, "NODE", name) for number in slots])
        time.sleep(0.05)
    return False


def _owner(node: RedisServer) -> str:
    """The id of the node that has the last slot."""
    return next(str(entry[2][2]) for entry in node.cli("CLUSTER", "SLOTS") if entry[1] == SLOTS - 1)


async def test_the_first_slot_of_a_new_node(clusters: dict[str, list[RedisServer]], connect: Connect) -> None:
    """A cluster becomes larger: keys lie already on the node that has no slot yet."""
    old, new = clusters["cluster of two"]
    key = "user:1:profile"
    with without_slots(new, old):
        cache = await connect(old.url)
        assert await cache.set(key, "moved", ttl=60)
        new.cli("CLUSTER", "SETSLOT", slot(key), "IMPORTING", old.cli("CLUSTER", "MYID"))
        old.cli("CLUSTER", "SETSLOT", slot(key), "MIGRATING", new.cli("CLUSTER", "MYID"))
        old.cli("MIGRATE", "127.0.0.1", new.port, key, 0, 2000)
        try:
            client = engine_of(cache).transport.client
            assert client is not None
            for _ in range(20):
                assert (await asyncio.gather(cache.get(key), client.refresh()))[0] == "moved"
            assert not [name for name in new.cli("KEYS", "*") if name.startswith("system:")], "no mark without a slot"
            assert await cache.delete(key) == 1
        finally:
            for node in (new, old):
                node.cli("CLUSTER", "SETSLOT", slot(key), "STABLE")

        await until(lambda: set(engine_of(cache).servers.epochs) == set(client.nodes()))
        assert not cache.invalidations.undelivered, "nothing is kept of a node that is not used"
        await cache.close()


async def test_what_is_read_from_the_node_of_another_slot_is_not_near(
    cluster: ReplicatedCluster, connect: Connect
) -> None:
    """Its changes are reported by a node that has the slot of no such key, as far as is known."""
    cache = await connect(cluster.url, near=frozenset({"profile"}))
    key = key_on(cluster, cluster.nodes[0])
    target = elsewhere(cluster, key)
    assert await cache.set_many({key: "old", key_on(cluster, target): "there"}, ttl=60) == 2
    with cluster.half_moved(slot(key), target) as source:
        source.cli("MIGRATE", "127.0.0.1", target.port, key, 0, 2000)
        assert [await cache.get(key) for _ in range(2)] == ["old"] * 2
        target.cli("CLIENT", "KILL", "TYPE", "normal")
        node = next(node for node in engine_of(cache).servers.epochs if node.name.endswith(str(target.port)))
        await until(lambda: not node.up)
        with target.connect() as link:
            link.sendall(b"ASKING\r\nSET %s new EX 60\r\n" % key.encode())
            assert b"+OK\r\n+OK\r\n" in link.recv(100)
        await until(lambda: node.up)
        assert await cache.get(key) == "new"


async def test_slots_of_a_node_that_is_not_trusted_are_not_trusted_elsewhere(
    cluster: ReplicatedCluster, connect: Connect
) -> None:
    async def away() -> bool:
        raise ConnectionError

    lost = cluster.nodes[1]
    key = key_on(cluster, lost)
    target = elsewhere(cluster, key)
    cache = await connect(cluster.url)
    cache.recall_with(away)
    names = {key_on(cluster, lost, 500): "there", key_on(cluster, target): "there"}

    async def stored() -> bool:
        return await cache.set_many(names, ttl=600) == 2 and len(await cache.get_many([*names])) == 2

    await until(stored)
    await until(lambda: len(target.cli("KEYS", "system:server*")) == 1)
    lost.cli("SET", key, '"old"')
    assert await cache.get(key) == "old"
    replica = cluster.cut_off(lost)
    assert lost.cli("DEL", key) == 1  # by another process: its own this one delivers again
    lost.kill()
    cluster.promote(replica)
    await until(lambda: bool(engine_of(cache).pending.quarantines))
    assert key in replica.cli("KEYS", "*")
    cluster.move_slot(slot(key), target)
    try:
        late = asyncio.get_running_loop().time() + 1.0
        while asyncio.get_running_loop().time() < late:
            assert await cache.get(key) is None
            await asyncio.sleep(0.02)
    finally:  # or the node that is lost might come back as a replica of the target
        cluster.move_slot(slot(key), replica)


async def test_a_closed_cluster_asks_for_nothing(cluster: ReplicatedCluster, connect: Connect) -> None:
    """A node may be lost while the cluster's client closes."""
    cache = await connect(cluster.url)
    await cache.set_many(dict.fromkeys(profiles(20), 1), ttl=60)
    client = engine_of(cache).transport.client
    assert isinstance(client, ClusterClient)
    node = client.nodes()[0]
    closing = asyncio.create_task(cache.close())
    await until(lambda: engine_of(cache).transport.client is None)
    client.on_disconnected(node, "connection lost")
    await closing
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("cache-")] == []


async def test_most_of_those_asked_are_believed_in_whatever_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes need not agree on the order of what they say, on replicas, or on how an address is written."""
    monkeypatch.setattr(asking, "CONFIRM_EVERY", 0.0)
    a, b = [0, 99, [b"10.0.0.1", 1, b"a"]], [100, SLOTS - 1, [b"10.0.0.2", 2, b"b"]]
    first = [a, b]
    second = [[*b, [b"10.0.0.9", 9, b"c"]], [0, 99, [b"a.example", 1, b"a"]]]
    odd = [[0, 98, [b"10.0.0.1", 1, b"a"]], [99, SLOTS - 1, [b"10.0.0.2", 2, b"b"]]]
    views = [list(ranges(reply, ("10.0.0.1", 1), {})) for reply in (odd, first, second)]
    nodes, table, listener = Mock(closed=False), Mock(agreed=True), Mock()
    nodes.answering.return_value, nodes.views, nodes.beside.return_value = SLOTS, AsyncMock(return_value=views), False
    table.take_moves.return_value = set(), set()
    discovery = Discovery(nodes, table, listener, complete=lambda: True, hidden=Mock())
    assert await discovery.ask()
    assert nodes.keep.call_args.args[1] == views[1]
    for said, used in ((views[2:], 1), (views[:1], 2)):
        nodes.views.reset_mock()
        nodes.views.return_value = said
        discovery.confirm_soon()
        await until(lambda: nodes.views.call_count)
        await asyncio.sleep(0)
        assert nodes.keep.call_count == used
    await discovery.close()


def test_what_is_malformed_is_left_out() -> None:
    node, asked = [b"10.0.0.1", 7000, b"an id"], ("10.0.0.9", 7009)
    good = [0, 99, node]
    for bad in (
        [0, SLOTS, node],
        [-1, 5, node],
        [9, 5, node],
        [b"x", 5, node],
        [0, 5],
        [0, 5, [b"10.0.0.1", 0, b""]],
        [0, 5, [b"10.0.0.1", 99_999, b""]],
        None,
        b"",
    ):
        assert [(each.first, each.last) for each in ranges([bad, good], asked, {})] == [(0, 99)], bad


@pytest.mark.parametrize(
    ("host", "facts", "reached"),
    [
        (b"Node-1.Example", [], "10.0.0.7"),
        (b"2001:DB8:0::1", [], "10.0.0.6"),
        (b"2001:db8::1", [], "10.0.0.6"),
        (b"10.0.0.1", [], "10.0.0.1"),
        (None, [], "10.0.0.9"),
        (b"", {}, "10.0.0.9"),
        (b"?", [b"ip", b"2001:db8::1"], "10.0.0.6"),
        (b"?", {b"ip": b"10.0.0.1"}, "10.0.0.1"),
    ],
)
def test_where_a_node_is_reached_by_what_it_announces(
    host: bytes | None, facts: list[bytes] | dict[bytes, bytes], reached: str
) -> None:
    """A map finds hosts in any spelling. "?" is a name that the node that was asked has not heard of yet."""
    there = read_address_map("node-1.EXAMPLE:7000=10.0.0.7:7000,[2001:db8:0:0::1]=10.0.0.6")
    (found,) = ranges([[0, 5, [host, 7000, b"an id", facts]]], ("10.0.0.9", 7009), there)
    assert found.primary == (reached, 7000)


def test_a_node_of_which_neither_name_nor_address_is_known_is_left_out() -> None:
    assert list(ranges([[0, 5, [b"?", 7000, b"an id", []]]], ("10.0.0.9", 7009), {})) == []


@pytest.mark.parametrize("words", ["MOVED", "MOVED x", "MOVED 1 here", "MOVED 99999 h:1", "ASK 1 h:0", "ASK 1 h:70000"])
async def test_a_redirection_to_nowhere_is_a_rejection(words: str) -> None:
    nothing: Any = None
    redirections = Redirections(
        {}, 1.0, node_at=nothing, node_of=nothing, moved=nothing, refused=nothing, untracked=lambda _: None
    )
    loop = asyncio.get_running_loop()
    sent = loop.create_future(), loop.time(), b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
    assert not redirections.redirect(("h", 1), sent, CommandRejected(words))
