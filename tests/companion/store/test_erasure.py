"""Erasing and exporting a person, in every store."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from postgrest.types import ReturnMethod

from companion.store import (
    Context,
    Memory,
    Opening,
    PendingErasure,
    PersonData,
    PersonErased,
    SqliteStore,
    Store,
    Summary,
    Thing,
    Turn,
)
from companion.store.sqlite.erasure import PERSONAL_TABLES
from tests.real.supabase.postgres import connection
from tests.real.supabase.postgrest import PostgREST

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
LATER = timedelta(seconds=1)
WORD = "zanzibarquokka"  # only the erased person says it
DAY = 86_400.0
NOTHING = PersonData(None, [], [], [], [], None)


def files_with(folder: Path, word: str) -> list[str]:
    """The names of the files below a folder that hold a word anywhere, in whatever state they are."""
    return [path.name for path in folder.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]


async def fill(store: Store, user: str, word: str = WORD) -> PersonData:
    """Store something of every kind; what an export has to hold, without the versions' numbers and times."""
    turns = [Turn("user", f"I love {word}", NOON, "c1"), Turn("assistant", f"{word} it is", NOON + LATER, "c1")]
    facts = [Memory(f"keeps a {word}", NOON), Memory(f"sold a {word}", NOON + LATER)]
    summary = Summary("c1", f"about {word}", NOON)
    await store.save_profile(user, f"Likes: {word}s")
    await store.save_profile(user, f"Likes: {word}")
    for turn in turns:
        await store.add_turn(user, turn)
    for fact in [*facts, Memory(f"lost a {word}", NOON)]:
        await store.add_memory(user, fact)
    assert await store.remove_memory(user, f"lost a {word}") == 1
    await store.save_summary(user, summary)
    await store.save_state(user, {"stage": word})
    await store.forget(user, [Thing(f"had a {word}")])
    versions = await store.profile_versions(user)
    assert [version.text for version in versions] == [f"Likes: {word}", f"Likes: {word}s"]
    version = (await store.context(user)).version
    opening = Opening(version, {"topic": word}, {"follow_up": f"How is the {word}?"}, "prompt", NOON)
    await store.save_opening(user, opening)
    return PersonData(f"Likes: {word}", versions, turns, facts, [summary], {"stage": word}, opening)


async def test_an_export_holds_everything(store: Store, user: str) -> None:
    expected = await fill(store, user)
    await fill(store, f"{user}-2", "other")
    assert await store.export_user(user) == expected
    assert await store.export_user(f"{user}-3") == NOTHING


async def test_an_erased_person_is_a_stranger(store: Store, user: str) -> None:
    await fill(store, user)
    other = await fill(store, f"{user}-2")
    number = await store.erase_user(user, "r1")
    assert number == await store.latest_erasure() > 0
    assert await store.export_user(user) == NOTHING
    assert await store.context(user) == Context(None, [], None, None)
    assert await store.search_memories(user, WORD) == []
    assert await store.pending_changes_of(user, ["profile", "turn", "memory", "summary", "state"]) == []
    assert await store.export_user(f"{user}-2") == other


async def test_a_request_that_is_repeated_erases_nothing_new(store: Store, user: str) -> None:
    number = await store.erase_user(user, "r1")
    assert await store.erase_user(user, "r1") == number
    assert await store.erase_user(user, "r2") > number


async def test_an_erasure_is_pending_until_the_caches_know(store: Store, user: str) -> None:
    number = await store.erase_user(user, "r1")
    mine = PendingErasure(user, number)
    assert mine in await store.pending_erasures(DAY)
    await store.acknowledge_erasure(replace(mine, number=number - 1))
    assert mine in await store.pending_erasures(DAY)
    await store.acknowledge_erasure(mine)
    assert mine not in await store.pending_erasures(DAY)
    assert await store.latest_erasure() >= number


async def test_an_old_erasure_keeps_no_user_id(store: Store, user: str) -> None:
    mine = PendingErasure(user, await store.erase_user(user, "r1"))
    assert mine not in await store.pending_erasures(-1.0)
    assert mine not in await store.pending_erasures(DAY)


async def test_no_byte_stays_in_an_sqlite_file(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "companion.db")
    for number in range(40):  # pages that are split and merged leave copies of rows behind
        await store.add_turn("u", Turn("user", f"{WORD} " * (number * 7 + 1), NOON, f"c{number}"))
        await store.add_turn("other", Turn("user", "nothing " * (number * 5 + 1), NOON, f"c{number}"))
    await fill(store, "u")
    assert files_with(tmp_path, WORD)
    await store.acknowledge_erasure(PendingErasure("u", await store.erase_user("u", "r1")))
    assert files_with(tmp_path, WORD[:8]) == []
    assert len(await store.recent_turns("other", 100)) == 40
    await store.close()


async def test_no_row_of_any_table_stays_in_sqlite(tmp_path: Path) -> None:
    """Of every table in the file: one that is added later fails here until it is erased too."""
    store = SqliteStore(tmp_path / "companion.db")
    await fill(store, "ada")
    await store.forget("ada", [Thing(f"sold a {WORD}", ("sold",))])
    await store.save_opening("ada", Opening(0, {}, None, "prompt", NOON))
    with closing(sqlite3.connect(tmp_path / "companion.db", isolation_level=None)) as db:

        def held() -> set[str]:
            tables = [row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            with_user = {name for name in tables if any("ada" in row for row in db.execute(f"SELECT * FROM {name}"))}
            columns = {name: [row[1] for row in db.execute(f"PRAGMA table_info({name})")] for name in tables}
            assert {name for name in tables if "user_id" in columns[name]} == {*PERSONAL_TABLES, "erasures"}
            return with_user

        assert held() == {*PERSONAL_TABLES}
        await store.acknowledge_erasure(PendingErasure("ada", await store.erase_user("ada", "r1")))
        assert held() == set()
    await store.close()


async def test_no_row_of_any_table_stays_in_postgres(project: str, supabase_store: Store, user: str) -> None:
    """Of every table in the database: one that a later migration adds fails here until it is erased too."""
    word = f"said{user[:8]}"
    await fill(supabase_store, user, word)
    query = (
        "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = 'public' and c.relkind in ('r', 'p', 'm') and c.relname like 'companion%'"
    )
    async with connection(project) as db:
        await db.execute("update companion_profiles set text = text || ' by hand' where user_id = $1", user)
        tables = [row[0] for row in await db.fetch(query)]
        assert {"companion_changes", "companion_outbox", "companion_erasures"} <= set(tables)
        held = {
            table: await db.fetchval(f"select count(*) from {table} t where t::text ~ $1", f"{user}|{word}")
            for table in tables
        }
        of_no_person = {"companion_erasures", "companion_erasure_key", "companion_caches"}
        assert {table for table, count in held.items() if not count} == of_no_person
        mine = PendingErasure(user, await supabase_store.erase_user(user, "r1"))
        await supabase_store.acknowledge_erasure(mine)
        for table in tables:
            assert not await db.fetchval(f"select count(*) from {table} t where t::text ~ $1", f"{user}|{word}"), table


WRITES: dict[str, Callable[[Store, str, int], Awaitable[object]]] = {
    "save_profile": lambda store, user, since: store.save_profile(user, "Likes: tea", since=since),
    "swap_profile": lambda store, user, since: store.swap_profile(
        user, "Likes: tea", instead_of=None, at=NOON, write_id=uuid4().hex, since=since
    ),
    "add_turn": lambda store, user, since: store.add_turn(user, Turn("user", "tea", NOON, "c2", since=since)),
    "add_memory": lambda store, user, since: store.add_memory(user, Memory("likes tea", NOON, since=since)),
    "save_summary": lambda store, user, since: store.save_summary(user, Summary("c2", "on tea", NOON, since=since)),
    "save_state": lambda store, user, since: store.save_state(user, {"stage": "tea"}, since=since),
    "save_opening": lambda store, user, since: store.save_opening(user, Opening(0, {}, {}, "tea", NOON, since=since)),
}


@pytest.mark.parametrize("name", WRITES)
async def test_what_began_before_an_erasure_is_refused_and_what_begins_later_is_stored(
    store: Store, user: str, name: str
) -> None:
    write, before = WRITES[name], await store.latest_erasure()
    await fill(store, user)
    number = await store.erase_user(user, "r1")
    for since in (before, 0):
        with pytest.raises(PersonErased) as caught:
            await write(store, user, since)
        assert caught.value.operation == name
        assert await store.is_erased(user, since)
    assert await store.export_user(user) == NOTHING
    assert not await store.is_erased(user, number)
    await write(store, user, number)
    assert await store.export_user(user) != NOTHING
    with pytest.raises(PersonErased):
        await write(store, user, before)
    await write(store, f"{user}-2", before)  # the others write on


async def test_a_profile_that_came_back_is_not_replaced_from_before(store: Store, user: str) -> None:
    number = await store.erase_user(user, "r1")
    await store.save_profile(user, "Likes: tea", since=number)
    with pytest.raises(PersonErased):
        await store.swap_profile(user, "Likes: war", instead_of="Likes: tea", at=NOON, since=number - 1)
    (version,) = await store.profile_versions(user)
    await store.save_profile(user, "Likes: coffee", since=number)
    assert await store.restore_profile(user, version.number)
    assert await store.get_profile(user) == "Likes: tea"


async def test_late_writes_beside_an_erasure_never_stay(store: Store, user: str) -> None:
    """Writers that began before run on while the person is erased: every write is before the erasure, or refused."""
    before = await store.latest_erasure()

    async def write(name: str) -> None:
        for _ in range(8):
            with contextlib.suppress(PersonErased):
                await WRITES[name](store, user, before)

    writing = [asyncio.create_task(write(name)) for name in WRITES]
    await asyncio.sleep(0.01)
    await store.erase_user(user, "r1")
    await asyncio.gather(*writing)
    assert await store.export_user(user) == NOTHING


async def test_rows_of_a_worker_of_the_version_before(api: PostgREST, supabase_store: Store, user: str) -> None:
    """It names no erasures: what it writes of an erased person has no effect, and raises no error."""
    old = api.client(api.secret_key)
    old.postgrest.headers["x-companion"] = "1"
    for known in (user, f"{user}-2"):
        await (
            old.table("companion_turns")
            .upsert(
                {
                    "user_id": known,
                    "id": "t0",
                    "conversation_id": "c",
                    "role": "user",
                    "text": "x",
                    "at": NOON.isoformat(),
                },
                returning=ReturnMethod.minimal,
                on_conflict="user_id,id",
                ignore_duplicates=True,
            )
            .execute()
        )
        await supabase_store.erase_user(user, "r1")
        await old.rpc(
            "companion_write_profile",
            {"p_user_id": known, "p_text": "x", "p_at": NOON.isoformat(), "p_author": "code", "p_write_id": None}
            | {"p_instead_of": None, "p_any": True},
        ).execute()
    await old.postgrest.aclose()
    assert await supabase_store.export_user(user) == NOTHING
    assert (await supabase_store.export_user(f"{user}-2")).profile == "x"


async def test_a_worker_of_the_version_before_waits_in_sqlite(tmp_path: Path) -> None:
    """It does not look at tombstones: from the first erasure on its inserts fail, so it keeps them in its spool."""
    store = SqliteStore(tmp_path / "companion.db")
    number = await store.erase_user("u", "r1")
    with closing(sqlite3.connect(tmp_path / "companion.db", isolation_level=None)) as old:
        with pytest.raises(sqlite3.IntegrityError, match="persons were erased"):
            old.execute(
                "INSERT INTO turns (user_id, id, conversation_id, role, text, at) VALUES ('u','1','c','user','x',1)"
            )
        await store.save_profile("u", "Likes: tea", since=number)
        old.execute("UPDATE profiles SET text = 'by hand'")
        with pytest.raises(sqlite3.IntegrityError, match="persons were erased"):
            old.execute("INSERT INTO states VALUES ('v', '{}', 1) ON CONFLICT (user_id) DO UPDATE SET state = '{}'")
    assert await store.get_profile("u") == "by hand"
    await store.close()


async def test_one_thing_is_forgotten_of_a_person_who_came_back(store: Store, user: str) -> None:
    number = await store.erase_user(user, "r1")
    await store.save_profile(user, "Likes: tea\nLikes: war", since=number)
    await store.forget(user, [Thing("Likes: war", ("war",))])
    assert await store.get_profile(user) == "Likes: tea"


async def test_a_person_with_many_rows_is_erased_in_one_request(project: str, supabase_store: Store, user: str) -> None:
    """``authenticator`` ends a statement after eight seconds. Before triggers ran once a statement it took 48."""
    async with connection(project) as db:
        await db.execute("set statement_timeout = '8s'")
        await db.execute(
            "insert into companion_turns (user_id, id, conversation_id, role, text, at)"
            " select $1, n::text, 'c' || n / 40, 'user', 'turn ' || n, now() from generate_series(1, 20000) n",
            user,
        )
        await db.execute(
            "insert into companion_memories (user_id, id, text, at)"
            " select $1, n::text, 'fact ' || n, now() from generate_series(1, 1000) n",
            user,
        )
        began = time.monotonic()
        await db.execute("select companion_erase($1)", user)
        assert time.monotonic() - began < 8
    assert await supabase_store.export_user(user) == NOTHING
