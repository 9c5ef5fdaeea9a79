"""CLUSTER SLOTS is refused, at first or later: nothing old is served, and the log says what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cache import keys
from cache.transport.cluster import cluster as cluster_client
from cache.transport.handshake import NO_SLOTS
from tests.cache.cluster.conftest import Connect
from tests.cache.cluster.spread import Reading, elsewhere, key_on, keys_on, profiles
from tests.inside import engine_of
from tests.real.redis.replicated_cluster import ReplicatedCluster, slot
from tests.real.redis.resp2_server import refusing
from tests.wait import until

pytestmark = pytest.mark.integration
NEAR = frozenset({"profile"})
UNKNOWN = "ERR unknown command 'CLUSTER', with args beginning with: 'SLOTS'"


@pytest.fixture
def url(cluster: ReplicatedCluster) -> Iterator[str]:
    """The URL of a user with all rights on each node."""
    cluster.on_each("ACL", "SETUSER", "hidden", "reset", "on", ">pw", "~*", "&*", "+@all")
    yield f"redis://hidden:pw@127.0.0.1:{cluster.port}/0"
    cluster.on_each("ACL", "DELUSER", "hidden")


def forbid(cluster: ReplicatedCluster) -> None:
    cluster.on_each("ACL", "SETUSER", "hidden", "-cluster|slots")


async def test_a_cluster_whose_slots_may_not_be_asked_for_is_not_used(
    cluster: ReplicatedCluster, url: str, make_cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What lies on nodes of which it knows nothing could not be invalidated by pattern, nor recovered."""
    forbid(cluster)
    cache = make_cache(url, near=NEAR, deadline=2.0, connect_wait=5.0)
    assert await cache.initialize() is False
    assert (await cache.set(keys.profile("1"), "x"), await cache.get(keys.profile("1"))) == (False, None)
    assert await cache.health_check() is False
    assert caplog.text.count(NO_SLOTS) == 1
    cluster.on_each("ACL", "SETUSER", "hidden", "+cluster|slots")
    await until(lambda: cache.connected)
    await until(lambda: cache.set(keys.profile("1"), "Ada", ttl=60))


@pytest.mark.parametrize("number", [0, 3], ids=["a primary", "a replica"])
async def test_a_cluster_without_the_command_is_one_line_in_the_log(
    cluster: ReplicatedCluster, make_cache: Callable[..., Any], caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """``rename-command CLUSTER ""``: no attempt finds it usable, until it is."""
    caplog.set_level("INFO", "cache")
    node, errors = cluster.nodes[number], {"CLUSTER": UNKNOWN}
    async with refusing(node.port, errors) as port:
        cache = make_cache(f"redis://127.0.0.1:{port}/0", near=NEAR, deadline=2.0, connect_wait=5.0)
        before = node.calls("hello")
        assert await cache.initialize() is False
        await until(lambda: node.calls("hello") > before + 2)
        assert await cache.get(keys.profile("1")) is None
        (line,) = _logged(caplog)
        assert NO_SLOTS in line
        errors.clear()
        await until(lambda: cache.set(keys.profile("1"), "Ada", ttl=60))
        await until(lambda: [line[:17] for line in _logged(caplog)[1:]] == ["[REDIS] Connected"])
        await cache.close()


def _logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "cache"]


async def test_a_cluster_that_knows_no_cluster_slots_is_not_used(
    cluster: ReplicatedCluster,
    make_cache: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that seemed to have every slot is used as one server, until it sends us to another. It is looked at again."""
    monkeypatch.setattr(cluster_client, "LOOK_AGAIN", 0.05)
    first, second = [key_on(cluster, node) for node in cluster.nodes[:2]]
    errors = {"CLUSTER": "LOADING Redis is loading the dataset in memory"}
    async with refusing(cluster.port, errors) as port:
        early, cache = [
            make_cache(f"redis://127.0.0.1:{port}/0", near=NEAR, deadline=2.0, connect_wait=5.0) for _ in range(2)
        ]
        assert await early.initialize() is False, "it may know them in a moment"
        await early.close()
        assert "refused (LOADING)" in caplog.text
        errors |= {"CLUSTER": UNKNOWN, "GET": "NOPERM No permissions to access a key"}  # so that nothing is found out
        await until(lambda: cache.set(first, "of the URL's node", ttl=60))
        assert await cache.set(second, "of another one", ttl=60) is False
        await until(lambda: NO_SLOTS in caplog.text)
        assert cluster.nodes[1].cli("KEYS", "*") == [], "nothing is written to what is not known"

        async def explained() -> bool:
            return not await cache.set(second, "x", ttl=60) and NO_SLOTS in engine_of(cache).transport.client.reason

        await until(explained)  # also later: it was "closed" then
        errors.clear()

        async def stored() -> bool:
            return await cache.set(second, "of another one", ttl=60) and await cache.get(second) == "of another one"

        await until(stored)
        await cache.close()


async def test_what_moved_names_is_trusted_no_more_than_what_cluster_slots_names(
    cluster: ReplicatedCluster, url: str, connect: Connect
) -> None:
    """A replica that has missed deletes takes over under open connections, and no other node says so."""
    lost = cluster.nodes[1]
    names = keys_on(cluster, lost, profiles(100))
    cache = await connect(url, near=NEAR)
    await until(lambda: _all_read(cache, names))
    replica = cluster.cut_off(lost)
    gone = names[: len(names) // 2]
    assert await cache.delete(*gone) == len(gone)
    forbid(cluster)
    reading = Reading(cache, dict.fromkeys(names, "a profile") | dict.fromkeys(gone))
    over = asyncio.create_task(reading.lasts(0.3))
    await asyncio.to_thread(cluster.promote, replica)
    await over
    assert reading.wrong == []
    assert len(gone) > 5


async def _all_read(cache: Any, names: list[str]) -> bool:
    values = dict.fromkeys(names, "a profile")
    return await cache.set_many(values, ttl=600) == len(names) and [await cache.get(key) for key in names] == [
        *values.values()
    ]


async def test_a_slot_that_has_moved_is_followed_and_tracked_without_the_right(
    cluster: ReplicatedCluster, url: str, connect: Connect
) -> None:
    """A pattern, which may have to reach nodes that are not known, waits until the slots are known again."""
    cache = await connect(url, near=NEAR)
    names = profiles(40)
    await until(lambda: _all_read(cache, names))
    forbid(cluster)
    moved = names[:3]
    for key in moved:
        cluster.move_slot(slot(key), elsewhere(cluster, key))
    assert [await cache.get(key) for key in moved for _ in range(2)] == ["a profile"] * 6
    for key in moved:
        cluster.cli("SET", key, "new", "EX", 60)

    async def all_new() -> bool:
        return [await cache.get(key) for key in moved] == ["new"] * 3

    await until(all_new)
    assert not (await cache.invalidate("user:*")).complete
    assert await cache.get_many(names) == {}, "masked until then"
    cluster.on_each("ACL", "SETUSER", "hidden", "+cluster|slots")
    await until(lambda: not cache.invalidations.undelivered)
    assert not cluster.names() & {*names}


async def test_a_mark_waits_for_the_id_of_its_node(cluster: ReplicatedCluster, url: str, connect: Connect) -> None:
    """A node known by MOVED alone has no id yet, which is in the name of its mark: two would share one."""
    old, new = cluster.nodes[0], cluster.nodes[1]
    replica = cluster.replica_of(new)
    cache = await connect(url)
    key = key_on(cluster, new)
    await until(lambda: _all_read(cache, [key, key_on(cluster, old)]))
    await until(lambda: len(cluster.names() & {cluster.mark_of(node) for node in (old, new)}) == 2)
    forbid(cluster)
    cluster.promote(replica)
    assert await cache.get(key) is None, "not trusted: its mark is not known"
    await asyncio.sleep(0.1)
    assert replica.cli("KEYS", "system:server:*:") == []
    cluster.on_each("ACL", "SETUSER", "hidden", "+cluster|slots")
    await until(lambda: replica.cli("EXISTS", cluster.mark_of(replica)))
    await until(lambda: _all_read(cache, [key]))
