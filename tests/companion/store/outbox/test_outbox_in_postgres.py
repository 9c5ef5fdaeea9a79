"""The outbox in PostgreSQL: every client's writes are counted, and transactions wait for each other only briefly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from companion.store import OutboxRow, StoreError, SupabaseStore
from tests.companion.store.outbox.test_outbox import ALL
from tests.real.supabase.postgres import MIGRATIONS, Postgres, connection, migrate
from tests.wait import until

pytestmark = pytest.mark.integration
PROFILE = (
    "insert into companion_profiles values ($1, 'x') on conflict (user_id) do update set text = excluded.text || 'x'"
)
MEMORY = "insert into companion_memories values ($1, gen_random_uuid()::text, gen_random_uuid()::text, now())"
SAME_MEMORY = "insert into companion_memories values ($1, gen_random_uuid()::text, 'x', now())"
STATE = "insert into companion_states values ($1, '{}') on conflict (user_id) do update set state = excluded.state"


@pytest.fixture
async def two(project: str) -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Connection]]:
    """Two users of SQL editors."""
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(connection(project)) for _ in range(2)]
        yield first, second


@pytest.fixture
async def db(two: tuple[asyncpg.Connection, asyncpg.Connection]) -> asyncpg.Connection:
    return two[0]


async def counters(db: asyncpg.Connection, user: str) -> dict[str, tuple[int, int]]:
    rows = await db.fetch("select what, version, delivered from companion_outbox where user_id = $1", user)
    return {row["what"]: (row["version"], row["delivered"]) for row in rows}


async def waiting(db: asyncpg.Connection, *, pid: int | None = None) -> int:
    """The number of connections that wait for a lock: connection `pid`, or those that acknowledge."""
    return int(
        await db.fetchval(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            " and ($1::int is null and query like '%companion_settle%' or pid = $1)",
            pid,
        )
    )


async def test_changes_of_any_client_are_counted(db: asyncpg.Connection, user: str) -> None:
    heir = f"{user}-heir"
    await db.execute(PROFILE, user)
    await db.execute("update companion_profiles set text = 'by hand' where user_id = $1", user)
    async with db.transaction():
        await db.execute("set local role service_role")
        await db.execute(PROFILE, user)
        await db.execute(STATE, user)
    assert await counters(db, user) == {"profile": (3, 0), "state": (1, 0)}
    await db.execute("update companion_profiles set user_id = $2 where user_id = $1", user, heir)
    await db.execute("delete from companion_states where user_id = $1", user)
    await db.execute("delete from companion_states where user_id = $1", user)
    assert await counters(db, user) == {"profile": (4, 0), "state": (2, 0)}
    assert await counters(db, heir) == {"profile": (1, 0)}


async def test_a_write_that_is_rolled_back_is_not_pending(db: asyncpg.Connection, user: str) -> None:
    undone = db.transaction()
    await undone.start()
    await db.execute(PROFILE, user)
    assert await counters(db, user) == {"profile": (1, 0)}
    await undone.rollback()
    assert await counters(db, user) == {}


async def test_all_rows_deleted_count_for_everybody(db: asyncpg.Connection, user: str) -> None:
    await db.execute(PROFILE, user)
    await db.execute(STATE, f"{user}-2")
    undone = db.transaction()
    await undone.start()
    await db.execute("truncate companion_profiles")
    # It is unknown which users had a profile: any may have had one.
    assert (await counters(db, user), await counters(db, f"{user}-2")) == (
        {"profile": (2, 0)},
        {"profile": (1, 0), "state": (1, 0)},
    )
    await undone.rollback()


@pytest.mark.parametrize(("memory", "written"), [(MEMORY, 2), (SAME_MEMORY, 1)])
async def test_two_writers_in_different_orders_do_not_deadlock(
    two: tuple[asyncpg.Connection, asyncpg.Connection], user: str, memory: str, written: int
) -> None:
    first, second = two

    async def the_other_way_round() -> None:
        async with second.transaction():
            await second.execute(memory, user)
            await second.execute(PROFILE, user)

    async with first.transaction():
        await first.execute(PROFILE, user)
        other = asyncio.create_task(the_other_way_round())
        await until(lambda: waiting(first, pid=second.get_server_pid()))
        await first.execute(memory, user)
    await other
    assert await counters(first, user) == {"profile": (2, 0), "memory": (written, 0)}


async def test_acknowledging_gives_way_to_a_long_transaction(
    two: tuple[asyncpg.Connection, asyncpg.Connection], supabase_store: SupabaseStore, user: str
) -> None:
    db, watch = two
    await supabase_store.save_profile(user, "x")
    await supabase_store.save_state(user, {})
    async with db.transaction():
        await db.execute(STATE, user)
        acknowledging = asyncio.create_task(
            supabase_store.acknowledge(await supabase_store.pending_changes_of(user, ALL))
        )
        await until(lambda: waiting(watch))  # it has the row of the profile and wants the other
        await db.execute(PROFILE, user)  # and we want the row it has
    # Its wait for the lock has ended; a deadlock that PostgreSQL resolved would be 40P01, here or above.
    with pytest.raises(StoreError, match="acknowledge failed: HTTP 500 55P03"):
        await acknowledging
    assert set(await supabase_store.pending_changes_of(user, ALL)) == {
        OutboxRow(user, "profile", 2),
        OutboxRow(user, "state", 2),
    }


async def test_two_acknowledgements_in_different_orders_do_not_deadlock(
    two: tuple[asyncpg.Connection, asyncpg.Connection], supabase_store: SupabaseStore, user: str
) -> None:
    db, watch = two
    await supabase_store.save_profile(user, "x")
    await supabase_store.save_state(user, {})
    rows = [OutboxRow(user, "profile", 1), OutboxRow(user, "state", 1)]
    async with db.transaction():  # blocks both, so that they continue concurrently
        await db.execute("select from companion_outbox where user_id = $1 and what = 'profile' for update", user)
        acknowledging = asyncio.gather(supabase_store.acknowledge(rows), supabase_store.acknowledge(rows[::-1]))

        async def both_wait() -> bool:
            return await waiting(watch) == 2

        await until(both_wait)
    await acknowledging
    assert await supabase_store.pending_changes_of(user, ALL) == []


async def test_a_project_with_data_from_before(postgres: Postgres, user: str) -> None:
    dsn = await postgres.create_database(migrated=False)
    async with connection(dsn) as db:
        await db.execute((MIGRATIONS / "20261125000000_companion.sql").read_text(encoding="utf-8"))
        await db.execute(PROFILE, user)
        await migrate(db)
        assert json.loads(await db.fetchval("select companion_context($1)", user)) == {
            "profile": "x",
            "turns": [],
            "summary": None,
            "state": None,
            "version": 1,
        }
        assert await counters(db, user) == {}
        await db.execute(PROFILE, user)
        assert await counters(db, user) == {"profile": (1, 0)}


@pytest.mark.parametrize("state", ["[]", "null", '"x"', "1"])
async def test_a_state_is_an_object(db: asyncpg.Connection, user: str, state: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute("insert into companion_states values ($1, $2)", user, state)
