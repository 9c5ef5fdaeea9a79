"""Every documented operation reaches every node of a cluster, whatever the key is called."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pytest

from cache import LockUnavailable, RedisCache, keys
from cache.coherence.pending_pattern import PendingInvalidations, PendingPattern
from tests.cache.cluster.conftest import Connect
from tests.cache.cluster.spread import by_node, key_on, keys_on, profiles
from tests.cache.loading.test_load_across_processes import stampede
from tests.inside import enqueue
from tests.real.redis.replicated_cluster import ReplicatedCluster, slot
from tests.wait import until

pytestmark = pytest.mark.integration
BRACES = (
    *("{7}:cart", "cart:{7}", "a{b}c{d}", "{{x}}", "{a}{b}", "{a}b}", "{a{b}", "user:{1}:note", "{user:1}:note"),
    *("{}", "{}x", "x{}", "{}{a}", "}{", "a}b", "a{b", "a}b{c}", "}", "{", "{}}", "user:1:a}b", "user:1:{}"),
    *("ü{é}ß", "{ }", "a b", "{\n}", "{*}", "[{a}]", "user:1:{profile}"),
)
"""With a hash tag, with an empty one, which is none, and with braces that make none."""


def left(cluster: ReplicatedCluster) -> set[str]:
    """The keys of the cluster without the layer's own bookkeeping, which an invalidation leaves."""
    return {key for key in cluster.names() if not key.startswith(("system:", "index:"))}


async def test_a_cold_burst_is_stored_whole(cluster: ReplicatedCluster, make_cache: Any) -> None:
    """The first call of a new cache reaches nodes to which it has no connection yet, within the default deadline.

    On a busy machine not at the first attempt, or with a somewhat longer one.
    """
    stored = []
    for attempt, deadline in enumerate((0.05, 0.05, 0.05, 0.1, 0.2, 1.0, 5.0)):
        cache: RedisCache = make_cache(cluster.url, connect_wait=5.0, deadline=deadline)
        await until(cache.initialize)
        burst = {f"temp:burst{attempt}:{number}": number for number in range(200)}
        stored.append(await cache.set_many(burst, ttl=60))
        if stored[-1] == 200:
            break
    assert stored[-1] == 200, stored
    by_node(cluster, burst)
    await until(lambda: cache.connected)
    assert await cache.get_many([*burst, "missing"]) == burst
    assert cluster.names() >= burst.keys()


async def test_calls_for_several_keys(cluster: ReplicatedCluster, connect: Connect) -> None:
    cache = await connect(cluster.url)
    values = {key: number for number, key in enumerate(profiles(700))}
    assert await cache.set_many(values, ttl=60) == 700
    assert await cache.get_many([*reversed(values), "missing"]) == values
    assert await cache.exists(*values, "missing", next(iter(values))) == 701
    assert await asyncio.gather(*map(cache.get, values)) == list(values.values())
    assert await asyncio.gather(*(cache.expire(key, 300) for key in values)) == [True] * 700
    assert all(298 <= left <= 300 for left in await asyncio.gather(*map(cache.ttl, values)))
    assert await cache.delete(*values, "missing") == 700
    assert not cluster.names() & values.keys()
    assert not cache.invalidations.undelivered


async def test_several_keys_are_asked_for_on_all_nodes_at_once(cluster: ReplicatedCluster, connect: Connect) -> None:
    """Whichever node answers alone, it has been asked: the nodes are not asked one after the other."""
    cache = await connect(cluster.url, deadline=5.0)
    values: dict[str, object] = dict.fromkeys(profiles(60), "x")
    for node in cluster.primaries():
        others = [one for one in cluster.primaries() if one is not node]
        for call, name, outcome in (
            (lambda: cache.set_many(values, ttl=60), "set", 60),
            (lambda: cache.get_many(values), "get", values),
            (lambda: cache.delete(*values), "unlink", 60),
        ):
            before = node.calls(name)
            for other in others:
                other.pause()
            reply = asyncio.create_task(call())  # type: ignore[arg-type]  # of two types
            await until(lambda node=node, name=name, before=before: node.calls(name) > before)
            for other in others:
                other.resume()
            assert await reply == outcome


async def test_a_node_that_is_away_holds_up_nothing_that_is_pending_for_the_others(
    cluster: ReplicatedCluster, connect: Connect
) -> None:
    """What was pending first, a hundred keys of its own or a pattern, kept all others from being delivered."""
    cache = await connect(cluster.url, deadline=0.1)
    away = cluster.primaries()[0]
    lost = keys_on(cluster, away, profiles(600))[:110]
    here = next(user for user in map(str, range(99)) if away not in cluster.owners([keys.profile(user), f"{{{user}}}"]))
    key, other = keys.profile(here), key_on(cluster, cluster.primaries()[1], 600)
    cluster.keep_from_failing_over(cluster.replica_of(away))
    await until(lambda: cache.set_many(dict.fromkeys((key, other, lost[0]), "old"), ttl=600))
    away.pause()
    pattern, of_lost = (PendingPattern(one, one.split(":")[1]) for one in (key, lost[0]))
    enqueue(cache, PendingInvalidations((*lost, other), (of_lost, pattern)))
    await until(lambda: cache.invalidations.pending == PendingInvalidations(tuple(lost), (of_lost,)))
    assert cluster.owner(key).cli("EXISTS", key) == cluster.owner(other).cli("EXISTS", other) == 0
    away.resume()
    await until(lambda: not cache.invalidations.undelivered)


@pytest.mark.parametrize("name", BRACES)
async def test_a_name_with_braces_is_cached_like_any_other(
    cluster: ReplicatedCluster, connect: Connect, name: str
) -> None:
    one, other = await connect(cluster.url), await connect(cluster.url)
    for cache in (one, other):  # which asks a node without a mark once whether it was restored
        assert await cache.exists(name) == 0
    await until(lambda: not one.invalidations.undelivered and not other.invalidations.undelivered)
    loads = 0

    async def load() -> dict[str, int]:
        nonlocal loads
        loads += 1
        await asyncio.sleep(0.02)
        return {"loads": loads}

    async def fail() -> None:
        raise ConnectionError

    calls = [cache.get_or_load(name, load, ttl=60, stale_for=600) for cache in (one, other) for _ in range(3)]
    assert await asyncio.gather(*calls) == [{"loads": 1}] * 6
    assert cluster.cli("GET", name) == '{"loads":1}'
    assert slot(keys.lease(name)) == slot(keys.stale(name)) == slot(name)
    cluster.cli("DEL", name)  # as if it had expired
    assert await one.get_or_load(name, fail, ttl=60, stale_for=600) == {"loads": 1}
    assert await other.delete(name) == 0
    with pytest.raises(ConnectionError):
        await one.get_or_load(name, fail, ttl=60, stale_for=600)
    assert await one.set(name, "set", ttl=60, nx=True)
    assert await other.get(name) == "set"
    assert await one.get_many([name, "none"]) == {name: "set"}
    stats = await one.get_stats()
    assert stats["connection_errors"] == 0
    assert stats["cache_hits"] >= 1
    assert (await other.exists(name), await other.ttl(name)) == (1, 60)
    assert await one.invalidate_pattern(keys.escape(name)) == 1
    await other.get_or_load(name, load, ttl=60, stale_for=600)
    assert await one.invalidate_pattern("*") == 1
    assert left(cluster) == set()


def test_guards_share_the_slot_of_any_name_and_are_distinguished() -> None:
    alphabet = ["{", "}", "a", ":"]
    names = ["".join(letters) for length in range(1, 6) for letters in itertools.product(alphabet, repeat=length)]
    seeded = random.Random(1)
    names += ["".join(seeded.choices("{}{}:ab é*[]?\\", k=seeded.randint(1, 40))) for _ in range(500)]
    names = sorted(set(names))
    guards = {guard: name for name in names for guard in (keys.lease(name), keys.stale(name))}
    assert len(guards) == 2 * len(names)
    assert [guard for guard, name in guards.items() if slot(guard) != slot(name)] == []
    assert [guard for guard, name in guards.items() if keys.guarded_by(guard) != name] == []
    assert keys.lease("user:1:profile") == "lease:{user:1:profile}", "as documented"


async def test_patterns_and_one_user_reach_all_nodes(cluster: ReplicatedCluster, connect: Connect) -> None:
    cache, other = await connect(cluster.url), await connect(cluster.url)
    names = profiles(60)
    assert await cache.set_many(dict.fromkeys(names, "p"), ttl=600) == 60
    foreign = [f"other:{number}" for number in range(30)]
    cluster.many([("SET", name, "by hand") for name in foreign])
    notes = [f"user:7:note{number}" for number in range(30)]
    assert await cache.set_many(dict.fromkeys(notes, "n"), ttl=600) == 30
    strays = [f"user:7:stray{number}" for number in range(30)]
    cluster.many([("SET", name, "by hand") for name in strays])
    assert (await cache.get_stats())["redis_keys"] >= 150
    assert await other.clear_user_cache("7") >= 31
    await until(lambda: not cluster.names() & {*notes, *strays, names[7]})
    assert await cache.invalidate_pattern("user:*:profile") == 59
    assert await cache.invalidate_pattern("other:*") == 30
    assert left(cluster) == set()


async def test_statistics_are_of_all_nodes(cluster: ReplicatedCluster, connect: Connect) -> None:
    cache, other = await connect(cluster.url), await connect(cluster.url)
    names = profiles(60)
    await cache.set_many(dict.fromkeys(names, "x" * 10_000), ttl=600)
    await asyncio.gather(*map(cache.get, names))
    await other.get("missing")
    await cache.close()
    stats = await other.get_stats()
    assert (stats["total_requests"], stats["cache_hits"], stats["cache_misses"]) == (61, 60, 1)
    assert 60 <= stats["redis_keys"] <= 70
    used = sum(_used_memory(text) for text in [node.cli("INFO", "memory") for node in cluster.primaries()])
    size, unit = float(stats["redis_memory"][:-1]), {"K": 1 << 10, "M": 1 << 20}[stats["redis_memory"][-1]]
    assert used / 2 < size * unit < used * 2
    assert stats["connection_errors"] == 0


def _used_memory(text: str) -> int:
    return int(next(line for line in text.splitlines() if line.startswith("used_memory:")).partition(":")[2])


async def test_locks_are_held_on_every_node(cluster: ReplicatedCluster, connect: Connect) -> None:
    one, other = await connect(cluster.url), await connect(cluster.url)
    ids = [str(number) for number in range(12)]
    by_node(cluster, [keys.lock("greeting", id_) for id_ in ids])
    for id_ in ids:
        async with one.lock("greeting", id_):
            with pytest.raises(LockUnavailable):
                async with other.lock("greeting", id_):
                    pass
        async with other.lock("greeting", id_, wait=2.0):
            pass
    await until(lambda: not {key for key in cluster.names() if key.startswith("lock:")})


async def test_one_connection_to_each_primary_in_use(cluster: ReplicatedCluster, connect: Connect) -> None:
    """Whatever was called; none to a replica, and none after the end."""

    def ours() -> list[int]:
        return [node.cli("CLIENT", "LIST").count(" name=companion-cache ") for node in cluster.nodes]

    cache = await connect(cluster.url)
    assert sum(ours()) <= 1, "a node is connected to when it is first needed"
    assert await cache.set_many(dict.fromkeys(profiles(60), "p"), ttl=60) == 60
    await asyncio.gather(*(cache.get_stats() for _ in range(20)))
    await asyncio.gather(*(cache.invalidate_pattern(f"user:{number}*:profile") for number in range(10)))
    async with cache.lock("a", "1"), cache.lock("b", "2"), cache.lock("c", "3"):
        assert ours() == [1, 1, 1, 0, 0, 0]
    cache.disable()
    await until(lambda: sum(ours()) == 0)
    assert await cache.get("user:1:profile", "off") == "off"
    cache.enable()
    await until(lambda: cache.set("temp:s:a", 1, ttl=60))
    await cache.close()
    await until(lambda: sum(ours()) == 0)
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("cache-")] == []


async def test_encrypted_values_and_counters(cluster: ReplicatedCluster, connect: Connect) -> None:
    cache, other = [await connect(cluster.url, encryption_keys=(bytes(range(32)),)) for _ in range(2)]
    names = profiles(30)
    assert await cache.set_many(dict.fromkeys(names, "a secret"), ttl=60) == 30
    assert not [name for name in names if "secret" in cluster.cli("GET", name)]
    assert await other.get_many(names) == dict.fromkeys(names, "a secret")
    counts = [await one.incr(f"temp:n:{number}", 2, ttl=60) for number in range(20) for one in (cache, other)]
    assert counts == [2, 4] * 20


async def test_two_processes_load_once(cluster: ReplicatedCluster) -> None:
    async with stampede(cluster.url, processes=2, tasks=20, seconds=0.3) as workers:
        for worker in workers:
            worker.go()
        outcomes = [await worker.outcome() for worker in workers]
    assert sum(outcome["loads"] for outcome in outcomes) == 1
    assert [outcome["values"] for outcome in outcomes] == [["value"], ["value"]]
