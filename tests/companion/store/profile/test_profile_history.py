"""The versions of profiles that both stores keep, and the writes of profiles that a retry must not repeat."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from companion.store import SqliteStore, Store, StoredProfile, SupabaseStore
from companion.store.profile_history import ProfileVersion
from tests.real.supabase.postgres import MIGRATIONS, Postgres, connection, migrate
from tests.real.supabase.postgrest import PostgREST

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
ByHand = Callable[..., Awaitable[None]]


async def history(store: Store, user: str) -> list[tuple[str, str]]:
    """Author and text of each version, the oldest first."""
    return [(version.author, version.text) for version in reversed(await store.profile_versions(user))]


@pytest.fixture
async def by_hand(store: Store, tmp_path: Path, project: str) -> AsyncIterator[ByHand]:
    """Executes a statement as another program does: ``$1`` is the user."""
    if isinstance(store, SupabaseStore):
        async with connection(project) as db:

            async def execute(statement: str, *values: Any) -> None:
                await db.execute(statement.replace(" profiles", " companion_profiles"), *values)

            yield execute
        return
    await store.get_profile("x")
    with closing(sqlite3.connect(tmp_path / "home" / "companion.db", isolation_level=None)) as file:

        async def execute(statement: str, *values: Any) -> None:
            file.execute(statement.replace("$1", "?1"), values)

        yield execute


async def test_every_version_is_kept_with_its_author(store: Store, user: str, by_hand: ByHand) -> None:
    assert await store.profile_versions(user) == []
    await store.save_profile(user, "by code")
    assert await store.swap_profile(user, "by the tool\x00", instead_of="by code", at=NOON, author="tool", write_id="1")
    await by_hand("UPDATE profiles SET text = 'by hand' WHERE user_id = $1", user)
    await by_hand("UPDATE profiles SET text = 'by hand' WHERE user_id = $1", user)  # no change, no version
    await by_hand("DELETE FROM profiles WHERE user_id = $1", user)
    assert await store.swap_profile(user, "merged", instead_of=None, at=NOON, author="merge", write_id="2")
    assert await history(store, user) == [
        ("code", "by code"),
        ("tool", "by the tool\ufffd"),
        ("dashboard", "by hand"),
        ("dashboard", ""),
        ("merge", "merged"),
    ]
    newest, *_ = versions = await store.profile_versions(user)
    assert newest == ProfileVersion(newest.number, "merged", NOON, "merge")
    assert [version.number for version in versions] == sorted({version.number for version in versions}, reverse=True)
    assert await store.profile_versions(user, 2) == versions[:2]
    assert await store.profile_versions(user, -1) == []
    assert await store.profile_versions(f"{user}-2") == []


async def test_a_version_knows_when_it_was_written(store: Store, user: str) -> None:
    assert await store.swap_profile(user, "first", instead_of=None, at=NOON) is True
    assert await store.swap_profile(user, "second", instead_of="first", at=NOON - timedelta(days=1)) is True
    before = datetime.now(UTC)
    await store.save_profile(user, "third")
    third, second, first = await store.profile_versions(user)
    assert (first.at, second.at) == (NOON, NOON - timedelta(days=1))
    assert abs(third.at - before) < timedelta(minutes=1)


async def test_a_version_is_restored(store: Store, user: str) -> None:
    for text in ("20 lines", "Likes: tea"):
        await store.save_profile(user, text)
    _, first = await store.profile_versions(user)
    assert await store.restore_profile(user, first.number) is True
    assert await store.get_profile(user) == "20 lines"
    assert await store.restore_profile(user, 10**9) is False
    assert await store.restore_profile(f"{user}-2", first.number) is False, "it is another user's"
    assert await history(store, user) == [("code", "20 lines"), ("code", "Likes: tea"), ("restore", "20 lines")]


async def test_a_write_is_stored_once(store: Store, user: str) -> None:
    assert await store.profile_for_write(user, "a") == StoredProfile(None, False)
    assert await store.swap_profile(user, "Likes: tea", instead_of=None, at=NOON, write_id="a") is True
    assert await store.profile_for_write(user, "a") == StoredProfile("Likes: tea", True)
    assert await store.profile_for_write(user, "b") == StoredProfile("Likes: tea", False)
    await store.save_profile(user, "")  # the line is removed again
    assert await store.swap_profile(user, "Likes: tea", instead_of="", at=NOON, write_id="a") is False
    await store.save_profile(user, "Likes: tea", write_id="a")
    assert await store.get_profile(user) == ""
    assert await store.swap_profile(f"{user}-2", "other", instead_of=None, at=NOON, write_id="a") is True


async def test_a_write_that_changes_nothing_is_recognised_as_well(store: Store, user: str) -> None:
    await store.save_profile(user, "Likes: tea")
    assert await store.swap_profile(user, "Likes: tea", instead_of="Likes: tea", at=NOON, write_id="a") is True
    assert (await store.profile_for_write(user, "a")).has_write is True
    assert await store.swap_profile(user, "Likes: tea", instead_of="Likes: tea", at=NOON, write_id="a") is False


async def test_of_one_write_sent_many_times_one_is_stored(store: Store, user: str) -> None:
    await store.save_profile(user, "there")
    swaps = (store.swap_profile(user, "there", instead_of="there", at=NOON, write_id="a") for _ in range(10))
    assert sorted(await asyncio.gather(*swaps)) == [False] * 9 + [True]
    assert len(await store.profile_versions(user)) == 2


async def test_a_row_that_changes_hands_is_a_version_of_both(store: Store, user: str, by_hand: ByHand) -> None:
    await store.save_profile(user, "mine")
    await by_hand("UPDATE profiles SET user_id = $1 || '-heir' WHERE user_id = $1", user)
    assert (await history(store, f"{user}-heir"))[-1] == ("dashboard", "mine")
    if isinstance(store, SupabaseStore):
        assert (await history(store, user))[-1] == ("dashboard", "")


# -- SQLite ------------------------------------------------------------------------------------------------------


async def test_sqlite_forgets_versions_after_thirty_days(tmp_path: Path) -> None:
    path = tmp_path / "companion.db"
    store = SqliteStore(path)
    for number in range(4):
        await store.save_profile("u", str(number))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE profile_versions SET recorded_at = recorded_at - 86400000000 * 31 WHERE seq < 3")
        db.execute("UPDATE profile_versions SET recorded_at = recorded_at - 86400000000 * 29 WHERE seq = 3")
    await store.save_profile("u", "new")
    texts = [version.text for version in await store.profile_versions("u")]
    assert texts == ["new", "3", "2", "1"], "the second one was current until 29 days ago"
    await store.close()


async def test_sqlite_can_undo_a_careless_change_of_an_old_profile(tmp_path: Path) -> None:
    path = tmp_path / "companion.db"
    store = SqliteStore(path)
    for user in ("u", "gone", "other"):
        await store.save_profile(user, "20 lines")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DELETE FROM profiles WHERE user_id = 'gone'")
        db.execute("UPDATE profile_versions SET recorded_at = recorded_at - 86400000000 * 31")
    await store.save_profile("other", "wiped")
    await store.save_profile("u", "wiped")
    for user in ("u", "other"):
        assert await history(store, user) == [("code", "20 lines"), ("code", "wiped")]
    assert await history(store, "gone") == []
    await store.close()


# -- Supabase ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def db(project: str) -> AsyncIterator[asyncpg.Connection]:
    async with connection(project) as superuser:
        yield superuser


async def test_postgres_forgets_versions_after_thirty_days(
    supabase_store: SupabaseStore, db: asyncpg.Connection, user: str
) -> None:
    for number in range(3):
        await supabase_store.save_profile(user, str(number))
    await db.execute(
        "update companion_profile_versions set recorded_at = recorded_at - interval '31 days',"
        " replaced_at = replaced_at - interval '31 days' where user_id = $1",
        user,
    )
    await supabase_store.save_profile(user, "new")
    texts = [version.text for version in await supabase_store.profile_versions(user)]
    assert texts == ["new", "2"], "a careless change of an old profile can be undone"


async def test_postgres_forgets_a_deleted_profile_after_thirty_days(
    supabase_store: SupabaseStore, db: asyncpg.Connection, user: str
) -> None:
    await supabase_store.save_profile(user, "Name: Ada")
    await db.execute("delete from companion_profiles where user_id = $1", user)
    await supabase_store.save_profile(f"{user}-2", "Name: Bea")
    assert await history(supabase_store, user) == [("code", "Name: Ada"), ("dashboard", "")]
    # Only this user's: a write deletes at most a hundred versions, of whomever.
    await db.execute(
        "update companion_profile_versions set replaced_at = replaced_at - interval '31 days' where user_id = $1", user
    )
    await supabase_store.save_profile(f"{user}-2", "Name: Cleo")
    assert await history(supabase_store, user) == []


async def test_a_worker_of_the_version_before_is_recorded_as_code(
    api: PostgREST, supabase_store: SupabaseStore, user: str
) -> None:
    """As it wrote: an upsert, and a function of four arguments, both with the companion's header."""
    old = api.client(api.secret_key)
    old.postgrest.session.headers["x-companion"] = "1"
    row = {"user_id": user, "text": "Name: Ada"}
    await old.table("companion_profiles").upsert(row, returning="minimal", on_conflict="user_id").execute()
    swap = {"p_user_id": user, "p_text": "Name: Bea", "p_instead_of": "Name: Ada", "p_at": NOON.isoformat()}
    assert (await old.rpc("companion_swap_profile", swap).execute()).data is True
    await old.postgrest.aclose()
    assert await history(supabase_store, user) == [("code", "Name: Ada"), ("code", "Name: Bea")]


async def test_a_table_that_is_emptied_can_be_restored(postgres: Postgres) -> None:
    async with connection(await postgres.create_database()) as db:
        await db.execute("insert into companion_profiles (user_id, text) values ('a', 'Name: Ada'), ('b', 'Name: B')")
        await db.execute("truncate companion_profiles")
        rows = await db.fetch("select user_id, text from companion_profile_versions order by version")
        assert [tuple(row) for row in rows[:2]] == [("a", "Name: Ada"), ("b", "Name: B")]
        assert sorted(tuple(row) for row in rows[2:]) == [("a", ""), ("b", "")]


async def test_profiles_from_before_have_a_version(postgres: Postgres) -> None:
    dsn = await postgres.create_database(migrated=False)
    async with connection(dsn) as db:
        for file in sorted(MIGRATIONS.glob("*.sql")):
            if file.name < "20261129000000_profile_history.sql":
                await db.execute(file.read_text(encoding="utf-8"))
        await db.execute("insert into companion_profiles (user_id, text) values ('a', 'Name: Ada')")
        await migrate(db)
        await migrate(db)
        await db.execute("update companion_profiles set text = 'wiped'")
        rows = await db.fetch("select text, author from companion_profile_versions order by version")
        assert [tuple(row) for row in rows] == [("Name: Ada", "code"), ("wiped", "dashboard")]
