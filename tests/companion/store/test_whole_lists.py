"""A list of the Supabase store is whole, however few rows PostgREST returns at most."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from companion.store import Memory, OutboxRow, SupabaseStore, Thing, Turn
from tests.real.supabase.postgrest import PostgREST

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CAP = 3
COUNT = 8


@pytest.fixture
async def store(project: str) -> AsyncIterator[SupabaseStore]:
    async with PostgREST(project, max_rows=CAP) as api:
        store = SupabaseStore(api.url, api.secret_key)
        yield store
        await store.close()


async def test_turns(store: SupabaseStore, user: str) -> None:
    turns = [Turn("user", f"{number}", NOON + timedelta(seconds=number), "c") for number in range(COUNT)]
    for turn in turns:
        await store.add_turn(user, turn)
    assert await store.recent_turns(user, COUNT) == turns
    assert await store.recent_turns(user, 5) == turns[-5:]
    assert await store.recent_turns(user, 0) == await store.recent_turns(f"{user}-", 5) == []
    assert (await store.context(user, COUNT)).turns == turns


async def test_memories(store: SupabaseStore, user: str) -> None:
    memories = [Memory(f"likes tea no{number}", NOON + timedelta(seconds=number)) for number in range(COUNT)]
    for memory in memories:
        await store.add_memory(user, memory)
    assert await store.search_memories(user, "", COUNT) == memories[::-1]
    assert {found.id for found in await store.search_memories(user, "tea", COUNT)} == {one.id for one in memories}
    assert (await store.search_memories(user, "no3", COUNT))[0] == memories[3]  # the order is that of the function
    assert await store.count_memories(user) == COUNT


async def test_profile_versions(store: SupabaseStore, user: str) -> None:
    for number in range(COUNT):
        await store.save_profile(user, f"{number}")
    assert [version.text for version in await store.profile_versions(user)] == [f"{n}" for n in range(COUNT)][::-1]
    assert [version.text for version in await store.profile_versions(user, 2)] == [f"{COUNT - 1}", f"{COUNT - 2}"]
    assert await store.profile_versions(user, -1) == []


async def test_erasures(store: SupabaseStore, user: str) -> None:
    users = [f"{user}-{number}" for number in range(COUNT)]
    for one in users:
        await store.erase_user(one, "r")
    pending = [erasure for erasure in await store.pending_erasures(60) if erasure.user_id in users]
    assert [erasure.user_id for erasure in pending] == users
    for erasure in pending:
        await store.acknowledge_erasure(erasure)


async def test_forgotten_things(store: SupabaseStore, user: str) -> None:
    await store.forget(user, [Thing(f"Likes: tea no{number}", ["tea"]) for number in range(COUNT)])
    forgotten = await store.forgotten(user)
    assert all(forgotten.has(f"Likes: tea no{number}") for number in range(COUNT))


async def test_an_export(store: SupabaseStore, user: str) -> None:
    for number in range(COUNT):
        await store.save_profile(user, f"{number}")
        await store.add_turn(user, Turn("user", f"{number}", NOON, "c"))
        await store.add_memory(user, Memory(f"{number}", NOON))
    exported = await store.export_user(user)
    assert len(exported.turns) == len(exported.memories) == len(exported.versions) == COUNT


async def test_the_outbox(store: SupabaseStore, user: str) -> None:
    users = [f"{user}-{number}" for number in range(COUNT)]
    for one in users:
        await store.save_state(one, {})
    rows = [OutboxRow(one, "state", 1) for one in users]
    assert [row for row in await store.pending_changes(1_000_000) if row in rows] == rows
    assert [row for row in await store.recent_changes(60, 1_000_000) if row in rows] == rows[::-1]
    assert len(await store.recent_changes(60, CAP + 1)) == CAP + 1
    await store.acknowledge(rows)
    assert not set(rows) & set(await store.pending_changes(1_000_000))
