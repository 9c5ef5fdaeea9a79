"""Erasing and exporting a person, in every store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from companion.store import Context, Memory, PendingErasure, PersonData, SqliteStore, Store, Summary, Thing, Turn
from tests.real.postgres import connection

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
LATER = timedelta(seconds=1)
WORD = "zanzibarquokka"  # said by the person, and by nobody else
DAY = 86_400.0


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
    return PersonData(f"Likes: {word}", versions, turns, facts, [summary], {"stage": word})


async def test_an_export_holds_everything(store: Store, user: str) -> None:
    expected = await fill(store, user)
    await fill(store, f"{user}-2", "other")
    assert await store.export_user(user) == expected
    assert await store.export_user(f"{user}-3") == PersonData(None, [], [], [], [], None)


async def test_an_erased_person_is_a_stranger(store: Store, user: str) -> None:
    await fill(store, user)
    other = await fill(store, f"{user}-2")
    number = await store.erase_user(user, "r1")
    assert number == await store.latest_erasure() > 0
    assert await store.export_user(user) == PersonData(None, [], [], [], [], None)
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
