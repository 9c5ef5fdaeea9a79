"""A write that PostgreSQL has undone in favour of another transaction is sent again at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import asyncpg
import pytest

from companion.store import StoreError, SupabaseStore, Turn
from tests.real.supabase.postgres import connection
from tests.real.supabase.postgrest import PostgREST
from tests.wait import until

pytestmark = pytest.mark.integration
STATE = "insert into companion_states values ($1, '{}') on conflict (user_id) do update set state = excluded.state"


@pytest.fixture
async def editors(project: str) -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Connection, asyncpg.Connection]]:
    """Users of SQL editors, who never are the victims."""
    async with AsyncExitStack() as stack:
        first, second, third = [await stack.enter_async_context(connection(project)) for _ in range(3)]
        for editor in (first, second, third):
            await editor.execute("set deadlock_timeout = '10min'")
        yield first, second, third


@asynccontextmanager
async def store_with(project: str, setting: str) -> AsyncIterator[tuple[SupabaseStore, PostgREST]]:
    async with PostgREST(f"{project}&{setting}") as api:
        store = SupabaseStore(api.url, api.secret_key)
        try:
            yield store, api
        finally:
            await store.close()


def is_waiting(db: asyncpg.Connection, for_what: str) -> Callable[[], Awaitable[bool]]:
    """Whether a connection waits for a lock in a query that contains a text."""

    async def look() -> bool:
        query = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and strpos(query, $1) > 0"
        return bool(await db.fetchval(f"{query} and pid <> pg_backend_pid()", for_what))

    return look


async def test_the_victim_of_a_deadlock_is_written_again(
    project: str, user: str, editors: tuple[asyncpg.Connection, asyncpg.Connection, asyncpg.Connection]
) -> None:
    editor, other, watch = editors
    async with store_with(project, "deadlock_timeout=50ms") as (store, api):
        await store.save_profile(user, "before")
        api.requests = 0
        async with editor.transaction():
            await editor.execute(STATE, user)  # and so has the user's version
            async with other.transaction():  # stops the write when it has the profile and not yet the version
                await other.execute("lock table companion_profile_versions in access exclusive mode")
                writing = asyncio.create_task(store.save_profile(user, "by the worker"))
                await until(is_waiting(watch, "companion_write_profile"))
                by_hand = "update companion_profiles set text = 'by hand' where user_id = $1"
                editing = asyncio.create_task(editor.execute(by_hand, user))
                await until(is_waiting(watch, by_hand))
            await editing
        await writing
        assert await store.get_profile(user) == "by the worker"
        texts = [version.text for version in await store.profile_versions(user)]
        assert texts == ["by the worker", "by hand", "before"]
        assert api.requests == 4  # the first, the second, and the two reads


async def test_a_write_that_cannot_be_serialised_is_written_again(
    project: str, user: str, editors: tuple[asyncpg.Connection, asyncpg.Connection, asyncpg.Connection]
) -> None:
    editor, _, watch = editors
    async with store_with(project, "default_transaction_isolation=repeatable%20read") as (store, api):
        async with editor.transaction():
            await editor.execute(STATE, user)
            writing = asyncio.create_task(store.add_turn(user, Turn("user", "hello", datetime.now(UTC), "c")))
            await until(is_waiting(watch, "companion_turns"))
        await writing
        assert api.requests == 2
        assert [turn.text for turn in await store.recent_turns(user)] == ["hello"]


async def test_one_that_is_undone_each_time_fails(supabase_store: SupabaseStore, api: PostgREST, user: str) -> None:
    with api.failing("deadlock"), pytest.raises(StoreError, match="save_profile failed: HTTP 500 40P01"):
        await supabase_store.save_profile(user, "x")
    assert api.requests == 3
