"""One store and several Redis servers: the workers of one of them acknowledge, and each is cleared of every write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import asyncpg
import pytest
import pytest_asyncio

from cache import CacheSettings, RedisCache, keys
from companion.caching import ConsistencyWatch, OutboxRelay
from companion.caching.cache_identity import KEY
from companion.caching.cached_data import MAX_LIFETIME
from companion.store import SupabaseStore
from tests.real.redis.redis_server import RedisServer
from tests.real.supabase.postgres import Postgres, connection
from tests.real.supabase.postgrest import PostgREST
from tests.wait import initialised, until

pytestmark = pytest.mark.integration
UNUSED = timedelta(hours=26, minutes=1)


class Worker:
    """A worker's relay, and the Redis that the worker uses."""

    def __init__(self, store: SupabaseStore, cache: RedisCache, server: RedisServer) -> None:
        self.cache = cache
        self.server = server
        self.relay = OutboxRelay(lambda: store, ConsistencyWatch(lambda: store, 0.0))

    async def poll(self) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("companion.caching.outbox_relay.get_redis_cache", self._cache)
            patch.setattr("companion.caching.recent_changes.get_redis_cache", self._cache)
            return await self.relay.deliver_pending(older_than=0)

    async def invalidate_written(self, user: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("companion.caching.outbox_relay.get_redis_cache", self._cache)
            await self.relay.invalidate_written(user, "profile")
        await self.relay.close()

    async def redeliver_recent(self) -> bool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("companion.caching.recent_changes.get_redis_cache", self._cache)
            return await self.relay.recent.redeliver()

    def holds(self, user: str) -> bool:
        return self.server.cli("EXISTS", keys.profile(user)) == 1

    def fill(self, user: str) -> None:
        self.server.cli("SET", keys.profile(user), "old")

    async def _cache(self) -> RedisCache:
        return self.cache


Start = Callable[[RedisServer], Awaitable[Worker]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def dsn(postgres: Postgres) -> str:
    return await postgres.create_database()


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    async with connection(dsn) as superuser:
        await superuser.execute("truncate companion_caches, companion_profiles")
        await superuser.execute("truncate companion_outbox")  # where the line before has been counted
        yield superuser


@pytest.fixture
async def store(dsn: str, db: asyncpg.Connection) -> AsyncIterator[SupabaseStore]:
    async with PostgREST(dsn) as api:
        store = SupabaseStore(api.url, api.secret_key)
        yield store
        await store.close()


@pytest.fixture
async def start(store: SupabaseStore) -> AsyncIterator[Start]:
    caches: list[RedisCache] = []

    async def start(server: RedisServer) -> Worker:
        cache = RedisCache(settings=CacheSettings(url=server.url, deadline=2.0, connect_wait=5.0))
        caches.append(cache)
        await initialised(cache)
        return Worker(store, cache, server)

    yield start
    await asyncio.gather(*(cache.close() for cache in caches))


@pytest.fixture
async def production(start: Start, redis_server: RedisServer) -> Worker:
    """A worker of the registered cache."""
    worker = await start(redis_server)
    assert await worker.poll() == 0
    return worker


@pytest.fixture
async def laptop(start: Start, own_redis: RedisServer, production: Worker) -> Worker:
    """A worker with the same store and another Redis, which came later."""
    return await start(own_redis)


async def pending(store: SupabaseStore) -> list[str]:
    return [row.user_id for row in await store.pending_changes()]


async def unused(db: asyncpg.Connection, age: timedelta = UNUSED) -> None:
    await db.execute("update companion_caches set used_at = now() - $1::interval", age)


async def test_another_cache_hears_and_acknowledges_nothing(
    production: Worker, laptop: Worker, store: SupabaseStore, user: str
) -> None:
    production.fill(user)
    laptop.fill(user)
    await store.save_profile(user, "new")
    assert await laptop.poll() == 0
    assert not laptop.holds(user)
    assert production.holds(user)
    assert await pending(store) == [user]
    assert await production.poll() == 1
    assert not production.holds(user)
    assert await pending(store) == []


async def test_what_another_cache_writes_is_delivered_to_the_registered_one(
    production: Worker, laptop: Worker, store: SupabaseStore, user: str
) -> None:
    production.fill(user)
    laptop.fill(user)
    await store.save_profile(user, "from the laptop")
    await laptop.invalidate_written(user)
    assert not laptop.holds(user)
    assert await pending(store) == [user]
    assert await production.poll() == 1
    assert not production.holds(user)


async def test_a_write_through_the_registered_cache_is_acknowledged(
    production: Worker, start: Start, store: SupabaseStore, user: str
) -> None:
    another = await start(production.server)  # which has not polled yet
    for worker in (production, another):
        await store.save_profile(user, "new")
        await worker.invalidate_written(user)
        assert await pending(store) == []


async def test_every_worker_of_one_redis_is_one_of_the_registered_cache(
    production: Worker, start: Start, store: SupabaseStore, db: asyncpg.Connection, user: str
) -> None:
    await store.save_profile(user, "new")
    assert await (await start(production.server)).poll() == 1
    assert [row["id"] for row in await db.fetch("select id from companion_caches")] == [
        production.server.cli("GET", KEY)
    ]


async def test_a_new_redis_works_at_once_and_takes_over_when_the_old_one_is_unused(
    production: Worker, laptop: Worker, store: SupabaseStore, db: asyncpg.Connection, user: str
) -> None:
    """A production that moves: nothing is to be done by hand."""
    moved = laptop
    assert await moved.poll() == 0
    await unused(db, UNUSED - timedelta(hours=1))
    assert await moved.poll() == 0
    await store.save_profile(user, "new")
    await production.invalidate_written(user)  # still in use, and so it stays
    await store.save_profile(f"{user}-2", "new")
    assert await moved.poll() == 0
    await unused(db)
    assert await moved.poll() == 1
    assert await pending(store) == []
    await store.save_profile(user, "newer")
    assert await production.poll() == 0  # it is the other one now
    assert await pending(store) == [user]


async def test_a_cache_that_takes_over_has_heard_what_the_other_one_acknowledged(
    production: Worker, laptop: Worker, store: SupabaseStore, db: asyncpg.Connection, user: str
) -> None:
    laptop.fill(user)
    await store.save_profile(user, "new")
    assert await production.poll() == 1
    await unused(db)
    assert await laptop.poll() == 0  # nothing is pending, and yet
    assert not laptop.holds(user)
    assert await db.fetchval("select id from companion_caches") == laptop.server.cli("GET", KEY)


async def test_an_operator_may_make_room(
    production: Worker, laptop: Worker, store: SupabaseStore, db: asyncpg.Connection, user: str
) -> None:
    await store.save_profile(user, "new")
    assert await laptop.poll() == 0
    await db.execute("delete from companion_caches")
    assert await laptop.poll() == 1


async def test_a_flushed_redis_gets_its_id_back(
    production: Worker, start: Start, laptop: Worker, store: SupabaseStore, user: str
) -> None:
    known = production.server.cli("GET", KEY)
    production.server.cli("FLUSHALL")
    await store.save_profile(user, "new")
    assert await production.poll() == 1
    assert production.server.cli("GET", KEY) == known
    production.server.cli("SET", KEY, "another")  # as on a new server behind the same address
    await store.save_profile(user, "newer")
    assert await production.poll() == 1
    assert production.server.cli("GET", KEY) == known
    laptop.server.cli("SET", KEY, "new")
    assert await laptop.poll() == 0
    assert laptop.server.cli("GET", KEY) == "new"


async def test_the_first_of_several_is_registered(
    start: Start, redis_server: RedisServer, own_redis: RedisServer, store: SupabaseStore
) -> None:
    answers = await asyncio.gather(*(store.register_cache(f"{n}", take_over=n % 2 == 0) for n in range(8)))
    assert sum(answers) == 1


async def test_what_one_worker_of_a_cache_has_heard_the_next_does_not_invalidate_again(
    production: Worker, laptop: Worker, start: Start, store: SupabaseStore, db: asyncpg.Connection, user: str
) -> None:
    for name in (f"{user}-1", f"{user}-2"):
        await store.save_profile(name, "new")
    await db.execute("update companion_outbox set written_at = now() - interval '1 hour' where user_id like '%-1'")
    await laptop.poll()
    laptop.fill(f"{user}-1")
    laptop.fill(f"{user}-2")
    await (await start(laptop.server)).poll()
    assert laptop.holds(f"{user}-1")
    assert not laptop.holds(f"{user}-2")  # lately: the clocks may differ
    laptop.server.cli("FLUSHALL")
    laptop.fill(f"{user}-1")
    await (await start(laptop.server)).poll()
    assert not laptop.holds(f"{user}-1")


async def test_a_redis_that_is_away_acknowledges_nothing(
    start: Start, own_redis: RedisServer, store: SupabaseStore, user: str
) -> None:
    worker = await start(own_redis)
    own_redis.stop()
    await store.save_profile(user, "new")
    assert await worker.poll() == 0
    await worker.invalidate_written(user)
    assert await pending(store) == [user]


def test_an_unused_cache_outlives_every_value_in_it() -> None:
    assert UNUSED.total_seconds() > MAX_LIFETIME + 300


# -- PostgREST's cap -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changed", "one_by_one"), [(1000, True), (1200, False)])
async def test_a_restored_redis_serves_nothing_old(
    production: Worker, db: asyncpg.Connection, changed: int, one_by_one: bool
) -> None:
    """A list of 1,000 rows may be one that PostgREST has cut: 200 of 1,200 changed users would keep old profiles."""
    users = [f"u{number}" for number in range(changed)]
    await db.execute("insert into companion_profiles (user_id, text) select unnest($1::text[]), 'new'", users)
    production.server.cli("MSET", *(part for user in users for part in (keys.profile(user), "old")))
    assert await production.redeliver_recent() is one_by_one  # False: all users' values are deleted
    left = sum(production.holds(user) for user in (users[0], users[-1])) if one_by_one else 0
    assert left == 0


async def test_another_cache_clears_what_is_too_much_for_one_list(laptop: Worker, db: asyncpg.Connection) -> None:
    users = [f"u{number}" for number in range(1200)]
    await db.execute("insert into companion_profiles (user_id, text) select unnest($1::text[]), 'new'", users)
    laptop.server.cli("MSET", *(part for user in users for part in (keys.profile(user), "old")))
    await laptop.poll()
    await until(lambda: laptop.server.cli("KEYS", "user:*") == [])  # by a scan in the background
