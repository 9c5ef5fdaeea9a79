"""A node of a cluster is lost: only its slots miss, it is used again after the failover, and nothing old is served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cache import LockUnavailable, RedisCache, keys
from cache.slots import SLOTS
from cache.transport import connection
from cache.transport.roles import CLUSTER_DOWN
from tests.cache.cluster.conftest import Connect
from tests.cache.cluster.spread import Reading, by_node, key_on, keys_on, profiles
from tests.lag import LoopLag
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.replicated_cluster import ReplicatedCluster, slot
from tests.real.redis.resp import RedisReplyError
from tests.wait import until

pytestmark = pytest.mark.integration
Lose = Callable[[RedisServer], None]
DEADLINE = 0.05
SLACK = 0.02
WAYS = pytest.mark.parametrize("lose", [RedisServer.kill, RedisServer.pause], ids=["killed", "stopped"])


async def _loaded() -> str:
    return "loaded"


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the cache has warned of."""
    return [record.getMessage() for record in caplog.records if record.name == "cache" and record.levelname != "INFO"]


async def test_the_node_of_the_url_is_used_again_and_the_others_meanwhile(
    cluster: ReplicatedCluster, connect: Connect
) -> None:
    cache = await connect(cluster.url)
    names = profiles(60)
    assert await cache.set_many(dict.fromkeys(names, "a profile"), ttl=600) == 60
    lost, *rest = by_node(cluster, names)
    others = {key: "a profile" for node in rest for key in node}
    first, replica = cluster.nodes[0], cluster.replica_of(cluster.nodes[0])
    cluster.keep_from_failing_over(replica)
    first.kill()
    reading = Reading(cache, others)
    await reading.lasts(0.3)
    assert (reading.misses, reading.wrong) == ({}, [])
    assert cache.connected
    assert await cache.set_many(dict.fromkeys(names, "changed"), ttl=600) == len(others)
    assert await cache.delete(*lost, *list(others)[:5]) == 5
    cluster.promote(replica)
    await until(lambda: cache.set(lost[0], "too early, perhaps", ttl=600))
    await until(lambda: not cache.invalidations.undelivered)
    assert await cache.set(lost[0], "a new profile", ttl=600)
    found = await cache.get_many(names)
    assert found == {lost[0]: "a new profile"} | dict.fromkeys(list(others)[5:], "changed")
    assert replica.cli("EXISTS", lost[1]) == 0, "what was deleted while the node was away is deleted there later"


async def test_nodes_that_were_learned_take_the_place_of_the_urls(cluster: ReplicatedCluster, connect: Connect) -> None:
    """The URL's node stays away, and the next one is lost only after that."""
    cache = await connect(cluster.url)
    for lost in cluster.nodes[:2]:
        replica = cluster.replica_of(lost)
        key = key_on(cluster, lost)
        lost.kill()
        cluster.promote(replica)
        await until(lambda key=key: cache.set(key, "found", ttl=60))
        await until(lambda: not cache.invalidations.undelivered)
        assert await cache.set(key, "found", ttl=60)
        assert replica.cli("GET", key) == "found"
    assert await cache.set_many(dict.fromkeys(profiles(60), 1), ttl=60) == 60


@pytest.mark.timed
@WAYS
async def test_another_primary_is_lost_and_only_its_slots_miss(
    cluster: ReplicatedCluster, connect: Connect, caplog: pytest.LogCaptureFixture, lose: Lose
) -> None:
    """With the default deadline, which no call may exceed."""
    cache = await connect(cluster.url, deadline=DEADLINE)
    names = profiles(60)
    await until(lambda: _all_stored(cache, names))
    lost, replica = cluster.nodes[1], cluster.replica_of(cluster.nodes[1])
    cluster.keep_from_failing_over(replica)
    on_lost = set(keys_on(cluster, lost, names))
    await until(lambda: _all_read(cache, names))
    reading = Reading(cache, dict.fromkeys(names, "a profile"))
    caplog.clear()
    async with LoopLag() as lag:
        lose(lost)
        await reading.lasts(1.0)
        key = sorted(on_lost)[0]
        began = asyncio.get_running_loop().time()
        assert await cache.get_or_load(key, _loaded, ttl=60) == "loaded"
        assert await cache.set(key, "a profile") is False
        with pytest.raises(LockUnavailable):
            async with cache.lock("greeting", _id_on(cluster, lost, replica)):
                pass
        three = asyncio.get_running_loop().time() - began
    slack = SLACK + lag.seconds
    assert reading.slowest < DEADLINE + slack
    assert three < 3 * DEADLINE + slack
    assert (set(reading.misses) <= on_lost, reading.wrong) == (True, [])
    assert set(reading.hits) >= set(names) - on_lost
    assert cache.connected
    assert len(lines(caplog)) == 1, lines(caplog)
    assert f"127.0.0.1:{lost.port}" in lines(caplog)[0]
    cluster.promote(replica)
    await until(lambda: cache.set(key, "again", ttl=60))
    assert len(lines(caplog)) == 1, "the way back is no warning"


async def test_a_cluster_that_is_down_is_away_as_a_whole(
    clusters: dict[str, list[RedisServer]], connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """With full coverage required, the loss of one node makes all others refuse every key."""
    one, other = clusters["cluster of two"]
    one.cli("FLUSHALL")
    other.cli("FLUSHALL")
    cache = await connect(one.url, near=frozenset({"profile"}), deadline=0.3)
    names = profiles(20)
    await until(lambda: _all_stored(cache, names))
    here = next(key for key in names if slot(key) < SLOTS // 2)
    await until(lambda: cache.get(here))
    caplog.clear()
    other.pause()
    try:
        reading = Reading(cache, dict.fromkeys(names, "a profile"))
        while not lines(caplog):
            await reading.once()
        assert "for the keys of that node" in lines(caplog)[0]
        await until(cache.health_check)
        one.cli("CLUSTER", "DELSLOTS", 5)  # at once what the other nodes conclude from the silence later
        await until(lambda: _is_down(one, here))
        assert await cache.health_check() is False
        assert (await cache.get(here), cache.connected) == (None, False), "neither near"
        assert await cache.health_check() is False
        await until(lambda: len(lines(caplog)) == 2)
        assert CLUSTER_DOWN in lines(caplog)[1]
        assert "for the keys of that node" not in lines(caplog)[1]
    finally:
        one.cli("CLUSTER", "ADDSLOTS", 5)
        other.resume()
    await until(lambda: _all_stored(cache, names), 20)
    await until(cache.health_check)
    assert len(lines(caplog)) == 2


async def test_a_slot_without_a_node_is_one_line_in_the_log(
    cluster: ReplicatedCluster, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    cache = await connect(cluster.url)
    names = profiles(20)
    await until(lambda: _all_stored(cache, names))
    owner = cluster.owner(names[0])
    for node in cluster.nodes:
        node.cli("CLUSTER", "DELSLOTS", slot(names[0]))
    try:
        before = cluster.calls("cluster|slots")
        for _ in range(50):
            assert await cache.get_many(names) == dict.fromkeys(names[1:], "a profile")
        assert (len(lines(caplog)), "CLUSTERDOWN" in caplog.text) == (1, True)
        assert cluster.calls("cluster|slots") - before < 20, "not asked for at each refusal"
        assert await cache.health_check()
    finally:
        owner.cli("CLUSTER", "ADDSLOTS", slot(names[0]))
    await until(lambda: _all_stored(cache, names))


async def test_what_is_near_of_a_primary_that_its_cluster_has_lost_is_dropped(
    isolating_cluster: ReplicatedCluster, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reaches us, and no other node, and answers every PING, while its replica has taken over."""
    cluster = isolating_cluster
    monkeypatch.setattr(connection, "ROLE_SECONDS", 0.1)
    lost = cluster.nodes[1]
    key = key_on(cluster, lost)
    cache = await connect(cluster.url, near=frozenset({"profile"}))
    await until(lambda: _all_stored(cache, [key]))
    replica = cluster.replica_of(lost)
    assert await cache.get(key) == "a profile"
    lost.cli("CONFIG", "SET", "cluster-node-timeout", 200)
    cluster.isolate(lost)
    try:
        replica.cli("CLUSTER", "FAILOVER", "TAKEOVER")
        await until(lambda: replica.cli("DEL", key))

        async def noticed() -> bool:
            return await cache.get(key) is None

        await until(noticed, 8)
    finally:
        cluster.rejoin(lost)
        await until(lambda: not cluster.own_slots(lost))
        await until(lambda: "cluster_state:ok" in lost.cli("CLUSTER", "INFO"))
        lost.cli("CONFIG", "SET", "cluster-node-timeout", 2000)  # earlier it would take it half a minute to come back


async def _is_down(node: RedisServer, key: str) -> bool:
    try:
        node.cli("GET", key)
    except RedisReplyError as error:
        return str(error) == "CLUSTERDOWN The cluster is down"
    return False


async def _all_stored(cache: RedisCache, names: list[str]) -> bool:
    return await cache.set_many(dict.fromkeys(names, "a profile"), ttl=600) == len(names)


def _id_on(cluster: ReplicatedCluster, lost: RedisServer, replica: RedisServer) -> str:
    """The id of a lock on the lost node, by what its replica knows."""
    slots = cluster.slots_of(lost, replica)
    return next(str(number) for number in range(1000) if slot(keys.lock("greeting", str(number))) in slots)


@pytest.mark.parametrize("near", [frozenset[str](), frozenset({"profile"})], ids=["", "near cache"])
async def test_a_failover_that_lost_a_delete_serves_nothing_old(
    cluster: ReplicatedCluster, connect: Connect, near: frozenset[str]
) -> None:
    lost = cluster.nodes[1]
    names = keys_on(cluster, lost, profiles(60))
    one, other = [await connect(cluster.url, near=near) for _ in range(2)]
    await until(lambda: _all_stored(one, names))
    await until(lambda: _all_read(other, names))
    replica = cluster.cut_off(lost)
    gone, kept = names[:3], names[3:]
    assert await one.delete(*gone) == 3
    assert set(replica.cli("KEYS", "*")) >= set(gone), "the replica has missed it"
    lost.kill()
    cluster.promote(replica)
    late = await connect(cluster.url, near=near)
    allowed = dict.fromkeys(names, "a profile") | dict.fromkeys(gone) | {gone[0]: "loaded"}
    readings = [Reading(cache, allowed) for cache in (one, other, late)]
    over = asyncio.gather(*(reading.lasts(0.5) for reading in readings))
    for cache in (one, other, late):
        assert await cache.get_or_load(gone[0], _loaded, ttl=60) == "loaded"
    for cache in (one, other, late):
        await until(lambda cache=cache: cache.set(kept[0], "a profile", ttl=60))
    await over
    assert [reading.wrong for reading in readings] == [[], [], []]
    await until(lambda: cluster.cli("EXISTS", *gone[1:]) == 0)


async def _all_read(cache: RedisCache, names: list[str]) -> bool:
    return len([await cache.get(key) for key in names if await cache.get(key) == "a profile"]) == len(names)


async def test_a_restart_with_an_older_dump_is_noticed(cluster: ReplicatedCluster, connect: Connect) -> None:
    """The node is back, as the same primary, before the others count it as lost."""
    node = cluster.nodes[2]
    key, other = key_on(cluster, node), key_on(cluster, cluster.nodes[0])
    one = await connect(cluster.url, near=frozenset({"profile"}))
    await until(lambda: _all_stored(one, [key, other]))
    old = node.dump()
    try:
        assert await one.delete(key) == 1
        node.restore(old)
        assert key in node.cli("KEYS", "*")
        late = await connect(cluster.url)
        readings = [Reading(cache, {key: None}) for cache in (one, late)]
        probe = key_on(cluster, node, 500)

        async def both_use_it() -> bool:
            for reading in readings:
                await reading.once()
            return all([await cache.set(probe, 1, ttl=60) for cache in (one, late)])

        await until(both_use_it)
        await until(lambda: node.cli("EXISTS", key) == 0)
        assert [reading.wrong for reading in readings] == [[], []]
        assert await one.get(other) == "a profile", "the values of other nodes are as good as before"
    finally:
        (node.directory / "dump.rdb").unlink()
