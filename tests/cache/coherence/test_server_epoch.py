"""Restart, restore and failover of Redis: values whose invalidation was lost are not served."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cache import RedisCache, keys
from cache.coherence import delivered, revalidation_lease
from cache.embedded import EmbeddedRedis
from cache.exceptions import CommandTimeout
from cache.loading.loaders import Loader
from tests.inside import engine_of, epoch_of
from tests.real.proxy import Proxy
from tests.real.redis.redis_server import RedisServer
from tests.wait import initialised, until

pytestmark = [pytest.mark.integration, pytest.mark.every_server]
LEASE = keys.lease(keys.system_server())
MINE, YOURS, OTHER = keys.profile("me"), keys.profile("you"), "reports:today"
Make = Callable[..., RedisCache]


async def identity(server: RedisServer) -> str:
    """The run id and the replication id of a server."""
    lines = [line for part in ("server", "replication") for line in server.cli("INFO", part).splitlines()]
    info = dict(line.split(":", 1) for line in lines if ":" in line)
    return f"{info['run_id']}:{info['master_replid']}"


async def connected(server: RedisServer, make_cache: Make) -> RedisCache:
    cache = make_cache(server.url, connect_wait=5.0, deadline=1.0)
    await initialised(cache)
    return cache


async def marked(server: RedisServer) -> None:
    """Wait until the server's epoch key is that of its current run."""

    async def there() -> bool:
        return bool(server.cli("GET", keys.system_server()) == await identity(server))

    await until(there)


async def old_dump(server: RedisServer, cache: RedisCache) -> bytes:
    """A dump that contains values which were changed later."""
    await cache.set(MINE, "old", ttl=3600)
    await cache.get_or_load(keys.summary("me"), _loads("old"), ttl=3600, stale_for=3600)
    await cache.set(YOURS, "still right", ttl=3600)
    await cache.set(OTHER, "not a user's", ttl=3600)
    await marked(server)
    dump = await asyncio.to_thread(server.dump)
    await cache.delete(MINE, keys.summary("me"))
    return dump


def _loads(value: str) -> Loader:
    async def load() -> str:
        return value

    return load


async def _fails() -> str:
    raise LookupError


@pytest.mark.usefixtures("maintained_often")
async def test_connected_caches_serve_nothing_outdated(own_redis: RedisServer, make_cache: Make) -> None:
    cache = await connected(own_redis, make_cache)
    dump = await old_dump(own_redis, cache)
    await asyncio.to_thread(own_redis.restore, dump)
    assert own_redis.cli("GET", MINE) in ("old", None)
    seen = set()
    while not (cache.connected and not cache.invalidations.undelivered):
        seen.add(await cache.get(MINE))
        await asyncio.sleep(0)
    seen.add(await cache.get(MINE))
    assert seen == {None}
    # The changes are unknown: all values were removed, last good ones too.
    assert own_redis.cli("KEYS", "*user:*") == []
    assert await cache.get(OTHER) == "not a user's"
    await marked(own_redis)


async def test_caches_connected_afterwards_serve_nothing_outdated(own_redis: RedisServer, make_cache: Make) -> None:
    cache = await connected(own_redis, make_cache)
    dump = await old_dump(own_redis, cache)
    await cache.close()
    await asyncio.to_thread(own_redis.restore, dump)
    late = await connected(own_redis, make_cache)
    assert await late.get(MINE) is None
    with pytest.raises(LookupError):
        await late.get_or_load(keys.summary("me"), _fails, ttl=60, stale_for=60)


async def test_what_the_old_primary_acknowledged_last_is_delivered_to_the_new_one(
    own_redis: RedisServer, redis_server: RedisServer, make_cache: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process knew of the failover before, and has left its mark: the new primary looks right."""
    monkeypatch.setattr(delivered, "ROUNDED", -60.0)  # as if it had been running for a minute
    others, names = keys.profile("6"), [keys.profile(str(number)) for number in range(1, 6)]
    async with Proxy(own_redis.port) as proxy:
        cache = make_cache(f"redis://127.0.0.1:{proxy.port}/0", connect_wait=5.0, deadline=1.0)
        await initialised(cache)
        await marked(own_redis)
        for name in (*names, others):
            redis_server.cli("SET", name, '"old"')
            own_redis.cli("SET", name, '"old"')
        assert await cache.delete(names[0]) == 1
        assert await cache.set(names[1], "new", ttl=60)
        assert await cache.clear_user_cache("3") == 1
        assert await cache.invalidate_pattern("user:4:*") == 1
        assert await cache.invalidate_pattern("user:5*:profile") == 1
        proxy.target_port = redis_server.port
        proxy.reset_all()
        await until(lambda: not redis_server.cli("EXISTS", *names))
        assert redis_server.cli("EXISTS", others)
        await cache.close()


async def test_keys_of_the_recall_are_removed_and_others_stay(own_redis: RedisServer, make_cache: Make) -> None:
    cache = await connected(own_redis, make_cache)
    dump = await old_dump(own_redis, cache)
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def ask() -> bool:
        asked.set()
        await go_on.wait()
        await cache.delete(MINE, keys.summary("me"))
        return True

    cache.recall_with(ask)
    await asyncio.to_thread(own_redis.restore, dump)
    await asked.wait()
    assert await cache.get(MINE) is None
    assert await cache.get(YOURS) is None  # possibly outdated: quarantined
    assert await cache.get_or_load(MINE, _loads("new"), ttl=60) == "new"
    assert own_redis.cli("GET", keys.system_server()) != await identity(own_redis)
    go_on.set()
    await until(lambda: not cache.invalidations.undelivered)
    assert await cache.get(YOURS) == "still right"
    await marked(own_redis)


@pytest.mark.usefixtures("maintained_often")
@pytest.mark.one_server
@pytest.mark.parametrize(
    "problem",
    [None, LookupError("what Ada said"), asyncio.CancelledError("what Ada said"), asyncio.sleep],
    ids=["says no", "raises", "is cancelled", "never ends"],
)
async def test_without_a_list_of_changes_everything_is_cleared(
    own_redis: RedisServer,
    make_cache: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    problem: BaseException | Callable[[float], Awaitable[None]] | None,
) -> None:
    monkeypatch.setattr("cache.coherence.server_epoch.RETRY_EVERY", 0.05)
    monkeypatch.setattr("cache.coherence.server_epoch.REVALIDATE_TIMEOUT", 0.1)
    monkeypatch.setattr("cache.coherence.revalidation_lease.REVALIDATE_TIMEOUT", 0.1)
    cache = await connected(own_redis, make_cache)
    dump = await old_dump(own_redis, cache)

    async def ask() -> bool:
        if isinstance(problem, BaseException):
            raise problem
        if problem is not None:
            await problem(3600)
        return False

    cache.recall_with(ask)
    await asyncio.to_thread(own_redis.restore, dump)
    await until(lambda: cache.connected and not cache.invalidations.undelivered)
    assert own_redis.cli("KEYS", "user:*") == []
    assert "Ada" not in caplog.text


@pytest.mark.usefixtures("maintained_often")
@pytest.mark.one_server
async def test_a_failing_recall_is_retried_and_nothing_is_lost_meanwhile(
    own_redis: RedisServer, make_cache: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is unavailable too: no quarantined value is served, and last good values survive the quarantine."""
    monkeypatch.setattr("cache.coherence.server_epoch.RETRY_EVERY", 0.05)
    cache = await connected(own_redis, make_cache)
    await cache.get_or_load(keys.summary("you"), _loads("right"), ttl=3600, stale_for=3600)
    dump = await old_dump(own_redis, cache)
    tries, back = [], asyncio.Event()

    async def ask() -> bool:
        tries.append(True)
        if not back.is_set():
            raise LookupError
        await cache.delete(MINE, keys.summary("me"))
        return True

    cache.recall_with(ask)
    await asyncio.to_thread(own_redis.restore, dump)
    await until(lambda: len(tries) > 2)
    for key in (MINE, keys.summary("me"), keys.summary("you")):
        with pytest.raises(LookupError):
            await cache.get_or_load(key, _fails, ttl=60, stale_for=60)
    back.set()
    await until(lambda: not cache.invalidations.undelivered)
    assert await cache.get_or_load(keys.summary("you"), _fails, ttl=60, stale_for=60) == "right"
    for key in (MINE, keys.summary("me")):
        with pytest.raises(LookupError):
            await cache.get_or_load(key, _fails, ttl=60, stale_for=60)


@pytest.mark.usefixtures("maintained_often")
@pytest.mark.one_server
async def test_the_epoch_key_is_written_after_all_deliveries(
    own_redis: RedisServer, make_cache: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a later worker would trust a server that lacks the invalidation."""
    monkeypatch.setattr("cache.coherence.server_epoch.RETRY_EVERY", 0.05)
    cache = await connected(own_redis, make_cache)
    dump = await old_dump(own_redis, cache)
    asked = asyncio.Event()

    async def ask() -> bool:
        asked.set()
        own_redis.cli("ACL", "SETUSER", "default", "-unlink")
        assert await cache.delete(MINE, keys.summary("me")) == 0  # the invalidation could not be sent
        return True

    cache.recall_with(ask)
    await asyncio.to_thread(own_redis.restore, dump)
    await asked.wait()
    await until(lambda: not engine_of(cache).pending.quarantines)
    assert cache.invalidations.undelivered
    assert own_redis.cli("GET", keys.system_server()) != await identity(own_redis)
    own_redis.cli("ACL", "SETUSER", "default", "+unlink")
    await until(lambda: not cache.invalidations.undelivered)
    await marked(own_redis)
    assert own_redis.cli("GET", MINE) is None


@pytest.mark.usefixtures("maintained_often")
@pytest.mark.parametrize("near", [frozenset(), frozenset({"profile"})], ids=["", "near"])
async def test_a_primary_that_comes_back_with_its_replicas_data(
    own_redis: RedisServer, make_cache: Make, tmp_path: Path, near: frozenset[str]
) -> None:
    """The worker is connected before and after, and its invalidation is lost in between."""
    cache = make_cache(own_redis.url, connect_wait=5.0, deadline=1.0, near=near)
    await initialised(cache)
    await cache.set(MINE, "old", ttl=3600)
    await until(lambda: epoch_of(cache).checked_at > 0)  # the first replica changes the replication id
    settings = ["--replicaof", "127.0.0.1", str(own_redis.port)]
    with RedisServer(tmp_path / "replica", args=settings, binary=own_redis.binary) as replica:
        await until(lambda: replica.cli("GET", MINE) == "old")
        replica.cli("REPLICAOF", "NO", "ONE")
        assert await cache.delete(MINE) == 1
        own_redis.cli("REPLICAOF", "127.0.0.1", replica.port)
        await until(lambda: own_redis.cli("GET", MINE) == "old")
        await until(lambda: not cache.connected)  # a replica is of no use
        assert await cache.get(MINE) is None
        own_redis.cli("REPLICAOF", "NO", "ONE")
        assert await cache.get(MINE) is None
        late = await connected(own_redis, make_cache)
        assert await late.get(MINE) is None
        await until(lambda: not cache.invalidations.undelivered and not late.invalidations.undelivered)
    assert own_redis.cli("GET", MINE) is None
    await marked(own_redis)


@pytest.mark.usefixtures("maintained_often")
async def test_the_mark_of_another_under_an_open_connection(own_redis: RedisServer, make_cache: Make) -> None:
    cache = await connected(own_redis, make_cache)
    await until(lambda: engine_of(cache).servers.tracks(""))
    await marked(own_redis)
    own_redis.cli("MSET", MINE, "old", keys.system_server(), "another run:another history")
    await until(lambda: not own_redis.cli("EXISTS", MINE))
    await marked(own_redis)


async def test_a_replica_that_does_not_answer_yet_is_not_believed(
    own_redis: RedisServer, make_cache: Make, tmp_path: Path
) -> None:
    settings = ["--replicaof", "127.0.0.1", "1", "--replica-serve-stale-data", "no"]
    with RedisServer(tmp_path / "replica", args=settings, binary=own_redis.binary) as replica:
        cache = make_cache(replica.url, deadline=1.0)
        await cache.initialize()
        assert not cache.connected


@pytest.mark.usefixtures("maintained_often")
async def test_one_process_revalidates_for_all(own_redis: RedisServer, make_cache: Make) -> None:
    """Each of them asked the store and repeated every invalidation."""
    caches = [await connected(own_redis, make_cache) for _ in range(6)]
    dump = await old_dump(own_redis, caches[0])
    asked: list[int] = []

    def revalidate(n: int) -> Callable[[], Awaitable[bool]]:
        async def ask() -> bool:
            asked.append(n)
            await asyncio.sleep(0.2)
            await caches[n].delete(MINE, keys.summary("me"))
            return True

        return ask

    for n, cache in enumerate(caches):
        cache.recall_with(revalidate(n))
    await asyncio.to_thread(own_redis.restore, dump)
    await until(lambda: asked)
    for cache in caches:
        assert await cache.get(MINE) is None
        assert await cache.get(YOURS) is None  # quarantined until the mark is there
    await until(lambda: all(cache.connected and not cache.invalidations.undelivered for cache in caches))
    assert [await cache.get(YOURS) for cache in caches] == ["still right"] * 6
    assert [await cache.get(MINE) for cache in caches] == [None] * 6
    assert len(asked) == 1
    await marked(own_redis)
    await until(lambda: not own_redis.cli("EXISTS", LEASE))


@pytest.mark.one_server
async def test_a_claim_after_another_process_is_done_revalidates_nothing(
    own_redis: RedisServer, make_cache: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark and the lease are asked for one after the other, and in between the holder of the lease ended."""
    first, second = await connected(own_redis, make_cache), await connected(own_redis, make_cache)
    await marked(own_redis)
    claiming, ended, asked = asyncio.Event(), asyncio.Event(), []
    send = revalidation_lease.send_each

    async def late(node: Any, commands: Any) -> list[Any]:
        if node is engine_of(second).transport.client and commands[0][:2] == ("SET", LEASE):
            claiming.set()
            await ended.wait()
        return await send(node, commands)

    def revalidate(n: int) -> Callable[[], Awaitable[bool]]:
        async def ask() -> bool:
            asked.append(n)
            await claiming.wait()
            return True

        return ask

    monkeypatch.setattr(revalidation_lease, "send_each", late)
    first.recall_with(revalidate(1))
    second.recall_with(revalidate(2))
    await asyncio.to_thread(own_redis.restart)
    await until(lambda: claiming.is_set() and first.connected and not first.invalidations.undelivered)
    await marked(own_redis)
    await until(lambda: not own_redis.cli("EXISTS", LEASE))
    ended.set()
    await until(lambda: not second.invalidations.undelivered)
    assert asked == [1]


@pytest.mark.usefixtures("maintained_often")
@pytest.mark.one_server
async def test_a_process_that_cannot_revalidate_or_was_killed_is_replaced(
    own_redis: RedisServer, make_cache: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache.coherence.server_epoch.RETRY_EVERY", 0.05)
    broken, working = await connected(own_redis, make_cache), await connected(own_redis, make_cache)
    await marked(own_redis)
    asked: list[str] = []

    async def fail() -> bool:
        asked.append("broken")
        raise LookupError

    async def work() -> bool:
        asked.append("working")
        return True

    broken.recall_with(fail)
    working.recall_with(work)
    own_redis.cli("SET", LEASE, "of a process that was killed", "PX", 60_000)
    own_redis.cli("MSET", YOURS, "still right", keys.system_server(), "another run:another history")
    await until(lambda: engine_of(broken).pending.quarantines and engine_of(working).pending.quarantines)
    assert (asked, own_redis.cli("EXISTS", LEASE)) == ([], 1)
    own_redis.cli("PEXPIRE", LEASE, 1)
    await marked(own_redis)
    assert asked.count("working") == 1
    await until(lambda: not (broken.invalidations.undelivered or working.invalidations.undelivered))
    assert await broken.get(YOURS) == await working.get(YOURS) == "still right"


@pytest.mark.usefixtures("maintained_often")
@pytest.mark.one_server
async def test_a_process_that_cannot_deliver_everything_holds_up_no_other(
    own_redis: RedisServer, make_cache: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache.coherence.server_epoch.RETRY_EVERY", 0.05)
    monkeypatch.setattr("cache.coherence.server_epoch.REVALIDATE_TIMEOUT", 0.5)
    families = ("user", "system", "lease", "stale", "index")
    own_redis.cli("ACL", "SETUSER", "narrow", "on", ">pw", *(f"~{family}:*" for family in families), "&*", "+@all")
    own_redis.cli("MSET", YOURS, "still right", keys.system_server(), "another run:another history")

    async def nothing_has_changed() -> bool:
        return True

    narrow = make_cache(own_redis.url.replace("redis://", "redis://narrow:pw@"), connect_wait=5.0, deadline=1.0)
    other = make_cache(own_redis.url, connect_wait=5.0, deadline=1.0)
    engine_of(narrow).pending.add("app:1")
    for cache in (narrow, other):
        cache.recall_with(nothing_has_changed)
        await initialised(cache)
    await until(lambda: not engine_of(narrow).pending.quarantines)
    await marked(own_redis)
    assert await other.get(YOURS) == "still right"
    assert narrow.invalidations.undelivered


@pytest.mark.usefixtures("maintained_often")
async def test_another_database_in_its_place_counts_as_restored(
    own_redis: RedisServer, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SWAPDB is announced to no client, and no change of a key that the new database lacks."""
    caches = [await connect(own_redis.url, near=frozenset({"profile", "state"})) for _ in range(2)]
    for cache in caches:
        await cache.set(keys.profile("1"), "old", ttl=600)
    for cache in caches:
        await until(lambda cache=cache: epoch_of(cache).checked_at >= 0)
        assert await cache.get(keys.profile("1")) == "old"
    own_redis.cli("SWAPDB", 0, 1)
    own_redis.cli("SET", keys.state("1"), "older still")
    monkeypatch.setattr("cache.coherence.server_epoch.CHECK_EVERY", 0.1)
    await marked(own_redis)
    for cache in caches:
        await until(lambda cache=cache: not len(engine_of(cache).near.entries) and not cache.invalidations.undelivered)
        assert await cache.get_many([keys.profile("1"), keys.state("1")]) == {}


async def used_again_after_a_flush(cache: RedisCache, server: RedisServer) -> float:
    """Seconds until a value that was written after a FLUSHALL is served."""
    recall = epoch_of(cache)
    changes = recall.changes
    server.cli("FLUSHALL")
    begun = asyncio.get_running_loop().time()
    await until(lambda: recall.changes > changes)
    server.cli("SET", MINE, "new")

    async def served() -> bool:
        return await cache.get(MINE) == "new"

    await until(served)
    return asyncio.get_running_loop().time() - begun


async def test_a_flush_is_checked_at_once_despite_pending_invalidations(
    own_redis: RedisServer, make_cache: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = await connected(own_redis, make_cache)
    await marked(own_redis)

    async def refused() -> None:
        """It stays pending."""

    monkeypatch.setattr(cache.invalidations, "redeliver", refused)
    engine_of(cache).pending.add("app:1")
    # The server is checked, but not released before all pending invalidations are delivered.
    own_redis.cli("DEL", keys.system_server())
    recall = epoch_of(cache)
    await until(lambda: recall.not_before > asyncio.get_running_loop().time())
    assert await used_again_after_a_flush(cache, own_redis) < 0.3


async def test_a_look_that_is_late_is_taken_again_at_once(
    own_redis: RedisServer, make_cache: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = await connected(own_redis, make_cache)
    await marked(own_redis)
    send, late = engine_of(cache).transport.send_each, iter([CommandTimeout("our loop stood still")])

    async def once_late(*commands: Any) -> list[Any]:
        for problem in late:
            raise problem
        return await send(*commands)

    monkeypatch.setattr(engine_of(cache).transport, "send_each", once_late)
    assert await used_again_after_a_flush(cache, own_redis) < 0.3


@pytest.mark.usefixtures("maintained_often")
async def test_a_mark_of_another_type(own_redis: RedisServer, make_cache: Make) -> None:
    own_redis.cli("DEL", keys.system_server())
    own_redis.cli("RPUSH", keys.system_server(), "x")
    cache = await connected(own_redis, make_cache)
    await until(lambda: own_redis.cli("TYPE", keys.system_server()) == "string")
    await marked(own_redis)
    assert not cache.invalidations.undelivered


async def test_a_lost_connection_causes_no_quarantine(own_redis: RedisServer, make_cache: Make) -> None:
    cache = await connected(own_redis, make_cache)
    await cache.set(MINE, "right", ttl=3600)
    await marked(own_redis)
    asked = []

    async def ask() -> bool:
        asked.append(True)
        return False

    cache.recall_with(ask)
    own_redis.cli("CLIENT", "KILL", "TYPE", "normal")
    await until(lambda: not cache.connected)
    await until(lambda: cache.connected)
    assert await cache.get(MINE) == "right"
    late = await connected(own_redis, make_cache)
    assert await late.get(MINE) == "right"
    assert asked == []


@pytest.mark.parametrize("how", [["FLUSHALL"], ["DEL", keys.system_server()], ["SET", keys.system_server(), "x"]])
async def test_a_mark_that_is_lost_is_back_at_once(own_redis: RedisServer, make_cache: Make, how: list[str]) -> None:
    """Flushed or evicted, the epoch key must be restored before a later dump."""
    for cache in (await connected(own_redis, make_cache), await connected(own_redis, make_cache)):
        await until(lambda cache=cache: engine_of(cache).servers.tracks(""))
    await marked(own_redis)
    for _ in range(3):
        own_redis.cli(*how)
        await marked(own_redis)


@pytest.mark.usefixtures("maintained_often")
async def test_a_silently_lost_epoch_key_is_restored(
    own_redis: RedisServer, make_cache: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache.coherence.server_epoch.CHECK_EVERY", 0.1)
    own_redis.cli("ACL", "SETUSER", "default", "-client")
    await connected(own_redis, make_cache)
    await marked(own_redis)
    own_redis.cli("FLUSHALL")
    await marked(own_redis)


@pytest.mark.usefixtures("maintained_often")
async def test_the_private_redis_keeps_what_it_has(tmp_path: Path, make_cache: Make) -> None:
    """It is an ordinary restart: its values are served once the store has said what has changed."""

    async def nothing_has_changed() -> bool:
        return True

    server = EmbeddedRedis(tmp_path)
    cache = make_cache(await server.start(), connect_wait=5.0)
    await initialised(cache)
    await cache.set(MINE, "right", ttl=3600)
    await cache.close()
    await server.stop()
    again = make_cache(await server.start(), connect_wait=5.0)
    again.recall_with(nothing_has_changed)
    await initialised(again)
    await until(lambda: not again.invalidations.undelivered)
    assert await again.get(MINE) == "right"
    await again.close()
    await server.stop()


@pytest.mark.usefixtures("maintained_often")
async def test_values_without_a_mark_are_not_believed(own_redis: RedisServer, make_cache: Make) -> None:
    """The epoch key may have been evicted just before the dump."""
    own_redis.cli("DEL", keys.system_server())
    own_redis.cli("MSET", MINE, "old", OTHER, "not a user's")
    cache = await connected(own_redis, make_cache)
    assert await cache.get(MINE) is None
    await until(lambda: not cache.invalidations.undelivered)
    assert own_redis.cli("EXISTS", MINE) == 0
    assert await cache.get(OTHER) == "not a user's"
    await marked(own_redis)


async def test_an_empty_server_is_believed(own_redis: RedisServer, make_cache: Make) -> None:
    own_redis.cli("FLUSHALL")
    cache = await connected(own_redis, make_cache)
    assert not cache.invalidations.undelivered
    await marked(own_redis)


@pytest.mark.usefixtures("maintained_often")
@pytest.mark.one_server
async def test_a_refused_right_that_comes_back(own_redis: RedisServer, make_cache: Make) -> None:
    """A denied clearing is completed once permitted, and is not retried at every check."""
    own_redis.cli("DEL", keys.system_server())
    own_redis.cli("SET", MINE, "old")
    own_redis.cli("ACL", "SETUSER", "default", "-scan")
    cache = await connected(own_redis, make_cache)
    recall = epoch_of(cache)
    first = await until(lambda: max(recall.not_before, 0))
    assert await until(lambda: max(recall.not_before - first, 0)) >= 1.0
    assert cache.invalidations.undelivered
    assert await cache.get(MINE) is None
    own_redis.cli("ACL", "SETUSER", "default", "+scan")
    await until(lambda: not cache.invalidations.undelivered)
    assert own_redis.cli("EXISTS", MINE) == 0
    await marked(own_redis)


async def test_a_handshake_that_ends_after_the_cache_was_switched_off_quarantines_nothing(
    redis_server: RedisServer, connect: Callable[..., Awaitable[RedisCache]]
) -> None:
    """The quarantine of a server that was not used any more lasted, and with it everything counted as undelivered."""
    cache = await connect(redis_server.url, tracked=False)
    await marked(redis_server)
    redis_server.cli("MSET", keys.system_server(), "another epoch", OTHER, "x")
    handshakes: list[tuple[Any, list[Any]]] = []
    transport = engine_of(cache).transport
    on_handshake = transport.on_handshake
    transport.on_handshake = lambda *found: (cache.disable(), handshakes.append(found), on_handshake(*found))
    cache.disable()
    cache.enable()
    await until(lambda: handshakes)
    assert not cache.invalidations.undelivered
    assert not engine_of(cache).pending
