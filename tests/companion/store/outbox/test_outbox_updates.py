"""The outbox in PostgreSQL stays small however often it is updated, and its pending rows are found by an index."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from companion.store import OutboxRow, SupabaseStore
from tests.companion.store.outbox.test_outbox import ALL
from tests.real.supabase.postgres import MIGRATIONS, Postgres, connection, migrate

pytestmark = pytest.mark.integration
# As many conversations do: each turn is written, delivered, and acknowledged.
CONVERSATIONS = """
do $$
declare delivered bigint;
begin
  for turn in 1..100 loop
    for person in 1..30 loop
      insert into companion_turns (user_id, id, conversation_id, role, text, at)
      values ('person ' || person, turn::text, 'c', 'user', 'x', now());
      commit;
      select version into delivered from companion_outbox where user_id = 'person ' || person and what = 'turn';
      perform companion_settle(jsonb_build_array(
        jsonb_build_object('user_id', 'person ' || person, 'what', 'turn', 'version', delivered)
      ));
      commit;
    end loop;
  end loop;
end
$$
"""
# As a program does that writes rows which are there already.
ELSEWHERE = """
do $$
begin
  for round in 1..50 loop
    for person in 1..30 loop
      update companion_turns set text = round::text where user_id = 'person ' || person and id = '1';
      commit;
    end loop;
  end loop;
end
$$
"""
AGE = "update companion_outbox set written_at = written_at - interval '6 minutes' where user_id = $1"


@pytest.fixture
async def db(project: str) -> AsyncIterator[asyncpg.Connection]:
    async with connection(project) as superuser:
        yield superuser


async def active(db: asyncpg.Connection, user: str) -> dict[str, bool]:
    rows = await db.fetch("select what, active from companion_outbox where user_id = $1", user)
    return {row["what"]: row["active"] for row in rows}


async def test_updates_reuse_the_space_of_their_row(postgres: Postgres) -> None:
    async with connection(await postgres.create_database()) as db:
        await db.execute("""select set_config('request.headers', '{"x-companion": "1"}', false)""")
        await db.execute(CONVERSATIONS)
        await db.execute("select set_config('request.headers', '', false)")
        await db.execute(ELSEWHERE)
        await db.execute("select pg_stat_force_next_flush()")
        query = (
            "select n_tup_upd, n_tup_hot_upd, pg_total_relation_size(relid) as bytes from pg_stat_user_tables"
            " where relname = $1"
        )
        tables = {"companion_outbox": 7_470, "companion_versions": 4_470, "companion_changes": 1_470}
        for table, updates in tables.items():
            row = await db.fetchrow(query, table)
            assert row["n_tup_upd"] == updates
            assert row["n_tup_hot_upd"] > 0.95 * updates  # an hour that begins meanwhile changes each row once
            assert row["bytes"] < 150_000  # most of it three indexes; it was 370,000


async def test_a_row_is_active_for_a_while(db: asyncpg.Connection, supabase_store: SupabaseStore, user: str) -> None:
    await supabase_store.save_state(user, {})
    await supabase_store.save_profile(user, "x")
    await supabase_store.acknowledge([OutboxRow(user, "state", 1)])
    await supabase_store.pending_changes()
    assert await active(db, user) == {"state": True, "profile": True}
    await db.execute(AGE, user)
    assert OutboxRow(user, "profile", 1) in await supabase_store.pending_changes(1_000)
    assert await active(db, user) == {"state": False, "profile": True}  # what is pending stays so, however old
    await supabase_store.save_state(user, {"n": 1})
    assert await active(db, user) == {"state": True, "profile": True}
    assert set(await supabase_store.pending_changes_of(user, ALL)) == {
        OutboxRow(user, "state", 2),
        OutboxRow(user, "profile", 1),
    }


async def test_what_was_pending_before_is_pending(postgres: Postgres) -> None:
    write = "insert into companion_states values ($1, '{}')"
    async with connection(await postgres.create_database(migrated=False)) as db:
        for file in sorted(MIGRATIONS.glob("*.sql")):
            if file.name < "20261129000410":
                await db.execute(file.read_text(encoding="utf-8"))
        for person in ("pending", "acknowledged"):
            await db.execute(write, person)
        settled = """[{"user_id": "acknowledged", "what": "state", "version": 1}]"""
        await db.execute("select companion_settle($1)", settled)
        await migrate(db)
        await migrate(db)
        assert await db.fetch("select user_id from companion_outbox_pending(9, 0)") == [("pending",)]
        assert (await active(db, "pending"), await active(db, "acknowledged")) == ({"state": True}, {"state": False})
        recent = await db.fetch("select user_id from companion_outbox_recent(9, 9)")
        assert {row[0] for row in recent} == {"pending", "acknowledged"}


async def plan(db: asyncpg.Connection, query: str) -> str:
    async with db.transaction():
        await db.execute("set local enable_seqscan = off; set local enable_bitmapscan = off")
        rows: list[Any] = await db.fetch(f"explain select * from {query} limit 100")
    return "\n".join(row[0] for row in rows)


async def test_each_reading_has_an_index(db: asyncpg.Connection) -> None:
    """Hour by hour, and block by block: so each reads about as much as it returns."""
    for query, index in {
        "companion_outbox where active and version > delivered order by written_in, written_at": "outbox_active",
        "companion_outbox where written_in > now() - interval '2 hours' order by written_in desc, written_at desc": (
            "outbox_by_hour"
        ),
        "companion_changes where xact_block >= 9 order by xact_block, xact, user_id, what": "changes_by_block",
    }.items():
        found = await plan(db, query)
        assert "Incremental Sort" in found
        assert f"using companion_{index}" in found.replace("Backward ", "")
