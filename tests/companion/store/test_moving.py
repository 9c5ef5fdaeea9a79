"""Moving a person to another user id, in every store."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from postgrest.exceptions import APIError
from postgrest.types import ReturnMethod

from companion.store import (
    Memory,
    Moved,
    PersonData,
    PersonErased,
    SqliteStore,
    Store,
    Summary,
    SupabaseStore,
    Thing,
    Turn,
)
from companion.writes import ConversationEnded, Profile
from companion.writes.records import Write, apply_or_follow, from_line
from tests.companion.store.supabase.test_deadlock import is_waiting
from tests.companion.store.test_erasure import DAY, WORD, WRITES, files_with, fill
from tests.real.supabase.postgres import connection
from tests.real.supabase.postgrest import PostgREST
from tests.wait import until

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
NOTHING = PersonData(None, [], [], [], [], None)
KINDS = ["profile", "turn", "memory", "summary", "state"]


async def fill_again(store: Store, user_id: str) -> None:
    """What a later conversation writes."""
    await store.save_profile(user_id, "Name: Ada")
    await store.add_turn(user_id, Turn("user", "I am back", NOON, "c2"))
    await store.add_memory(user_id, Memory("Has a dog.", NOON))


async def test_all_that_is_kept_is_moved(store: Store, user: str) -> None:
    kept, old, new = await fill(store, f"sip_{user}"), f"sip_{user}", f"~==phone={user}"
    await store.acknowledge(await store.pending_changes_of(new, KINDS))
    (erasure,) = await store.move_user(["sip_1", old, "sip_2"], new)
    assert erasure.user_id == old
    assert erasure in await store.pending_erasures(86_400)
    found = await store.export_user(new)
    assert (found.profile, found.turns, found.memories) == (kept.profile, kept.turns, kept.memories)
    assert (found.summaries, found.state) == (kept.summaries, kept.state)
    assert {version.text for version in found.versions} == {version.text for version in kept.versions}
    assert [memory.text for memory in await store.search_memories(new, "zanzibarquokka sold")][:1] == [
        "sold a zanzibarquokka"
    ]
    assert {row.kind for row in await store.pending_changes_of(new, KINDS)} == set(KINDS)
    assert await store.export_user(old) == NOTHING
    assert await store.pending_changes_of(old, KINDS) == []
    assert await store.move_user([old], new) == []
    removed = Memory("lost a zanzibarquokka", NOON)
    await store.add_memory(new, removed)
    assert await store.remove_memory(new, removed.text) == 1


async def test_what_both_ids_have_is_joined(store: Store, user: str) -> None:
    old, new, later = f"sip_{user}", f"~==phone={user}", NOON + timedelta(seconds=1)
    turn = Turn("user", "the same", NOON, "c1")
    for user_id, text in ((old, "Name: Ada\nLikes: chess"), (new, "Name: Ada\nLives in: Oslo")):
        await store.save_profile(user_id, text)
        await store.add_turn(user_id, turn)
        await store.add_turn(user_id, Turn("user", f"of {user_id}", later, "c1", f"t-{user_id}"))
        await store.add_memory(user_id, Memory("Has a cat.", NOON))
        await store.add_memory(user_id, Memory(f"fact of {user_id}", NOON))
        await store.save_summary(user_id, Summary("c1", f"summary of {user_id}", NOON))
        await store.save_state(user_id, {"stage": user_id})
    await store.move_user([old], new)
    found = await store.export_user(new)
    assert found.profile == "Name: Ada\nLives in: Oslo\nLikes: chess"
    assert [turn.text for turn in found.turns if turn.id != "x"].count("the same") == 1
    assert {turn.text for turn in found.turns} == {"the same", f"of {old}", f"of {new}"}
    assert sorted(memory.text for memory in found.memories) == sorted(
        ["Has a cat.", f"fact of {old}", f"fact of {new}"]
    )
    assert [summary.text for summary in found.summaries] == [f"summary of {new}"]
    assert found.state == {"stage": new}
    assert await store.export_user(old) == NOTHING


async def test_what_was_forgotten_does_not_come_back_with_an_earlier_id(store: Store, user: str) -> None:
    old, new = f"sip_{user}", f"~==phone={user}"
    await store.save_profile(new, "Likes: chess\nLikes: tea")
    await store.forget(new, [Thing("Likes: chess", ["chess"])])
    await store.save_profile(old, "Name: Ada")
    await store.save_profile(old, "Name: Ada\nlikes: Chess.")
    await store.add_memory(old, Memory("likes chess", NOON))
    await store.add_memory(old, Memory("Likes: chess\nHas a dog", NOON))
    assert len(await store.move_user([old], new)) == 1
    kept = await store.export_user(new)
    assert kept.profile == "Likes: tea\nName: Ada"
    assert {memory.text for memory in kept.memories} == {"likes chess", "Has a dog"}
    assert "hess" not in str(kept.versions)
    assert (await store.forgotten(new)).has("Likes: chess")


async def test_an_id_that_was_erased_before_can_be_moved_to(store: Store, user: str) -> None:
    old, new = f"sip_{user}", f"~==phone={user}"
    await fill(store, new)
    await store.erase_user(new, "r1")
    await fill_again(store, old)
    await store.move_user([old], new)
    found = await store.export_user(new)
    assert (found.profile, len(found.turns), len(found.memories)) == ("Name: Ada", 1, 1)
    assert await store.export_user(old) == NOTHING


async def test_an_id_without_anything_leaves_no_trace(store: Store, user: str) -> None:
    kept = await fill(store, user)
    before = await store.latest_erasure()
    assert await store.move_user([f"sip_{user}", user], user) == []
    assert await store.latest_erasure() == before
    assert await store.export_user(user) == kept


async def test_nothing_in_sqlites_files_names_the_old_id(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "companion.db")
    await fill(store, "sip_+4930123456")
    for erasure in await store.move_user(["sip_+4930123456"], "~==phone=abc"):
        await store.acknowledge_erasure(erasure)
    number = await store.erase_user("~==phone=abc", "r1")
    await store.acknowledge_erasure(replace(erasure, user_id="~==phone=abc", number=number))
    await store.close()
    assert files_with(tmp_path, "4930123456") == files_with(tmp_path, "phone=abc") == []


def late_writes(since: int) -> list[Write]:
    """What a conversation of before the move, under the earlier id, still writes."""
    return [
        Profile("Name: Ada\nLikes: tea", made_from="Name: Ada", at=NOON, since=since),
        Profile("Name: Ada\nLikes: tea\nLikes: chess", made_from="Name: Ada\nLikes: tea", at=NOON, since=since),
        Turn("user", "I like tea", NOON, "late", "late", since=since),
        Memory("Likes green tea", NOON, since=since),
        Memory("Likes: chess", NOON, since=since),
        Summary("late", "On tea.", NOON, since=since),
        Summary("later", "On chess.", NOON, since=since),
        ConversationEnded("late", NOON, since=since),
    ]


async def write_late(store: Store, user_id: str, since: int) -> set[str]:
    """Write them; the ids under which they were written."""
    return {(await apply_or_follow(write, store, user_id, late=True))[0] for write in late_writes(since)}


async def test_late_writes_follow_a_person_who_was_moved(store: Store, user: str) -> None:
    old, new, before = f"sip_{user}", f"~==phone={user}", await store.latest_erasure()
    await store.save_profile(old, "Name: Ada")
    (erasure,) = await store.move_user([old], new)
    assert await store.moved(old, before) == Moved(new, erasure.number)
    assert await store.moved(new, before) is None
    assert await store.moved(f"{user}-2", before) is None
    for write in WRITES.values():
        with pytest.raises(PersonErased):
            await write(store, old, before)
    for _ in range(2):  # every write may be repeated
        assert await write_late(store, old, before) == {new}
    kept = await store.export_user(new)
    assert kept.profile == "Name: Ada\nLikes: tea\nLikes: chess"
    assert [turn.text for turn in kept.turns] == ["I like tea"]
    assert {memory.text for memory in kept.memories} == {"Likes green tea", "Likes: chess"}
    assert len(kept.summaries) == 2
    assert kept.state is not None
    assert kept.state["conversations"] == 1
    assert await store.export_user(old) == NOTHING


async def test_late_writes_follow_a_person_who_was_moved_twice(store: Store, user: str) -> None:
    old, between, new = f"sip_{user}", f"sip_+{user}", f"~==phone={user}"
    before = await store.latest_erasure()
    await store.save_profile(old, "Name: Ada")
    await store.move_user([old], between)
    await fill_again(store, between)
    number = await store.erase_user(new, "r1")
    await store.move_user([between], new)
    for earlier in (old, between):
        assert await write_late(store, earlier, before) == {new}
    assert "green tea" in str((await store.export_user(new)).memories)
    await store.move_user([new], old)  # and back
    for earlier, since in ((old, before), (between, before), (new, number)):
        assert await write_late(store, earlier, since) == {old}


@pytest.mark.parametrize("again", [False, True])
async def test_late_writes_of_a_moved_person_who_was_erased_are_dropped(store: Store, user: str, again: bool) -> None:
    old, new, before = f"sip_{user}", f"~==phone={user}", await store.latest_erasure()
    for each in ("r1", "r2")[: 1 + again]:
        since = await store.latest_erasure()
        await store.save_profile(old, "Name: Ada", since=since)
        await store.move_user([old], new)
        await store.erase_user(new, each)
    for write in late_writes(before):
        with pytest.raises(PersonErased):
            await apply_or_follow(write, store, old, late=True)
    assert await store.export_user(new) == await store.export_user(old) == NOTHING


async def test_what_an_earlier_id_wrote_before_it_was_erased_stays_dropped(store: Store, user: str) -> None:
    old, new, before = f"sip_{user}", f"~==phone={user}", await store.latest_erasure()
    await store.save_profile(old, "Name: Eve")
    number = await store.erase_user(old, "r1")
    for _ in range(2):  # moved twice, since a worker goes on to use the earlier id
        await store.save_profile(old, "Name: Ada", since=await store.latest_erasure())
        await store.move_user([old], new)
        for write in late_writes(before):
            with pytest.raises(PersonErased):
                await apply_or_follow(write, store, old, late=True)
        assert await write_late(store, old, number) == {new}


@pytest.mark.parametrize("when", ["before", "under the new id", "under the old id", "before two moves", "moved again"])
async def test_late_writes_of_a_moved_person_bring_nothing_forgotten_back(store: Store, user: str, when: str) -> None:
    old, new, before = f"sip_{user}", f"~==phone={user}", await store.latest_erasure()
    chess = [Thing("Likes: chess", ["chess"])]
    await store.save_profile(old, "Name: Ada\nLikes: chess")
    if when in ("before", "before two moves"):
        await store.forget(old, chess)
    if when == "before two moves":
        await store.move_user([old], f"sip_+{user}")
        await store.move_user([f"sip_+{user}"], new)
    else:
        await store.move_user([old], new)
    if when not in ("before", "before two moves"):
        await store.forget(old if when == "under the old id" else new, chess)
    if when == "moved again":
        await store.save_profile(old, "Likes: chess", since=await store.latest_erasure())
        await store.move_user([old], new)
    assert new in await write_late(store, old, before)
    assert (await store.forgotten(new)).mentioned_in("about chess")
    kept = await store.export_user(new)
    assert kept.profile == "Name: Ada\nLikes: tea"
    assert [memory.text for memory in kept.memories] == ["Likes green tea"]
    assert [summary.text for summary in kept.summaries] == ["On tea."]
    assert "chess" not in str(kept.versions)


async def test_no_tombstone_names_an_erased_persons_ids(store: Store, user: str, project: str) -> None:
    old, new = f"sip_{user}", f"~==phone={user}"
    await fill(store, old)
    moved = await store.move_user([old], new)
    number = await store.erase_user(new, "r1")
    for erasure in [*moved, replace(moved[0], user_id=new, number=number)]:
        await store.acknowledge_erasure(erasure)
    assert await store.moved(old, 0) is None
    if not isinstance(store, SqliteStore):  # of which another test reads the bytes
        async with connection(project) as db:
            assert not await db.fetchval("select count(*) from companion_erasures t where t::text ~ $1", user)


async def test_a_person_who_is_erased_under_an_earlier_id_is_erased(store: Store, user: str) -> None:
    old, between, new = f"sip_{user}", f"sip_+{user}", f"~==phone={user}"
    await fill(store, old)
    await store.move_user([old], between)
    await store.move_user([between], new)
    since = await store.latest_erasure()
    number = await store.erase_user(old, "r1")
    assert await store.export_user(new) == NOTHING
    assert {new, old} <= {erasure.user_id for erasure in await store.pending_erasures(DAY)}
    for each in (old, between, new):
        assert await store.moved(each) is None
        with pytest.raises(PersonErased):
            await store.add_turn(new, Turn("user", "late", NOON, "c", since=since))
    await store.save_profile(new, "Name: Ada", since=await store.latest_erasure())
    assert await store.erase_user(old, "r1") == number  # repeated by a replay: who has come back stays
    assert (await store.export_user(new)).profile == "Name: Ada"


async def test_a_worker_of_the_version_before_keeps_what_it_writes_of_a_moved_person(
    api: PostgREST, supabase_store: Store, user: str
) -> None:
    """It names no erasures. In its spool a worker of this version finds it, and stores it under the new id."""
    await supabase_store.save_profile(f"sip_{user}", "Name: Ada")
    await supabase_store.move_user([f"sip_{user}"], user)
    old = api.client(api.secret_key)
    old.postgrest.headers["x-companion"] = "1"
    row = {"user_id": f"sip_{user}", "id": "f1", "text": "Has a dog", "at": NOON.isoformat()}
    minimal, key = ReturnMethod.minimal, "user_id,id"
    upsert = old.table("companion_memories").upsert(row, returning=minimal, on_conflict=key, ignore_duplicates=True)
    with pytest.raises(APIError, match="PT409"):
        await upsert.execute()
    await old.postgrest.aclose()
    _, write = from_line(json.dumps(row | {"kind": "memory"}))
    assert (await apply_or_follow(write, supabase_store, f"sip_{user}", late=True))[0] == user
    assert [fact.text for fact in await supabase_store.search_memories(user, "")] == ["Has a dog"]


@pytest.mark.parametrize("key", ["another", None])
async def test_a_person_is_found_again_with_another_key(store: Store, user: str, key: str | None) -> None:
    plain, keyed = f"sip_+{user}", f"~==phone={user}"
    await store.save_profile(plain, "Name: Ada")
    await store.move_user([plain], keyed)
    since = await store.latest_erasure()
    await store.save_profile(keyed, "Name: Ada\nLikes: tea", since=since)
    user_id, earlier = (plain, [f"sip_{user}"]) if key is None else (f"~==phone={key}-{user}", [plain])
    assert [erasure.user_id for erasure in await store.move_user(earlier, user_id)] == [keyed]
    assert (await store.export_user(user_id)).profile == "Name: Ada\nLikes: tea"
    for each in (plain, keyed):
        assert await write_late(store, each, 0 if each == plain else since) == {user_id}
    assert await store.move_user(earlier, user_id) == []
    await store.erase_user(user_id, "r1")
    assert await store.move_user(earlier, user_id) == []


async def test_ids_that_a_person_was_moved_between_in_a_circle(store: Store, user: str) -> None:
    ids = [f"{user}-{number}" for number in range(3)]
    await store.save_profile(ids[1], "Likes: tea")
    await store.move_user([ids[1]], ids[2])
    await fill(store, ids[0])
    await store.move_user([ids[0]], ids[1])
    await store.move_user([ids[2]], ids[0])
    assert (await store.forget(ids[0], [Thing("Likes: tea"), Thing(f"Likes: {WORD}")])).lines
    await store.erase_user(ids[0], "r1")
    for each in ids:
        assert await store.export_user(each) == NOTHING


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
async def test_what_was_forgotten_under_one_id_is_forgotten_whichever_is_moved_first(
    store: Store, user: str, order: list[int]
) -> None:
    """Of two machines, say: the person asked one of them to forget it."""
    ids, new = [f"sip_{user}", f"sip_+{user}"], f"~==phone={user}"
    for each in ids:
        await store.save_profile(each, "Likes: chess\nLikes: tea")
        await store.add_memory(each, Memory("Likes: chess", NOON))
        await store.save_summary(each, Summary(each, f"{each} plays Chess.", NOON))
        await store.add_turn(each, Turn("user", "We were playing chess", NOON, "c1", id=each))
    await store.forget(ids[0], [Thing("Likes: chess", ["chess"])])
    await store.move_user([ids[number] for number in order], new)
    kept = await store.export_user(new)
    assert (kept.profile, kept.memories) == ("Likes: tea", [])
    assert {summary.text for summary in kept.summaries} == {""}
    assert [turn.skipped for turn in (await store.context(new)).turns] == [True, True]
    assert "chess" not in str(kept.versions)
    assert (await store.forgotten(new)).mentioned_in("about chess")


@pytest.mark.parametrize("writes_of", ["old", "new"])
async def test_no_write_beside_it_ends_in_a_deadlock(
    project: str, api: PostgREST, supabase_store: SupabaseStore, user: str, writes_of: str
) -> None:
    """A deadlock would cost a second, which is what a call waits for the move."""
    ids = {"old": f"sip_{user}", "new": f"~==phone={user}"}
    for each in ids.values():
        await supabase_store.save_profile(each, "Name: Ada")
    async with connection(project) as writer, connection(project) as watch:
        await writer.execute("set deadlock_timeout = '10min'")  # the move would be the victim, and sent again
        api.requests = 0
        async with writer.transaction():  # as the write of a profile: its row, then the user, then the version
            mine = ids[writes_of]
            await writer.execute("select from companion_profiles where user_id = $1 for update", mine)
            moving = asyncio.create_task(supabase_store.move_user([ids["old"]], ids["new"]))
            await until(is_waiting(watch, "companion_move"))
            await writer.execute("select pg_advisory_xact_lock_shared(hashtextextended($1, 13))", mine)
            await writer.execute("update companion_versions set version = version + 1 where user_id = $1", mine)
        assert [erasure.user_id for erasure in await moving] == [ids["old"]]
    assert api.requests == 1
