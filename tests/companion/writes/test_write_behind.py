"""Writes that the store rejects are queued, retried, and survive the process."""

from __future__ import annotations

import asyncio
import gc
import json
import os
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from weakref import ref

import pytest

from companion import Caller, get_user_profile_async, save_user_profile_async, use_caller
from companion.conversation.turn_log import TurnLog
from companion.memory.context import add_memory_async, search_memories_async
from companion.runtime import Runtime
from companion.store import Memory, StoreError, Summary, Turn
from companion.writes import Profile
from companion.writes.records import Write, from_line, to_line
from companion.writes.relationship import ConversationEnded
from companion.writes.spool import Spool
from tests.lag import within
from tests.wait import until

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WRITES: list[Write] = [
    Turn("user", "I like chess \u2028 \ud800 \n", NOON, "c"),
    Memory("my sister visits", NOON),
    Summary("c", "about chess", NOON),
    Profile("Name: Ada", ("", "Name: A.")),
    ConversationEnded("c", NOON),
]
METHODS = ("add_turn", "add_memory", "save_summary", "save_profile", "swap_profile", "save_state")


class Switch:
    """Makes the store's writes fail or hang while it is off."""

    def __init__(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on = True
        self.hangs = False
        self.calls = 0
        for name in METHODS:
            monkeypatch.setattr(runtime.store, name, self._switched(getattr(runtime.store, name), name))

    def _switched(self, method: Any, name: str) -> Any:
        async def switched(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if not self.on:
                if self.hangs:
                    await asyncio.Event().wait()
                raise StoreError(name, "timeout")
            return await method(*args, **kwargs)

        return switched


@pytest.fixture
def switch(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Switch:
    return Switch(runtime, monkeypatch)


def spool_of(runtime: Runtime) -> Spool:
    return Spool(runtime.settings.home)


# -- as a line ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", WRITES, ids=lambda write: type(write).__name__)
def test_a_line_and_back(write: Write) -> None:
    line = to_line("ada", write)
    assert len(line.splitlines()) == 1
    assert from_line(line) == ("ada", write)


GOOD = json.loads(to_line("ada", WRITES[0]))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "[]",
        "7",
        "{}",
        '"turn"',
        "[" * 100_000,
        json.dumps(GOOD | {"kind": "king"}),
        json.dumps(GOOD | {"kind": []}),
        json.dumps(GOOD | {"at": "yesterday"}),
        json.dumps(GOOD | {"at": "2026-03-01T12:00:00"}),
        json.dumps({"kind": "profile", "user_id": "ada", "text": "x", "at": "2026-03-01T12:00:00"}),
        json.dumps(GOOD | {"at": "0001-01-01T00:00:00+14:00"}),
        json.dumps(GOOD | {"role": "king"}),
        json.dumps(GOOD | {"text": None}),
        json.dumps(GOOD | {"user_id": 7}),
        json.dumps(GOOD | {"more": "x"}),
        json.dumps({name: value for name, value in GOOD.items() if name != "id"} | {"id": 1}),
    ],
)
def test_a_line_that_is_none(line: str) -> None:
    with pytest.raises(ValueError, match="not a line"):
        from_line(line)


# -- while the conversation lasts --------------------------------------------------------------------------------


async def test_what_was_said_is_stored_when_the_store_is_back(runtime: Runtime, switch: Switch) -> None:
    switch.on = False
    log = TurnLog(Caller("ada"), runtime.write_behind)
    for number in range(3):
        log.add(Turn("user", f"word {number}", datetime.now(UTC), "c"))
    with use_caller(Caller("ada")):
        assert await add_memory_async(Memory("my sister visits", NOON)) is False
        assert await save_user_profile_async("Name: Ada") is False
        assert await get_user_profile_async() == "Name: Ada"  # the pending text is served
        switch.on = True
        assert await log.close() == 0
        assert await get_user_profile_async() == "Name: Ada"
        assert await search_memories_async("sister") == ["my sister visits"]
    assert [turn.text for turn in await runtime.store.recent_turns("ada")] == ["word 0", "word 1", "word 2"]
    assert await runtime.store.get_profile("ada") == "Name: Ada"
    assert spool_of(runtime).files() == []


async def test_a_silent_store_holds_an_answer_for_two_seconds_at_most(
    runtime: Runtime, switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("companion.writes.queue.FIRST_TRY", 0.1)
    switch.on, switch.hangs = False, True
    async with within(1.0):
        with use_caller(Caller("ada")):
            assert await save_user_profile_async("Name: Ada") is False


async def test_a_stored_write_is_confirmed_before_its_invalidation(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large keyspace on a server that evicts is scanned, which may take seconds."""
    monkeypatch.setattr("companion.writes.queue.FIRST_TRY", 1.0)
    invalidating, invalidate = asyncio.Event(), runtime.outbox_relay.invalidate_written

    async def slowly(*args: Any) -> None:
        await invalidating.wait()
        await invalidate(*args)

    monkeypatch.setattr(runtime.outbox_relay, "invalidate_written", slowly)
    with use_caller(Caller("ada")):
        assert await add_memory_async(Memory("my sister visits", NOON)) is True
    invalidating.set()
    assert await runtime.write_behind.end_conversation("ada", 5) == 0


async def test_a_write_that_always_fails_blocks_no_other(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add = runtime.store.add_turn

    async def picky(user_id: str, turn: Turn) -> None:
        if "poison" in turn.text:
            raise StoreError("add_turn", "HTTP 400")
        await add(user_id, turn)

    monkeypatch.setattr(runtime.store, "add_turn", picky)
    log = TurnLog(Caller("ada"), runtime.write_behind)
    for text in ("poison", "one", "two"):
        log.add(Turn("user", text, datetime.now(UTC), "c"))

    async def stored() -> bool:
        return [turn.text for turn in await runtime.store.recent_turns("ada")] == ["one", "two"]

    await until(stored)
    assert await log.close(0.1) == 1
    assert "poison" not in caplog.text


async def test_a_cancelled_caller_stops_nothing(runtime: Runtime, switch: Switch) -> None:
    with use_caller(Caller("ada")):
        saving = asyncio.create_task(save_user_profile_async("Name: Ada"))
    await asyncio.sleep(0)
    saving.cancel()
    await asyncio.wait({saving})
    assert await runtime.write_behind.end_conversation("ada", 5) == 0
    assert await runtime.store.get_profile("ada") == "Name: Ada"


async def test_of_two_profiles_the_newer_wins(runtime: Runtime, switch: Switch) -> None:
    with use_caller(Caller("ada")):
        switch.on = False
        await save_user_profile_async("first")
        await save_user_profile_async("second")
        switch.on = True
        assert await save_user_profile_async("third") is True
    assert await runtime.write_behind.end_conversation("ada", 5) == 0
    assert await runtime.store.get_profile("ada") == "third"
    assert await runtime.store.search_memories("ada", "") == []


async def test_a_late_profile_replaces_what_was_there_before(runtime: Runtime, switch: Switch) -> None:
    with use_caller(Caller("ada")):
        assert await save_user_profile_async("Lives in: Bern") is True
        switch.on = False
        assert await save_user_profile_async("Lives in: Oslo") is False
        switch.on = True
        assert await save_user_profile_async("Lives in: Rome") is True
        assert await get_user_profile_async() == "Lives in: Rome"
    assert await runtime.store.search_memories("ada", "") == []


async def test_one_that_overtakes_another_replaces_what_is_there_as_well(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await runtime.store.save_profile("ada", "Name: Ada\nLikes: chess")
    slow = asyncio.Event()
    add_turn = runtime.store.add_turn

    async def slowly(*turn: Any) -> None:
        await slow.wait()
        await add_turn(*turn)

    monkeypatch.setattr(runtime.store, "add_turn", slowly)
    runtime.write_behind.add("ada", next(one for one in WRITES if isinstance(one, Turn)))
    with use_caller(Caller("ada")):
        first = asyncio.create_task(save_user_profile_async("Lives in: Rome"))
        await asyncio.sleep(0)
        second = asyncio.create_task(save_user_profile_async("Lives in: Oslo"))
        await asyncio.sleep(0)
        slow.set()
        await asyncio.wait({first, second})
    assert await runtime.store.get_profile("ada") == "Lives in: Oslo"


async def test_a_late_text_replaces_an_older_one_and_is_added_to_a_newer_one(runtime: Runtime, switch: Switch) -> None:
    await runtime.store.save_profile("ada", "Name: Ada\nLives in: Bern")
    switch.on = False
    with use_caller(Caller("ada")):
        await save_user_profile_async("Lives in: Oslo\nLikes: tea")
    switch.on = True
    assert await runtime.write_behind.end_conversation("ada", 5) == 0
    assert await runtime.store.get_profile("ada") == "Lives in: Oslo\nLikes: tea"
    switch.on = False
    with use_caller(Caller("ada")):
        await save_user_profile_async("Lives in: Oslo\nLikes: chess")
    switch.on = True
    await runtime.store.save_profile("ada", "Lives in: Rome")  # another writer, and a line that it has removed
    assert await runtime.write_behind.end_conversation("ada", 5) == 0
    assert await runtime.store.get_profile("ada") == "Lives in: Rome\nLikes: chess"


# -- after it ----------------------------------------------------------------------------------------------------


async def test_what_is_not_stored_at_the_end_is_stored_next_time(
    runtime: Runtime, switch: Switch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    switch.on = False
    log = TurnLog(Caller("ada"), runtime.write_behind)
    log.add(Turn("user", "my secret", datetime.now(UTC), "c"))
    with use_caller(Caller("ada")):
        await save_user_profile_async("Name: Ada")
    assert await log.close(0.05) == 2
    assert "not stored: 2" in caplog.text
    (path,) = spool_of(runtime).files()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    # The next start, first without the store, then with it.
    assert await runtime.write_behind.spool_replay.replay() == await runtime.write_behind.spool_replay.replay() == 0
    assert spool_of(runtime).files() == [path]
    assert caplog.text.count("what an earlier process could not store still waits") == 1
    switch.on = True
    runtime.write_behind.spool_replay.start()
    await until(lambda: not spool_of(runtime).files())
    assert [turn.text for turn in await runtime.store.recent_turns("ada")] == ["my secret"]
    with use_caller(Caller("ada")):
        assert await get_user_profile_async() == "Name: Ada"
    await until(lambda: "stored what an earlier process could not: 2" in caplog.text)
    assert "my secret" not in caplog.text


async def test_closing_spools_what_is_pending(runtime: Runtime, switch: Switch) -> None:
    switch.on, switch.hangs = False, True
    runtime.write_behind.add("ada", WRITES[0])
    await until(lambda: switch.calls)
    await runtime.write_behind.close()
    assert len(spool_of(runtime).files()) == 1


async def test_stored_writes_are_removed_from_a_file_of_which_others_fail(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = spool_of(runtime)
    spool.add("ada", WRITES)
    (path,) = spool.files()
    taken: list[Write] = []

    async def two(_: str, write: Write) -> None:
        if len(taken) == 2:
            raise StoreError("save_summary", "timeout")
        taken.append(write)

    count, problem = await spool.drain(path, two)
    assert (count, str(problem)) == (2, "save_summary failed: timeout")
    assert [from_line(line) for line in path.read_text().splitlines()] == [("ada", write) for write in WRITES[2:]]
    assert await runtime.write_behind.spool_replay.replay() == len(WRITES) - 2


async def test_two_that_start_at_once_share_the_work(runtime: Runtime) -> None:
    spool = spool_of(runtime)
    spool.add("ada", WRITES)
    (path,) = spool.files()
    inside, go_on, seen = asyncio.Event(), asyncio.Event(), []

    async def slowly(_: str, write: Write) -> None:
        seen.append(write)
        inside.set()
        await go_on.wait()

    first = asyncio.create_task(spool.drain(path, slowly))
    await inside.wait()
    assert await spool.drain(path, slowly) == (0, None)
    go_on.set()
    assert await first == (len(WRITES), None)
    assert len(seen) == len(WRITES)
    assert await spool.drain(path, slowly) == (0, None)


async def test_lines_that_cannot_be_read_are_put_aside(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    spool = spool_of(runtime)
    spool.add("ada", WRITES[:1])
    (path,) = spool.files()
    with path.open("ab") as file:
        file.write(b'{"text": "my secret"\n\xff\xfe\n')
    assert await runtime.write_behind.spool_replay.replay() == 1
    assert [each.suffix for each in spool.folder.iterdir()] == [".unreadable"]
    assert "2 lines" in caplog.text
    assert "my secret" not in caplog.text


async def test_a_file_that_fails_in_another_way_holds_up_no_other(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = spool_of(runtime)
    first, second = spool.add("ada", WRITES[:1]), spool.add("bob", WRITES[:1])
    hand_over = Spool.drain

    async def broken(self: Spool, path: Path, store: Any) -> Any:
        if path == first:
            raise RuntimeError("my secret")
        return await hand_over(self, path, store)

    monkeypatch.setattr(Spool, "drain", broken)
    assert await runtime.write_behind.spool_replay.replay() == 1
    assert (first.exists(), second.exists()) == (True, False)
    assert "still waits: RuntimeError" in caplog.text
    assert "my secret" not in caplog.text


async def test_a_home_that_cannot_be_written(
    runtime: Runtime, switch: Switch, caplog: pytest.LogCaptureFixture
) -> None:
    runtime.settings.home.parent.mkdir(parents=True, exist_ok=True)
    runtime.settings.home.write_text("a file where a folder should be")
    switch.on = False
    runtime.write_behind.add("ada", WRITES[0])
    assert await runtime.write_behind.end_conversation("ada", 0.05) == 1
    assert "not stored, and lost: 1. COMPANION_HOME cannot be written" in caplog.text
    assert await runtime.write_behind.spool_replay.replay() == 0


def test_no_file_is_left_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    spool = Spool(tmp_path)
    with pytest.raises(OSError, match="space"):
        spool.add("ada", WRITES)
    assert spool.files() == []


async def test_one_that_is_never_taken_holds_up_no_other_file(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = runtime.store.add_turn

    async def picky(user_id: str, turn: Turn) -> None:
        if "poison" in turn.text:
            raise StoreError("add_turn", "SQLITE_CONSTRAINT")
        await add(user_id, turn)

    monkeypatch.setattr(runtime.store, "add_turn", picky)
    spool = spool_of(runtime)
    for user in ("ada", "bea", "cleo"):
        spool.add(user, [Turn("user", text, NOON, "c") for text in ("poison", "one", "poison", "poison", "two")])
    (spool.folder / "0.jsonl").mkdir()  # a file that cannot be read
    assert await runtime.write_behind.spool_replay.replay() == 6
    for user in ("ada", "bea", "cleo"):
        assert len(await runtime.store.recent_turns(user)) == 2
    rest = [from_line(line)[1].text for path in spool.files() if path.is_file() for line in path.open()]
    assert rest == ["poison"] * 9


async def test_a_store_that_is_away_is_not_asked_for_everything(runtime: Runtime, switch: Switch) -> None:
    switch.on = False
    for number in range(20):
        spool_of(runtime).add(f"user-{number}", WRITES[:1] * 20)
    assert await runtime.write_behind.spool_replay.replay() == 0
    assert switch.calls == 6
    assert len(spool_of(runtime).files()) == 20


async def test_of_two_late_profiles_the_newer_wins(runtime: Runtime) -> None:
    spool = spool_of(runtime)
    for text in ("Lives in: Bern", "Lives in: Paris", "Lives in: Rome"):
        spool.add("ada", [Profile(text)])
    assert await runtime.write_behind.spool_replay.replay() == 3
    assert await runtime.store.get_profile("ada") == "Lives in: Rome"


@pytest.mark.parametrize("first", [0, 1])
async def test_of_two_late_profiles_the_one_written_later_wins(runtime: Runtime, first: int) -> None:
    """In either order: a file that was rejected once is behind the others."""
    late = [Profile("Lives in: Oslo", at=NOON), Profile("Lives in: Paris", at=NOON + timedelta(hours=1))]
    for write in (late[first], late[1 - first]):
        spool_of(runtime).add("ada", [write])
        assert await runtime.write_behind.spool_replay.replay() == 1
    both = ["Lives in: Paris", "Lives in: Paris\nLives in: Oslo"]  # a text without a base replaces no newer line
    assert await runtime.store.get_profile("ada") == both[first]


async def test_a_late_profile_is_older_than_what_was_said_since(runtime: Runtime) -> None:
    spool_of(runtime).add("ada", [Profile("Lives in: Bern\nLikes: tea", at=NOON)])
    with use_caller(Caller("ada")):
        assert await save_user_profile_async("Lives in: Rome") is True
        for _ in range(2):  # a reader may die before it has removed the file
            spool_of(runtime).add("ada", [Profile("Lives in: Bern\nLikes: tea", at=NOON)])
            await runtime.write_behind.spool_replay.replay()
            assert await get_user_profile_async() == "Lives in: Rome\nLives in: Bern\nLikes: tea"


async def test_what_is_stored_after_all_is_not_stored_again(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that succeeds after the conversation has stopped waiting for it."""
    save, go_on = runtime.store.save_profile, asyncio.Event()

    async def slowly(*args: Any, **kwargs: Any) -> None:
        await go_on.wait()
        await save(*args, **kwargs)

    monkeypatch.setattr(runtime.store, "save_profile", slowly)
    runtime.write_behind.add("ada", Profile("Lives in: Paris"), WRITES[0])
    assert await runtime.write_behind.end_conversation("ada", 0.05) == 2
    (path,) = spool_of(runtime).files()
    go_on.set()
    await until(lambda: len(path.read_text().splitlines()) == 1)
    await save("ada", "Lives in: Rome")
    assert await runtime.write_behind.spool_replay.replay() == 1
    assert await runtime.store.get_profile("ada") == "Lives in: Rome"


async def test_a_turn_that_is_stored_after_all_keeps_the_mark_that_waits_behind_it(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start stores it: what was refused or forgotten would be brought up otherwise."""
    asked, landing, add_turn = asyncio.Event(), asyncio.Event(), runtime.store.add_turn

    async def slowly(*args: Any) -> None:
        asked.set()
        await landing.wait()
        await add_turn(*args)

    monkeypatch.setattr(runtime.store, "add_turn", slowly)
    said = Turn("user", "my password is hunter2", NOON, "c")
    runtime.write_behind.begin_conversation("ada")
    runtime.write_behind.add("ada", said, replace(said, skipped=True))
    await asked.wait()
    assert await runtime.write_behind.end_conversation("ada", timeout=0) == 2
    (path,) = spool_of(runtime).files()
    landing.set()
    await until(lambda: not path.exists() or len(path.read_text().splitlines()) == 1)
    assert await runtime.write_behind.spool_replay.replay() == 1
    assert [turn.skipped for turn in (await runtime.store.context("ada", 2)).turns] == [True]


async def _leaving(runtime: Runtime, switch: Switch, turns: int) -> asyncio.Task[int]:
    """A conversation that ends while the store is away, so many turns of the loop after it began to."""
    switch.on = False
    runtime.write_behind.add("ada", *WRITES)
    await until(lambda: switch.calls)
    leaving = asyncio.create_task(runtime.write_behind.end_conversation("ada", 0.0))
    for _ in range(turns):
        await asyncio.sleep(0)
    return leaving


@pytest.mark.parametrize("turns", range(12))
async def test_cancellation_while_spooling_loses_nothing(runtime: Runtime, switch: Switch, turns: int) -> None:
    leaving = await _leaving(runtime, switch, turns)
    leaving.cancel()
    await asyncio.wait({leaving})
    await runtime.write_behind.close()
    await until(lambda: spool_of(runtime).files())
    switch.on = True
    assert await runtime.write_behind.spool_replay.replay() == len(WRITES)


@pytest.mark.parametrize("turns", range(0, 12, 2))
async def test_a_conversation_that_begins_while_another_ends_has_a_file_of_its_own(
    runtime: Runtime, switch: Switch, turns: int
) -> None:
    leaving = await _leaving(runtime, switch, turns)
    runtime.write_behind.add("ada", Memory("my brother visits", NOON))
    await leaving
    await runtime.write_behind.close()
    switch.on = True
    assert await runtime.write_behind.spool_replay.replay() == len(WRITES) + 1


async def test_two_conversations_of_one_person(
    runtime: Runtime, switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first conversation to end does not abandon writes of the other one."""
    monkeypatch.setattr("companion.writes.spool.keeper.GRACE", 60.0)  # what is in the spool was put there by an end
    first, second = TurnLog(Caller("ada"), runtime.write_behind), TurnLog(Caller("ada"), runtime.write_behind)
    switch.on = False
    with use_caller(Caller("ada")):
        await save_user_profile_async("Name: Ada")
        assert await first.close(0.05) == 1
        assert await get_user_profile_async() == "Name: Ada"
        assert spool_of(runtime).files() == []
        switch.on = True
        assert await second.close() == 0
    assert await runtime.store.get_profile("ada") == "Name: Ada"


async def test_what_ends_well_while_all_is_being_closed_is_not_stored_again(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = runtime.store.save_profile

    async def slowly(*args: Any, **kwargs: Any) -> None:
        await asyncio.sleep(0.1)
        await save(*args, **kwargs)

    monkeypatch.setattr(runtime.store, "save_profile", slowly)
    monkeypatch.setattr("companion.caching.outbox_relay.DRAIN_TIMEOUT", 10.0)
    runtime.write_behind.add("ada", Profile("Lives in: Paris"))
    assert await runtime.write_behind.end_conversation("ada", 0.02) == 1
    assert len(spool_of(runtime).files()) == 1
    await runtime.close()
    assert spool_of(runtime).files() == []


async def test_nothing_is_held_of_who_writes_without_a_conversation(runtime: Runtime) -> None:
    """As a conversation does that wraps up: a task holds the context of its caller, and so their session."""

    class Session:
        pass

    async def write() -> None:
        session.set(Session())
        held.append(ref(session.get()))
        with use_caller(Caller("ada")):
            assert await add_memory_async(Memory("likes tea", NOON))

    session: ContextVar[Session] = ContextVar("session")
    held: list[ref[Session]] = []
    await asyncio.create_task(write())

    def nothing() -> bool:
        gc.collect()
        return held[0]() is None

    await until(nothing)
    assert spool_of(runtime).files() == []
