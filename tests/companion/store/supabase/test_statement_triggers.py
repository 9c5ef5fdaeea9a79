"""Triggers once a statement: what they did row by row, in a time that grows with the rows and not with their square."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from tests.real.supabase.postgres import MIGRATIONS, Postgres, connection, migrate

pytestmark = pytest.mark.integration
BEFORE = [file for file in sorted(MIGRATIONS.glob("*.sql")) if file.name < "20261129000400"]
TURNS = (
    "insert into companion_turns (user_id, id, conversation_id, role, text, at)"
    " select $1, n::text, 'c', 'user', 'turn ' || n, now() from generate_series(1, $2::int) n"
)
FACTS = (
    "insert into companion_memories (user_id, id, text, at)"
    " select $1, n::text, 'fact number ' || n, now() from generate_series(1, $2::int) n"
)
PROFILES = (
    "insert into companion_profiles (user_id, text) select $1 || n, 'x' from generate_series(1, $2::int) n"
    " on conflict (user_id) do update set text = excluded.text || 'x'"
)
MERGE = """
merge into companion_states s using (values ('a'), ('new')) as given (user_id) on s.user_id = given.user_id
when matched then update set state = '{"n": 2}' when not matched then insert (user_id, state) values ('new', '{}')
"""
WORKER = """select set_config('request.headers', '{"x-companion": "1"}', false)"""
ANOTHER_CLIENT = "select set_config('request.headers', '', false)"
STATEMENTS = [
    WORKER,
    "select companion_write_profile('a', 'first', '2026-01-01Z', 'tool', 'w1', null, true)",
    "select companion_write_profile('a', 'second', '2026-01-02Z', 'tool', 'w2', 'first', false)",
    "select companion_write_profile('a', 'second', '2026-01-02Z', 'tool', 'w2', 'first', false)",
    "select companion_write_profile('a', 'second', '2026-01-03Z', 'merge', 'w3', 'second', false)",
    "select companion_restore_profile('a', 1)",
    "insert into companion_profiles (user_id, text) values ('b', 'of b'), ('c', 'of c')",
    ANOTHER_CLIENT,
    "update companion_profiles set text = 'by hand' where user_id in ('a', 'b')",
    "update companion_profiles set text = text",
    "insert into companion_profiles (user_id, text) values ('b', 'again'), ('d', 'of d')"
    " on conflict (user_id) do update set text = excluded.text",
    "insert into companion_profiles (user_id, text) values ('b', 'never') on conflict do nothing",
    "update companion_profiles set user_id = 'e' where user_id = 'd'",
    "update companion_profiles set user_id = 'f', text = 'of f' where user_id = 'e'",
    "delete from companion_profiles where user_id in ('b', 'c')",
    "update companion_profiles set text = 'none' where user_id = 'missing'",
    "insert into companion_turns (user_id, id, conversation_id, role, text, at)"
    " select chr(97 + n % 3), n::text, 'c', 'user', 'turn', now() from generate_series(1, 10) n",
    "insert into companion_turns (user_id, id, conversation_id, role, text, at)"
    " select chr(97 + n % 3), n::text, 'c', 'user', 'turn', now() from generate_series(9, 12) n on conflict do nothing",
    "update companion_turns set user_id = chr(195 - ascii(user_id)) where user_id in ('a', 'b')",
    "update companion_turns set id = 'x' || id where user_id = 'c'",
    "update companion_turns set user_id = 'g' where user_id = 'a'",
    "insert into companion_memories (user_id, id, text, at)"
    " values ('a', '1', 'fact', now()), ('a', '2', 'Fact.', now()), ('b', '1', 'fact', now())",
    "delete from companion_memories where user_id = 'a'",
    "insert into companion_memories (user_id, id, text, at) values ('a', '1', 'fact', now()), ('c', '1', 'c', now())",
    "insert into companion_summaries values ('a', 'c', 'text', now()), ('b', 'c', 'text', now())",
    WORKER,
    "insert into companion_summaries values ('a', 'c', 'new', now()), ('a', 'd', 'text', now())"
    " on conflict (user_id, conversation_id) do update set text = excluded.text",
    "insert into companion_states values ('a', '{}'), ('h', '{}')",
    MERGE,
    ANOTHER_CLIENT,
    "delete from companion_states",
    "delete from companion_turns where user_id <> 'c'",
    "truncate companion_summaries",
    "insert into companion_profiles (user_id, text) values ('c', 'back')",
    "truncate companion_profiles",
]


async def traces(db: asyncpg.Connection) -> list[Any]:
    """What the triggers have left."""
    return [
        await db.fetch(query)
        for query in (
            "select user_id, version from companion_versions order by 1",
            "select user_id, what, version, delivered from companion_outbox order by 1, 2",
            "select user_id, what from companion_changes order by 1, 2",
            "select user_id, text, author, write_id, replaced_at is null from companion_profile_versions"
            " order by 1, version",
            "select user_id, id from companion_removed_memories order by 1, 2",
            "select user_id, id from companion_memories order by 1, 2",
        )
    ]


async def test_they_leave_what_triggers_for_each_row_left(postgres: Postgres) -> None:
    async with (
        connection(await postgres.create_database(migrated=False)) as rows,
        connection(await postgres.create_database()) as statements,
    ):
        for file in BEFORE:
            await rows.execute(file.read_text(encoding="utf-8"))
        for statement in STATEMENTS:
            await rows.execute(statement)
            await statements.execute(statement)
            assert await traces(statements) == await traces(rows), statement
        await migrate(rows)  # a database that holds data
        for statement in STATEMENTS:
            await rows.execute(statement)
            await statements.execute(statement)
            assert await traces(statements) == await traces(rows), statement


async def test_none_runs_after_each_row(postgres: Postgres) -> None:
    """One that does is quadratic as soon as it writes twice to a row."""
    async with connection(await postgres.create_database()) as db:
        each_row, before = 1, 2
        found = await db.fetch(
            "select tgrelid::regclass::text || ': ' || tgname from pg_trigger"
            " where not tgisinternal and tgfoid::regproc::text like '%companion%' and tgtype & $1 <> 0"
            " and tgtype & $2 = 0",
            each_row,
            before,
        )
        assert [row[0] for row in found] == []


async def duration(db: asyncpg.Connection, statement: str, *arguments: object) -> float:
    """Execute a statement; the seconds that the server took for it and its triggers."""
    (plan,) = json.loads(await db.fetchval(f"explain (analyze, format json) {statement}", *arguments))
    return float(plan["Execution Time"]) / 1000


@pytest.mark.parametrize(("insert", "table"), [(TURNS, "companion_turns"), (FACTS, "companion_memories")])
async def test_many_rows_of_one_user(project: str, user: str, insert: str, table: str) -> None:
    """Of ten times as many rows, ten times the time; row by row it was a hundred times, 48 seconds."""
    async with connection(project) as db:
        took = {}
        for count in (2_000, 20_000):
            one = f"{user}-{count}"
            took[count] = [
                await duration(db, insert, one, count),
                await duration(db, f"update {table} set at = now() where user_id = $1", one),
                await duration(db, f"delete from {table} where user_id = $1", one),
            ]
        for few, many in zip(took[2_000], took[20_000], strict=True):
            assert many < max(1.0, 30 * few)  # a second, or what a slow machine makes of it


@pytest.mark.parametrize(
    ("insert", "table", "count"), [(FACTS, "companion_memories", 2_000), (PROFILES, "companion_profiles", 20_000)]
)
async def test_many_rows_where_there_were_few(
    postgres: Postgres, user: str, insert: str, table: str, count: int
) -> None:
    """A session plans a trigger's queries once. The plan for a table of three rows was to read all of it, each time."""
    async with connection(await postgres.create_database()) as db:
        await db.execute(insert, "few", 3)
        await db.execute("analyze")
        await db.execute(insert, "one", 1)
        assert await duration(db, insert, user, count) < 5.0  # half a second; by the wrong plan 40, and 9
        assert await db.fetchval(f"select count(*) from {table} where user_id like $1 || '%'", user) == count
