"""The migrations: idempotent, row level security, versions, and the context in one request."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from postgrest import APIError
from supabase import AsyncClient

from companion.store.search_terms import STOP_WORDS
from tests.real.supabase.postgres import MIGRATIONS, Postgres, connection, migrate
from tests.real.supabase.postgrest import PostgREST

pytestmark = pytest.mark.integration
COUNTED = ["companion_versions", "companion_outbox"]  # written by triggers alone
HISTORY = "companion_profile_versions"  # likewise, but its rows can be deleted
REMOVED = ["companion_removed_memories", "companion_forgotten"]  # likewise; users read neither: ids and hashes alone
TABLES = [
    "companion_profiles",
    "companion_turns",
    "companion_memories",
    "companion_summaries",
    "companion_states",
    "companion_openings",
    *COUNTED,
    HISTORY,
]
FILES = sorted(MIGRATIONS.glob("*.sql"))
NOTHING = {"profile": None, "turns": [], "summary": None, "state": None, "version": 0}


@pytest.fixture
async def db(project: str) -> AsyncIterator[asyncpg.Connection]:
    async with connection(project) as superuser:
        yield superuser


async def fill(db: asyncpg.Connection, user: str) -> None:
    await db.execute("insert into companion_profiles (user_id, text) values ($1, 'profile')", user)
    await db.execute(
        "insert into companion_turns (user_id, id, conversation_id, role, text, at)"
        " select $1, n::text, 'c', 'user', 'turn ' || n, timestamptz '2026-03-01 12:00+00' + n * interval '1 second'"
        " from generate_series(1, 3) n",
        user,
    )
    await db.execute("insert into companion_memories values ($1, 'm', 'has a dog', now())", user)
    await db.execute("insert into companion_summaries values ($1, 'c', 'about a dog', '2026-03-01 12:00+00')", user)
    await db.execute("""insert into companion_states values ($1, '{"stage": 2}')""", user)
    await db.execute("insert into companion_openings values ($1, 7, '{}', null, 'p', '2026-03-01 12:00+00')", user)


async def version(db: asyncpg.Connection, user: str) -> int:
    return int(json.loads(await db.fetchval("select companion_context($1)", user))["version"])


def test_files_are_named_as_supabase_wants_them() -> None:
    names = [file.name for file in MIGRATIONS.iterdir()]
    assert names
    assert all(re.fullmatch(r"\d{14}_[a-z0-9_]+\.sql", name) for name in names)
    assert len({name.partition("_")[0] for name in names}) == len(names)  # a version is applied once


@pytest.mark.parametrize("open_by_default", [False, True])
async def test_applying_twice_changes_nothing(postgres: Postgres, user: str, open_by_default: bool) -> None:
    dsn = await postgres.create_database(open_by_default=open_by_default)
    async with connection(dsn) as db:
        await fill(db, user)
        before = await db.fetchval("select companion_context($1)", user)
        shape = await _shape(db)
        await migrate(db)
        assert await db.fetchval("select companion_context($1)", user) == before
        assert await _shape(db) == shape


async def _shape(db: asyncpg.Connection) -> list[Any]:
    """The schema after a migration: columns, indexes, triggers, policies, grants."""
    return [
        await db.fetch(query)
        for query in (
            "select table_name, column_name, data_type from information_schema.columns"
            " where table_schema = 'public' order by 1, 2",
            "select indexname, indexdef from pg_indexes where schemaname = 'public' order by 1",
            "select tgrelid::regclass::text, tgname from pg_trigger where not tgisinternal order by 1, 2",
            "select tablename, policyname, roles, qual from pg_policies order by 1, 2",
            "select relname, relacl::text, relrowsecurity from pg_class where relname like 'companion%' order by 1",
            "select proname, proacl::text from pg_proc where proname like 'companion%' order by 1",
        )
    ]


@pytest.mark.parametrize("open_by_default", [False, True])
@pytest.mark.parametrize("table", [*TABLES, *REMOVED])
async def test_only_the_service_role_writes(databases: dict[bool, str], open_by_default: bool, table: str) -> None:
    async with connection(databases[open_by_default]) as db:
        for role in ("anon", "authenticated", *(["service_role"] if table in [*COUNTED, HISTORY, *REMOVED] else [])):
            for statement in (
                f"insert into {table} (user_id) values ('x')",
                f"update {table} set user_id = 'x'",
                f"delete from {table}",
                f"truncate {table}",
            ):
                if table in (HISTORY, *REMOVED) and role == "service_role" and statement.startswith("delete"):
                    continue
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await _as(db, role, statement)
        for role in ("anon", *(["authenticated"] if table in REMOVED else [])):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await _as(db, role, f"select * from {table}")


@pytest.mark.parametrize("open_by_default", [False, True])
@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
async def test_no_role_reads_tombstones(databases: dict[bool, str], open_by_default: bool, role: str) -> None:
    async with connection(databases[open_by_default]) as db:
        for statement in (
            "select * from companion_erasures",
            "delete from companion_erasures",
            "select * from companion_erasure_key",
            "update companion_erasure_key set key = 'mine'",
            "select companion_person('x')",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await _as(db, role, statement)


@pytest.mark.parametrize("migration", [pytest.param(file.read_text(), id=file.stem) for file in FILES])
async def test_one_of_them_alone_brings_nothing_back(db: asyncpg.Connection, migration: str) -> None:
    """Each migration applied again, without the later ones."""
    query = (
        "select p.oid::regprocedure::text || pg_get_functiondef(p.oid) from pg_proc p"
        " join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'public' and p.proname like 'companion%'"
    )
    before = {row[0] for row in await db.fetch(query)}
    transaction = db.transaction()
    await transaction.start()
    try:
        await db.execute(migration)
        assert before <= {row[0] for row in await db.fetch(query)}
    finally:
        await transaction.rollback()


@pytest.mark.parametrize("open_by_default", [False, True])
async def test_functions_are_for_those_who_need_them(databases: dict[bool, str], open_by_default: bool) -> None:
    for_users = (
        "companion_context('x')",
        "companion_search('x', 'y')",
        "companion_words('x')",
        "companion_fact_key('x')",
        "companion_count('x', 'y')",
        "companion_start('x', 1, 1)",
        "companion_begin('x', 1, 1)",
        "companion_open('x', 1, 1)",
        "companion_opening('x')",
        "companion_last_turns('x', 1)",
        "companion_latest_summary('x')",
        "companion_last_turns_json('x', 1)",
        "companion_search_json('x', 'y', 1)",
        "companion_profile_versions_json('x', 1)",
    )
    for_the_service = (
        "companion_written(1, 1)",
        "companion_swap_profile('x', 'y', 'z', now())",
        "companion_write_profile('x', 'y', now(), 'code', null, null, true)",
        "companion_profile_for_write('x', 'y')",
        "companion_restore_profile('x', 1)",
        "companion_owed()",
        "companion_outbox_pending(1, 0)",
        "companion_outbox_recent(1, 1)",
        "companion_owed_by('x', '{turn}')",
        "companion_settle('[]')",
        "companion_forget('x', 'y')",
        "companion_forget_things('x', '[]')",
        "companion_erase('x')",
        "companion_move('{x}', 'y')",
        "companion_latest_erasure()",
        "companion_is_erased('x', 0)",
        "companion_pending_erasures(1)",
        "companion_erasure_delivered('x', 1)",
        "companion_export('x')",
        "companion_export_all('x')",
        "companion_save_opening('x', 1, '{}', null, 'p', now())",
        "companion_claim_openings('p', 1, 1)",
        "companion_expire_turns(1)",
        "companion_written_json(1, 1)",
        "companion_pending_json(1, 0)",
        "companion_pending_erasures_json(1)",
        "companion_forgotten_json('x')",
        "companion_register_cache('x', false)",
        "companion_settle_in('[]', 'x')",
    )
    async with connection(databases[open_by_default]) as db:
        for function in (*for_users, *for_the_service):
            await _as(db, "service_role", f"select {function}")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await _as(db, "anon", f"select {function}")
        for function in for_the_service:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await _as(db, "authenticated", f"select {function}")


async def _as(db: asyncpg.Connection, role: str, statement: str) -> None:
    async with db.transaction():
        await db.execute(f"set local role {role}")
        await db.execute(statement)


async def rows(supabase: AsyncClient, table: str, user: str) -> int:
    return len((await supabase.table(table).select("user_id").eq("user_id", user).execute()).data)


@pytest.fixture
async def two_users(db: asyncpg.Connection) -> tuple[str, str]:
    mine, theirs = str(uuid4()), str(uuid4())
    for user in (mine, theirs):
        await fill(db, user)
    return mine, theirs


@pytest.mark.parametrize("kind", ["publishable_key", "anon_key"])
async def test_a_public_key_sees_nothing(api: PostgREST, two_users: tuple[str, str], kind: str) -> None:
    anybody = api.client(getattr(api, kind))
    for user in two_users:
        for table in TABLES:
            with pytest.raises(APIError) as caught:
                await rows(anybody, table, user)
            assert caught.value.code == "42501"
        with pytest.raises(APIError) as caught:
            await anybody.rpc("companion_context", {"p_user_id": user}).execute()
        assert caught.value.code == "42501"
    await anybody.postgrest.aclose()


@pytest.mark.parametrize("kind", ["publishable_key", "anon_key"])
async def test_a_signed_in_user_reads_their_own_and_writes_nothing(
    api: PostgREST, two_users: tuple[str, str], kind: str
) -> None:
    mine, theirs = two_users
    me = api.client(getattr(api, kind), api.token("authenticated", sub=mine))
    for table in TABLES:
        assert await rows(me, table, mine) > 0
        assert await rows(me, table, theirs) == 0
        with pytest.raises(APIError) as caught:
            await me.table(table).insert({"user_id": mine}, returning="minimal").execute()
        assert caught.value.code == "42501"
    own = (await me.rpc("companion_context", {"p_user_id": mine}).execute()).data
    other = (await me.rpc("companion_context", {"p_user_id": theirs}).execute()).data
    assert own["profile"] == "profile"
    assert other == NOTHING
    search = {"p_query": "dog", "p_limit": 9}
    assert len((await me.rpc("companion_search", {"p_user_id": mine, **search}).execute()).data) == 1
    assert (await me.rpc("companion_search", {"p_user_id": theirs, **search}).execute()).data == []
    await me.postgrest.aclose()


@pytest.mark.parametrize("kind", ["secret_key", "service_role_key"])
async def test_the_service_role_reads_and_writes_for_all_users(
    api: PostgREST, two_users: tuple[str, str], kind: str
) -> None:
    service = api.client(getattr(api, kind))
    for user in two_users:
        for table in TABLES:
            assert await rows(service, table, user) > 0
        await (
            service.table("companion_profiles")
            .upsert({"user_id": user, "text": "new"}, on_conflict="user_id", returning="minimal")
            .execute()
        )
        assert (await service.rpc("companion_context", {"p_user_id": user}).execute()).data["profile"] == "new"
    await service.postgrest.aclose()


async def test_every_change_counts_and_only_changes_count(db: asyncpg.Connection, user: str) -> None:
    assert await version(db, user) == 0
    await fill(db, user)
    assert await version(db, user) == 7
    await db.execute("insert into companion_memories values ($1, 'm', 'again', now()) on conflict do nothing", user)
    assert await version(db, user) == 7
    await db.execute("update companion_profiles set text = 'edited by hand' where user_id = $1", user)
    assert await version(db, user) == 8
    await db.execute("delete from companion_turns where user_id = $1", user)
    assert await version(db, user) == 11
    await db.execute("update companion_profiles set text = 'x' where user_id = 'nobody'")
    assert await version(db, user) == 11
    async with db.transaction():
        await db.execute("set local role service_role")
        await db.execute("update companion_memories set text = 'x' where user_id = $1", user)
    assert await version(db, user) == 12


async def test_a_row_that_changes_hands_counts_for_both(db: asyncpg.Connection, user: str) -> None:
    heir = f"{user}-heir"
    await fill(db, user)
    await db.execute("update companion_memories set user_id = $2 where user_id = $1", user, heir)
    assert (await version(db, user), await version(db, heir)) == (8, 1)


async def test_versions_never_go_back_and_miss_nothing(project: str, db: asyncpg.Connection, user: str) -> None:
    writing = 4

    async def write(worker: int) -> None:
        nonlocal writing
        async with connection(project) as own:
            for number in range(25):
                await own.execute(
                    "insert into companion_memories values ($1, $2, $2, now())", user, f"{worker}-{number}"
                )
        writing -= 1

    async def read() -> list[int]:
        seen = []
        async with connection(project) as own:
            while writing:
                seen.append(await version(own, user))
        return seen

    seen, *_ = await asyncio.gather(read(), *(write(worker) for worker in range(writing)))
    assert seen == sorted(seen)
    assert await version(db, user) == 100


async def test_a_profile_tells_when_it_changed(db: asyncpg.Connection, user: str) -> None:
    await fill(db, user)
    when = "select updated_at from companion_profiles where user_id = $1"
    before = await db.fetchval(when, user)
    await db.execute("update companion_profiles set text = 'x' where user_id = $1", user)
    assert await db.fetchval(when, user) > before


async def test_the_whole_context_in_one_request(api: PostgREST, db: asyncpg.Connection, user: str) -> None:
    await fill(db, user)
    service = api.client(api.secret_key)
    context = (await service.rpc("companion_context", {"p_user_id": user, "p_turns": 2}).execute()).data
    assert context == {
        "profile": "profile",
        "turns": [
            {
                "id": str(number),
                "conversation_id": "c",
                "role": "user",
                "text": f"turn {number}",
                "at": f"2026-03-01T12:00:0{number}+00:00",
            }
            for number in (2, 3)
        ],
        "summary": {"conversation_id": "c", "text": "about a dog", "at": "2026-03-01T12:00:00+00:00"},
        "state": {"stage": 2},
        "version": 7,
    }
    assert api.requests == 1
    nobody = (await service.rpc("companion_context", {"p_user_id": f"{user}-2"}).execute()).data
    assert nobody == NOTHING
    await service.postgrest.aclose()


async def test_the_last_turns_are_found_by_an_index(db: asyncpg.Connection) -> None:
    async with db.transaction():
        await db.execute("set local enable_seqscan = off; set local enable_bitmapscan = off")  # few rows need none
        plan = await db.fetch("explain select * from companion_turns where user_id = 'x' order by seq desc limit 200")
    assert "companion_turns_by_seq" in "\n".join(row[0] for row in plan)
    assert "Sort" not in "\n".join(row[0] for row in plan)


async def test_reading_functions_are_stable(db: asyncpg.Connection) -> None:
    kinds = await db.fetch("select proname, provolatile, prosecdef from pg_proc where proname like 'companion%'")
    assert {row["proname"]: (row["provolatile"], row["prosecdef"]) for row in kinds} == {
        "companion_context": (b"s", False),
        "companion_search": (b"s", False),
        "companion_words": (b"i", False),
        "companion_record_removed_facts": (b"v", True),
        "companion_touch": (b"v", False),
        "companion_bump_version": (b"v", True),
        "companion_count_writes": (b"v", True),
        "companion_owed": (b"s", False),
        "companion_activate": (b"v", False),
        "companion_outbox_pending": (b"v", True),
        "companion_outbox_recent": (b"s", False),
        "companion_start": (b"s", False),
        "companion_last_turns": (b"s", False),
        "companion_latest_summary": (b"s", False),
        "companion_written": (b"s", False),
        "companion_swap_profile": (b"v", False),
        "companion_record_profiles": (b"v", True),
        "companion_add_profile_version": (b"v", False),
        "companion_write_profile": (b"v", False),
        "companion_profile_for_write": (b"s", False),
        "companion_restore_profile": (b"v", False),
        "companion_owed_by": (b"s", False),
        "companion_settle": (b"v", True),
        "companion_settle_in": (b"v", True),
        "companion_register_cache": (b"v", True),
        "companion_written_json": (b"s", False),
        "companion_pending_json": (b"v", False),
        "companion_pending_erasures_json": (b"v", False),
        "companion_forgotten_json": (b"s", False),
        "companion_last_turns_json": (b"s", False),
        "companion_search_json": (b"s", False),
        "companion_profile_versions_json": (b"s", False),
        "companion_fact_key": (b"i", False),
        "companion_keep_fact_once": (b"v", True),
        "companion_count": (b"s", False),
        "companion_forget": (b"v", False),
        "companion_begin": (b"s", False),
        "companion_forget_things": (b"v", True),
        "companion_forgotten_key": (b"i", False),
        "companion_lines": (b"i", False),
        "companion_mentions": (b"i", False),
        "companion_mentions_forgotten": (b"s", False),
        "companion_plain": (b"i", False),
        "companion_said_again": (b"v", True),
        "companion_refuse_forgotten": (b"v", True),
        "companion_without_lines": (b"i", False),
        "companion_person": (b"s", True),
        "companion_refuse_erased": (b"v", True),
        "companion_erase": (b"v", True),
        "companion_move": (b"v", True),
        "companion_moved": (b"s", True),
        "companion_latest_erasure": (b"s", True),
        "companion_is_erased": (b"s", True),
        "companion_pending_erasures": (b"v", True),
        "companion_erasure_delivered": (b"v", True),
        "companion_export": (b"s", False),
        "companion_export_all": (b"s", False),
        "companion_open": (b"s", False),
        "companion_opening": (b"s", False),
        "companion_save_opening": (b"v", False),
        "companion_claim_openings": (b"v", False),
        "companion_drop_openings": (b"v", True),
        "companion_expire_turns": (b"v", False),
        "companion_changes_since": (b"s", False),
        "companion_changes_after": (b"s", False),
    }


async def test_both_sides_drop_the_same_function_words(db: asyncpg.Connection) -> None:
    assert await db.fetchval("select companion_words($1)", " ".join(STOP_WORDS)) == ""


async def test_a_search_can_use_the_index(db: asyncpg.Connection) -> None:
    async with db.transaction():
        await db.execute("set local enable_seqscan = off")
        plan = await db.fetch("explain select * from companion_memories where words @@ to_tsquery('english', 'dog')")
    assert "companion_memories_by_words" in "\n".join(row[0] for row in plan)
