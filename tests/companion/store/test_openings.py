"""How the next conversation opens, in every store: kept for one version of what is known of a person."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from companion.store import Memory, Opening, SqliteStore, Store, Summary, SupabaseStore, Thing, Turn
from tests.real.supabase.postgres import connection

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
PLAN = {"opening": "follow_up", "topic": "the 旅 to Porto"}
TEXTS = {"follow_up": "How was Porto, Ada?"}


async def prepared(store: Store, user: str, *, turn: str = "I go to Porto") -> Opening:
    """Store an opening of the current version of a user who has said something."""
    await store.add_turn(user, Turn("user", turn, datetime.now(UTC), "c1"))
    opening = Opening((await store.context(user)).version, PLAN, TEXTS, f"prompt-{user}", datetime.now(UTC))
    await store.save_opening(user, opening)
    return opening


async def holds(store: Store, user: str) -> bool:
    """Whether there is an opening, of the current version."""
    context = await store.context(user)
    return context.opening is not None and context.opening.version == context.version


async def test_an_opening_comes_with_the_context_as_it_went_in(store: Store, user: str) -> None:
    assert (await store.context(user)).opening is None
    opening = await prepared(store, user)
    context = await store.context(user)
    assert context.opening == opening
    assert context.version == opening.version > 0
    later = replace(opening, texts=None, prompt="another")
    await store.save_opening(user, later)
    assert (await store.context(user)).opening == later
    assert (await store.context(f"{user}-2")).opening is None


async def came_back(store: Store, user: str, *, moved: bool) -> int:
    """Erase a user, or move one away and back; the number of the latest erasure."""
    await store.add_turn(user, Turn("user", "hello", NOON, "c1"))
    if moved:
        await store.move_user([user], f"{user}-2")
        await store.move_user([f"{user}-2"], user)
    else:
        await store.erase_user(user, "r1")
    return await store.latest_erasure()


CHANGES: dict[str, Callable[[Store, str], Awaitable[object]]] = {
    "a profile": lambda store, user: store.save_profile(user, "Name: Ada"),
    "a turn": lambda store, user: store.add_turn(user, Turn("user", "hello", NOON, "c2")),
    "a skipped turn": lambda store, user: store.add_turn(user, Turn("user", "hi", NOON, "c2", skipped=True)),
    "a fact": lambda store, user: store.add_memory(user, Memory("plays chess", NOON)),
    "a summary": lambda store, user: store.save_summary(user, Summary("c1", "about Porto", NOON)),
    "a state": lambda store, user: store.save_state(user, {"stage": "new"}),
    "a thing that is forgotten": lambda store, user: store.forget(user, [Thing("unknown", ("unknown",))]),
    "an erasure": lambda store, user: store.erase_user(user, "r1"),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_makes_an_opening_outdated_at_once(store: Store, user: str, name: str) -> None:
    await prepared(store, user)
    assert await holds(store, user)
    await CHANGES[name](store, user)
    assert not await holds(store, user)


async def test_a_removed_fact_and_a_restored_profile_make_it_outdated(store: Store, user: str) -> None:
    await store.add_memory(user, Memory("plays chess", NOON))
    await store.save_profile(user, "Name: Ada")
    await store.save_profile(user, "Name: Eve")
    await prepared(store, user)
    await store.remove_memory(user, "plays chess")
    assert not await holds(store, user)
    await prepared(store, user)
    await store.restore_profile(user, (await store.profile_versions(user))[-1].number)
    assert not await holds(store, user)


async def test_an_opening_of_an_earlier_version_is_not_kept(store: Store, user: str) -> None:
    opening = await prepared(store, user)
    await store.add_memory(user, Memory("plays chess", NOON))
    await store.forget(user, [Thing("I go to Porto", ("porto",))])
    await store.save_opening(user, opening)  # of a worker that was slow
    assert (await store.context(user)).opening is None


async def test_after_an_erasure_the_versions_begin_anew_and_no_opening_of_before_holds(store: Store, user: str) -> None:
    opening = await prepared(store, user)
    since = await store.erase_user(user, "r1")
    for _ in range(opening.version):
        await store.add_turn(user, Turn("user", "hello again", NOON, "c2", since=since))
    assert (await store.context(user)).version == opening.version
    assert not await holds(store, user)


async def test_what_a_killed_job_has_not_written_is_taken_once(store: Store, user: str) -> None:
    prompt = uuid4().hex
    left = Opening(0, {}, None, prompt, datetime.now(UTC) - timedelta(minutes=10))
    others = {
        "written": replace(left, texts={}),
        "another prompt": replace(left, prompt=f"{prompt}2"),
        "young": replace(left, at=datetime.now(UTC)),
    }
    for number in range(3):
        await store.save_opening(f"{user}-{number}", replace(left, at=left.at - timedelta(minutes=number)))
    for name, opening in (others | {"talking": left}).items():
        await store.save_opening(f"{user}-{name}", opening)
    await store.add_turn(f"{user}-talking", Turn("user", "It is a long call.", datetime.now(UTC), "c1"))
    taken = [await store.claim_openings(prompt, older_than=300, limit=2) for _ in range(3)]
    assert taken == [[f"{user}-0", f"{user}-1"], [f"{user}-2"], []]
    assert (await store.context(f"{user}-0")).opening == replace(left, texts={})


@pytest.mark.parametrize("moved", [False, True])
async def test_the_opening_of_a_person_who_was_erased_or_moved_before_is_taken_too(
    store: Store, user: str, moved: bool
) -> None:
    since, prompt = await came_back(store, user, moved=moved), uuid4().hex
    left = Opening(0, {}, None, prompt, datetime.now(UTC) - timedelta(minutes=10), since)
    for each in (user, f"{user}-other"):
        await store.save_opening(each, left)
    taken = [await store.claim_openings(prompt, older_than=300, limit=2) for _ in range(2)]
    assert [sorted(users) for users in taken] == [[user, f"{user}-other"], []]


@pytest.mark.parametrize("moved", [False, True])
async def test_old_turns_of_a_person_who_was_erased_or_moved_before_are_deleted_too(
    store: Store, user: str, moved: bool
) -> None:
    while await store.expire_turns(30, 1000) == 1000:  # what other tests have left
        pass
    since, now = await came_back(store, user, moved=moved), datetime.now(UTC)
    for text, at in (("old", now - timedelta(days=31)), ("in 2099", now + timedelta(days=30_000)), ("today", now)):
        await store.add_turn(user, Turn("user", text, at, "c2", since=since))
    opening = Opening((await store.context(user)).version, PLAN, TEXTS, "p", now, since)
    await store.save_opening(user, opening)
    await store.expire_turns(30, 1000)
    context = await store.context(user)
    assert context.opening is not None
    ages = {turn.text: turn.at for turn in context.turns}
    assert "old" not in ages
    assert abs(ages["in 2099"] - now) < timedelta(minutes=5)


async def test_the_deletion_of_old_turns_keeps_a_plan_and_deletes_an_old_one(store: Store, user: str) -> None:
    while await store.expire_turns(30, 1000) == 1000:  # what other tests have left
        pass
    old = datetime.now(UTC) - timedelta(days=31)
    for number in range(3):
        await store.add_turn(user, Turn("user", f"said {number}", old, "c0"))
    opening = await prepared(store, user)
    assert await store.expire_turns(30, 2) == 2
    assert await holds(store, user)
    await store.save_opening(user, replace(opening, version=(await store.context(user)).version, at=old))
    assert await store.expire_turns(30, 2) == 1
    assert (await store.context(user)).opening is None


async def test_a_person_who_is_moved_is_greeted_anew(store: Store, user: str) -> None:
    await prepared(store, user)
    await prepared(store, f"{user}-new", turn="hello")
    await store.move_user([user], f"{user}-new")
    assert not await holds(store, user)
    assert not await holds(store, f"{user}-new")


def test_an_opening_has_a_time_zone_and_objects() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Opening(0, {}, None, "p", datetime(2026, 1, 1))
    for plan, texts in (([], None), ({}, []), ({}, {"follow_up": 7})):
        with pytest.raises(ValueError, match=r"objects|strings"):
            Opening(0, plan, texts, "p", NOON)  # type: ignore[arg-type]  # as an edit by hand may leave it


BROKEN = ["not json", "[]", "7", '{"follow_up": 7}']


@pytest.mark.parametrize("texts", BROKEN)
async def test_an_opening_that_cannot_be_decoded_is_none_in_sqlite(
    sqlite_store: SqliteStore, tmp_path: Path, user: str, texts: str
) -> None:
    await prepared(sqlite_store, user)
    with closing(sqlite3.connect(tmp_path / "home" / "companion.db")) as db, db:
        db.execute("UPDATE openings SET texts = ?", (texts,))
    context = await sqlite_store.context(user)
    assert (len(context.turns), context.opening) == (1, None)


async def test_an_opening_that_cannot_be_decoded_is_none_in_supabase(
    supabase_store: SupabaseStore, project: str, user: str
) -> None:
    await prepared(supabase_store, user)
    async with connection(project) as db:
        await db.execute("""update companion_openings set texts = '{"follow_up": 7}' where user_id = $1""", user)
    context = await supabase_store.context(user)
    assert (len(context.turns), context.opening) == (1, None)
