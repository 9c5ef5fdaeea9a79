"""Slots move between nodes while callers read and write: no error, nothing old, nothing near that is not tracked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from cache import RedisCache, keys
from tests.cache.cluster.conftest import Connect
from tests.cache.cluster.spread import elsewhere, keys_on, profiles
from tests.real.redis.replicated_cluster import ReplicatedCluster, slot
from tests.real.redis.resp import RedisReplyError
from tests.wait import until

pytestmark = pytest.mark.integration


async def test_a_slot_that_has_moved_is_followed_at_the_first_call(
    cluster: ReplicatedCluster, connect: Connect
) -> None:
    cache = await connect(cluster.url)
    names = profiles(40)
    assert await cache.set_many(dict.fromkeys(names, "a profile"), ttl=60) == 40
    for key in names[:5]:
        cluster.move_slot(slot(key), elsewhere(cluster, key))
    assert await cache.get_many(names) == dict.fromkeys(names, "a profile")
    for key in names[5:8]:
        cluster.move_slot(slot(key), elsewhere(cluster, key))
    assert await cache.get(names[5]) == "a profile"
    assert await cache.delete(*names) == 40
    assert (await cache.get_stats())["connection_errors"] == 0
    asked = sum(node.cli("INFO", "errorstats").count("errorstat_MOVED") for node in cluster.nodes)
    assert asked >= 1, "or this has tested nothing"


async def test_every_operation_on_a_slot_between_two_nodes(cluster: ReplicatedCluster, connect: Connect) -> None:
    """A key that is still there, one that is there no more, and calls whose guards are on both sides.

    What needs several keys of the slot (TRYAGAIN) is done once the slot has moved, if that is within the deadline.
    """
    one, other = await connect(cluster.url), await connect(cluster.url)
    tag = "{user:1:profile}"
    here, gone, new, loaded = [f"{tag}:{name}" for name in ("here", "gone", "new", "loaded")]
    number, profile = slot(here), keys.profile("1")
    target = elsewhere(cluster, here)

    async def load() -> str:
        return "loaded"

    async def fail() -> None:
        raise ConnectionError

    assert await other.set_many({here: "here", gone: "gone"}, ttl=60) == 2
    assert await one.get_or_load(profile, load, ttl=60, stale_for=600) == "loaded"
    with cluster.half_moved(number, target) as source:
        source.cli("MIGRATE", "127.0.0.1", target.port, gone, 0, 2000)
        source.cli("MIGRATE", "127.0.0.1", target.port, keys.stale(profile), 0, 2000)
        assert await other.get_many([here, gone, new]) == {here: "here", gone: "gone"}
        assert [await one.get(key) for key in (here, gone, new)] == ["here", "gone", None]
        assert await one.exists(here, gone, new, f"{tag}:missing") == 2
        assert (await other.expire(gone, 50), await other.ttl(gone)) == (True, 50)
        calls: list[Awaitable[object]] = [one.set(new, "new", ttl=60), other.set(gone, "again", ttl=60, xx=True)]
        calls += [one.set_many({f"{tag}:{number}": number for number in range(5)}, ttl=60), one.delete(here, "none")]
        calls += [cache.get_or_load(loaded, load, ttl=60, stale_for=600) for cache in (one, other)]
        calls += [other.delete(profile), other.incr(f"{tag}:count", 2, ttl=60)]
        under_way = asyncio.gather(*calls)
        await asyncio.sleep(0.1)
    assert await under_way == [True, True, 5, 1, "loaded", "loaded", 1, 2]
    with pytest.raises(ConnectionError):
        await one.get_or_load(profile, fail, ttl=60, stale_for=600)
    names = [here, gone, new, loaded, f"{tag}:3"]
    for cache in (one, other):
        assert await cache.get_many(names) == dict(zip(names[1:], ["again", "new", "loaded", 3], strict=True))
        assert (await cache.get_stats())["connection_errors"] == 0
        await until(lambda cache=cache: not cache.invalidations.undelivered)


@dataclass
class Traffic:
    """One cache writes and deletes, others read through; what is read must not be older than what was acknowledged."""

    truth: dict[str, int] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)
    reads: int = 0
    over: bool = False

    async def write(self, cache: RedisCache) -> None:
        for number in self._turns(7):
            key = list(self.truth)[number % len(self.truth)]
            self.truth[key] += 1
            version = self.truth[key]
            if number % 2:
                await cache.delete(key)
            else:
                await cache.set(key, version, ttl=600)
            self.acknowledged[key] = version
            await asyncio.sleep(0.002)

    async def read(self, cache: RedisCache, start: int) -> None:
        for number in self._turns(11, start):
            key = list(self.truth)[number % len(self.truth)]
            floor = self.acknowledged.get(key, 0)

            async def load(key: str = key) -> int:
                return self.truth[key]

            value = await cache.get_or_load(key, load, ttl=600)
            self.reads += 1
            if value < floor:
                self.stale.append(f"{key}: {value} instead of {floor}")
            await asyncio.sleep(0.001)

    def _turns(self, step: int, start: int = 0) -> Iterator[int]:
        number = start
        while not self.over:
            yield number
            number += step


async def test_a_live_reshard_costs_no_error_and_serves_nothing_old(
    cluster: ReplicatedCluster, connect: Connect
) -> None:
    caches = [await connect(cluster.url, near=frozenset({"profile"})) for _ in range(3)]
    names = profiles(40)
    traffic = Traffic(dict.fromkeys(names, 0))
    await caches[0].set_many(dict.fromkeys(names, 0), ttl=600)
    tasks = [asyncio.create_task(traffic.write(caches[0]))]
    tasks += [asyncio.create_task(traffic.read(cache, start)) for start, cache in enumerate(caches)]

    def reshard() -> None:
        for key in [*names[:10], *names[:4]]:
            cluster.move_slot(slot(key), elsewhere(cluster, key), pause=0.02)

    await asyncio.to_thread(reshard)
    traffic.over = True
    await asyncio.gather(*tasks)
    assert traffic.stale == []
    assert traffic.reads > 100
    for cache in caches:
        assert not cache.invalidations.undelivered
        assert (await cache.get_stats())["connection_errors"] == 0


async def test_a_pattern_misses_no_key_that_moves_meanwhile(cluster: ReplicatedCluster, connect: Connect) -> None:
    """From a node that is still to be looked at to one that was."""
    cache = await connect(cluster.url)
    names = [f"user:{number}:theirs" for number in range(40)]
    commands = [("SET", name, "by hand") for name in names]

    async def reshard() -> None:
        for name in names[:8]:
            await asyncio.to_thread(cluster.move_slot, slot(name), elsewhere(cluster, name))

    moving = asyncio.create_task(reshard())
    complete = 0
    while not moving.done():
        cluster_has = await asyncio.to_thread(_set_all, cluster, commands)
        outcome = await cache.invalidate("user:*")
        assert outcome.complete or cache.invalidations.undelivered
        assert await cache.get_many(names) == {}
        if outcome.complete:
            complete += 1
            assert not cluster.names() & cluster_has
    await moving
    await until(lambda: not cache.invalidations.undelivered)
    assert not cluster.names() & {*names}


def _set_all(cluster: ReplicatedCluster, commands: list[tuple[str, ...]]) -> set[str]:
    """Set the keys of these commands. Returns those that no node refused because its slot is under way."""
    done = set()
    for command in commands:
        with suppress(RedisReplyError):
            cluster.cli(*command)
            done.add(command[1])
    return done


async def test_a_new_process_finds_a_warm_cache_after_a_reshard(cluster: ReplicatedCluster, connect: Connect) -> None:
    """The marks of the nodes move with their slots, and no node counts as restored for that."""
    cache = await connect(cluster.url)
    names = profiles(60)
    assert await cache.set_many(dict.fromkeys(names, "warm"), ttl=600) == 60
    await until(lambda: not cache.invalidations.undelivered)

    def marks() -> set[str]:
        return {cluster.mark_of(node) for node in cluster.primaries()}

    await until(lambda: marks() <= cluster.names())
    for mark in marks():
        cluster.move_slot(slot(mark), elsewhere(cluster, mark))
    assert await cache.get_many(names) == dict.fromkeys(names, "warm")
    await until(lambda: marks() <= cluster.names())
    late = await connect(cluster.url)
    assert await late.get_many(names) == dict.fromkeys(names, "warm")
    await asyncio.sleep(0.2)
    assert not late.invalidations.undelivered
    assert await cache.get_many(names) == dict.fromkeys(names, "warm")


async def test_what_is_near_of_a_slot_is_dropped_when_it_leaves(cluster: ReplicatedCluster, connect: Connect) -> None:
    """The node that a slot has left reports no changes of its keys any more."""
    cache = await connect(cluster.url, near=frozenset({"profile"}))
    names = profiles(40)
    assert await cache.set_many(dict.fromkeys(names, "old"), ttl=600) == 40
    for key in names:
        assert await cache.get(key) == "old"
    for key in names[:3]:
        cluster.move_slot(slot(key), elsewhere(cluster, key))
    for key in names[:3]:
        cluster.cli("SET", key, "new", "EX", 60)

    async def all_new() -> bool:
        return [await cache.get(key) for key in names[:3]] == ["new"] * 3

    await until(all_new)


async def test_changes_are_seen_from_each_node(cluster: ReplicatedCluster, connect: Connect) -> None:
    cache = await connect(cluster.url, near=frozenset({"profile"}))
    names = profiles(40)
    assert await cache.set_many(dict.fromkeys(names, "old"), ttl=600) == 40

    async def near() -> bool:
        """Whether a read of all keys asks no node."""
        before = cluster.calls("get") + cluster.calls("mget")
        assert [await cache.get(key) for key in names] == ["old"] * 40
        return cluster.calls("get") + cluster.calls("mget") == before

    await until(near)
    cluster.many([("SET", key, "new", "EX", 60) for key in names])

    async def all_new() -> bool:
        return [await cache.get(key) for key in names] == ["new"] * 40

    await until(all_new)


async def test_only_the_lost_nodes_values_leave_the_near_cache(cluster: ReplicatedCluster, connect: Connect) -> None:
    cache = await connect(cluster.url, near=frozenset({"profile"}))
    names = profiles(40)
    assert await cache.set_many(dict.fromkeys(names, "old"), ttl=600) == 40
    lost, replica = cluster.nodes[1], cluster.replica_of(cluster.nodes[1])
    there = keys_on(cluster, lost, names)
    others = [key for key in names if key not in there]
    for key in names:
        assert await cache.get(key) == "old"
    cluster.keep_from_failing_over(replica)
    lost.kill()

    async def dropped() -> bool:
        return await cache.get(there[0], "none") == "none"

    await until(dropped)
    before = cluster.calls("get") + cluster.calls("mget")
    assert [await cache.get(key) for key in others] == ["old"] * len(others)
    assert cluster.calls("get") + cluster.calls("mget") == before
    cluster.promote(replica)
    await until(lambda: cache.set(there[0], "new", ttl=60))
    await until(lambda: not cache.invalidations.undelivered)

    async def near_again() -> bool:
        asked = cluster.calls("get") + cluster.calls("mget")
        if await cache.get(there[0]) is None:  # what is stored before the node is trusted may be deleted
            await cache.set(there[0], "new", ttl=60)
        return await cache.get(there[0]) == "new" and cluster.calls("get") + cluster.calls("mget") == asked

    await until(near_again)
    assert await cache.get_many(others) == dict.fromkeys(others, "old")
