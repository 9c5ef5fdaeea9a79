"""What a reader gets while a profile waits for the store: what is stored, with what waits applied to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from companion import Caller, get_user_profile_async, save_user_profile_async, use_caller
from companion.profile_lines import lines_of
from companion.runtime import Runtime
from companion.store import StoreError
from companion.writes import Profile, Spool
from tests.wait import until

pytestmark = pytest.mark.integration
STORED = "Name: Ada\nLives in: Oslo"


class Gate:
    """Holds back the writes of profiles while it is closed, as a lock on the database does. Reads go on."""

    def __init__(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = asyncio.Event()
        self.open.set()
        for name in ("save_profile", "swap_profile"):
            monkeypatch.setattr(runtime.store, name, self._behind(getattr(runtime.store, name)))

    def _behind(self, method: Any) -> Any:
        async def later(*args: Any, **kwargs: Any) -> Any:
            await self.open.wait()
            return await method(*args, **kwargs)

        return later


@pytest.fixture
async def gate(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gate]:
    """The gate of the store of ``runtime``, which holds a profile that an earlier conversation has saved."""
    gate = Gate(runtime, monkeypatch)
    with use_caller(Caller("ada")):
        runtime.write_behind.begin_conversation("ada")
        assert await save_user_profile_async(STORED)
        await runtime.write_behind.end_conversation("ada", 5)
        yield gate
    gate.open.set()


@pytest.mark.parametrize("begun", [True, False])
async def test_what_is_stored_is_read_where_no_conversation_has_read_it(
    runtime: Runtime, gate: Gate, begun: bool
) -> None:
    if begun:
        runtime.write_behind.begin_conversation("ada")
    gate.open.clear()
    runtime.write_behind.add("ada", Profile("Lives in: Bergen", made_from=""))
    runtime.write_behind.add("ada", Profile(f"{STORED}\nWork: pilot", made_from=STORED))
    everything = ["Name: Ada", "Lives in: Oslo", "Lives in: Bergen", "Work: pilot"]
    assert lines_of(await get_user_profile_async()) == everything
    gate.open.set()
    await until(lambda: runtime.write_behind.pending_profile("ada") is None)
    assert lines_of(await get_user_profile_async()) == everything


async def test_what_waits_is_shown_alone_where_the_stored_profile_cannot_be_read(
    runtime: Runtime, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(user_id: str) -> Any:
        raise StoreError("context", "refused")

    gate.open.clear()
    runtime.write_behind.begin_conversation("ada")
    runtime.write_behind.add("ada", Profile("Work: pilot", made_from=""))
    with monkeypatch.context() as failing:
        failing.setattr(runtime.contexts, "get", refused)
        assert await get_user_profile_async() == "Work: pilot"
        assert "ada" in runtime.write_behind.unseen_profiles

        async def silent(user_id: str) -> Any:
            await asyncio.Event().wait()

        failing.setattr(runtime.contexts, "get", silent)
        assert await get_user_profile_async() == "Work: pilot"
    assert lines_of(await get_user_profile_async()) == [*lines_of(STORED), "Work: pilot"]
    assert "ada" not in runtime.write_behind.unseen_profiles


async def test_a_write_that_outlives_its_queue_is_a_part_of_what_is_shown(runtime: Runtime, gate: Gate) -> None:
    """The next conversation has read the profile before the store took it."""
    writes = runtime.write_behind
    writes.begin_conversation("ada")
    await get_user_profile_async()
    gate.open.clear()
    writes.add("ada", Profile(f"{STORED}\nWork: pilot", made_from=STORED))
    await asyncio.sleep(0)  # its first try begins
    await writes.end_conversation("ada", 0)  # of another session of the same person
    writes.begin_conversation("ada")
    assert await get_user_profile_async() == STORED
    gate.open.set()
    await until(lambda: not Spool(runtime.settings.home).files())
    gate.open.clear()
    writes.add("ada", Profile(f"{STORED}\nLikes: tea", made_from=STORED))
    assert lines_of(await get_user_profile_async()) == [*lines_of(STORED), "Work: pilot", "Likes: tea"]


async def test_what_is_replayed_is_a_part_of_what_is_shown(runtime: Runtime, gate: Gate) -> None:
    runtime.write_behind.begin_conversation("ada")
    assert await get_user_profile_async() == STORED
    Spool(runtime.settings.home).add("ada", [Profile("Work: pilot", made_from="")])
    assert await runtime.write_behind.spool_replay.replay() == 1
    gate.open.clear()
    runtime.write_behind.add("ada", Profile(f"{STORED}\nLikes: tea", made_from=STORED))
    assert lines_of(await get_user_profile_async()) == [*lines_of(STORED), "Work: pilot", "Likes: tea"]


async def test_a_queue_ends_after_the_invalidation_of_what_it_has_stored(
    runtime: Runtime, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes, rows = runtime.write_behind, runtime.store.pending_changes_of

    async def slow(*args: Any) -> Any:
        await asyncio.sleep(0.2)
        return await rows(*args)

    writes.begin_conversation("ada")
    for _ in range(2):
        assert await get_user_profile_async() == STORED  # it is cached now
    monkeypatch.setattr(runtime.store, "pending_changes_of", slow)
    writes.add("ada", Profile("Name: Ada", made_from=STORED))
    await until(lambda: writes.stored_profile("ada") == "Name: Ada")
    await writes.end_conversation("ada", 0)
    assert await get_user_profile_async() == "Name: Ada"


async def test_a_read_that_outlives_its_conversation_is_not_taken_for_what_is_stored(
    runtime: Runtime, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes, read = runtime.write_behind, runtime.contexts.get
    has_read, may_return = asyncio.Event(), asyncio.Event()

    async def held(user_id: str) -> Any:
        context = await read(user_id)
        has_read.set()
        await may_return.wait()
        return context

    writes.begin_conversation("ada")
    with monkeypatch.context() as slow:
        slow.setattr(runtime.contexts, "get", held)
        reading = asyncio.create_task(get_user_profile_async())
        await has_read.wait()
    assert await save_user_profile_async("Name: Ada\nLives in: Bergen")
    await writes.end_conversation("ada", 5)
    writes.begin_conversation("ada")
    may_return.set()
    assert await reading == STORED
    gate.open.clear()
    writes.add("ada", Profile("Work: pilot", made_from=""))
    assert lines_of(await get_user_profile_async()) == ["Name: Ada", "Lives in: Bergen", "Work: pilot"]
