"""Erasing a person: nothing is left anywhere, whatever fails or goes on meanwhile, and nothing comes back."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cache import get_redis_cache, keys
from companion import Caller, get_user_profile_async, save_user_profile_async, use_caller
from companion.caching.cached_data import CACHED_DATA
from companion.caching.search_keys import search_key
from companion.conversation.turn_log import TurnLog
from companion.memory.context import add_memory_async, save_user_state_async
from companion.memory.erasure import erase_user, export_user
from companion.runtime import Runtime
from companion.store import Memory, PersonData, StoreError, Turn
from companion.writes import Profile, Spool
from companion.writes.records import to_line
from companion.writes.spool.wishes import Wishes
from tests.companion.memory import erasure_worker
from tests.companion.processes import Worker
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration
NOTHING = PersonData(None, [], [], [], [], None)
WORD = "zanzibarquokka"  # only the erased person says it
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
Start = Callable[[], Awaitable[Worker]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the runtime's store."""
    return tmp_path / "store" / "companion.db"


@pytest.fixture
async def start(runtime: Runtime, path: Path, redis_server: RedisServer) -> AsyncIterator[Start]:
    """Starts workers on the runtime's store and spool."""
    workers: list[Worker] = []

    async def start() -> Worker:
        worker = await asyncio.to_thread(Worker, erasure_worker.work, path, runtime.settings.home, redis_server.url)
        workers.append(worker)
        assert await worker.answer() == "ready"
        return worker

    yield start
    await asyncio.gather(*(worker.ended() for worker in workers))


def in_files(*folders: Path) -> list[str]:
    """The names of the files that hold the word, in whatever form they do."""
    found = []
    for path in (path for folder in folders for path in folder.rglob("*") if path.suffix != ".aof"):
        with suppress(FileNotFoundError):  # a file that is renamed meanwhile
            if path.is_file() and WORD.encode() in path.read_bytes():
                found.append(path.name)
    return found


def in_redis(server: RedisServer, word: str = WORD) -> list[str]:
    """The keys whose name or value holds the word."""
    reads = {"string": ("GET",), "set": ("SMEMBERS",), "hash": ("HGETALL",)}
    found = []
    for key in server.cli("KEYS", "*"):
        (command,) = reads[server.cli("TYPE", key)]
        # Not as a part of a random number in hexadecimal digits.
        if re.search(rf"(?<![0-9a-f]){word}(?![0-9a-f])", f"{key} {server.cli(command, key)}"):
            found.append(key)
    return found


async def talk(runtime: Runtime, caller: Caller | None = None) -> TurnLog:
    """Say something of every kind, and let it be stored and cached."""
    caller = caller or Caller("ada")
    with use_caller(caller):
        assert await save_user_profile_async(f"Likes: {WORD}")
        assert await add_memory_async(Memory(f"keeps a {WORD}", NOON))
        assert await save_user_state_async({"stage": WORD})
        log = TurnLog(caller, runtime.write_behind)
        log.add(Turn("user", f"I love {WORD}", NOON, log.conversation_id))
        await until(lambda: runtime.store.recent_turns("ada"))
    return log


async def fill_redis() -> None:
    """Every family of key of a user, its last good value and lease, and what another program keeps there."""
    cache = await get_redis_cache()
    for family in keys.FAMILIES:
        await cache.set(f"user:ada:{family}", WORD)
    await cache.set(search_key("ada", WORD), [WORD])
    await cache.set("user:ada:of-another-program", WORD)
    for data in CACHED_DATA.values():
        key = data.key("ada")
        await cache.delete(key)

        async def load() -> str:
            return WORD

        await cache.get_or_load(key, load, ttl=60, stale_for=60)


async def completed(runtime: Runtime) -> None:
    """Do what a start does, and every half minute after it, until all erasures are done."""

    async def try_again() -> bool:
        await runtime.write_behind.spool_replay.replay()
        await runtime.outbox_relay.erasures.deliver_pending()
        return not Spool(runtime.settings.home).wishes.all()

    await until(try_again, timeout=30)


async def test_no_byte_is_left(runtime: Runtime, redis_server: RedisServer, path: Path) -> None:
    await talk(runtime)
    await fill_redis()
    home, folder = runtime.settings.home, Spool(runtime.settings.home).folder
    Spool(home).add("ada", [Profile(f"Likes: {WORD}", at=NOON)])
    line = to_line("ada", Memory(WORD, NOON))
    (folder / "torn.jsonl").write_text(line[:-9])
    (folder / "old.unreadable").write_text(f"{line[20:]}\n")
    (folder / "killed.new").write_text(line)
    (folder / "later.kind").write_text(line)
    assert len(in_redis(redis_server)) > 8
    assert in_files(home, path.parent)
    assert await erase_user("ada") is True
    assert in_files(home, path.parent) == []
    assert in_redis(redis_server) == []
    assert in_redis(redis_server, "ada") == []
    assert list(folder.iterdir()) == []
    assert await export_user("ada") == NOTHING
    assert await runtime.store.pending_erasures(60.0) == []


async def test_others_lose_nothing(runtime: Runtime, redis_server: RedisServer) -> None:
    spool = Spool(runtime.settings.home)
    kept = spool.add("eve", [Memory("a word that ada says too", NOON)])
    later = spool.folder / "later.unreadable"
    lines = ['{"user_id": "eve", "kind": "of a later version"}', to_line("eve", Memory("tea", NOON))[:40]]
    later.write_text("\n".join([*lines, "which names no user"]) + "\n")
    await runtime.store.save_profile("eve", "Likes: tea")
    await (await get_redis_cache()).set(keys.profile("eve"), "Likes: tea")
    assert await erase_user("ada") is True
    assert kept.read_text()
    assert later.read_text().splitlines() == lines
    assert await runtime.store.get_profile("eve") == "Likes: tea"
    assert in_redis(redis_server, "eve") == ["user:eve:profile"]


async def test_unreadable_lines_go_when_their_time_comes(runtime: Runtime) -> None:
    """Those that another process, or another machine, puts aside after the erasure."""
    assert await erase_user("ada") is True
    folder = Spool(runtime.settings.home).folder
    lines = {user: to_line(user, Memory(WORD, NOON))[:-9] for user in ("ada", "eve")}
    (folder / "torn.jsonl").write_text("\n".join([*lines.values(), f"{WORD} of whom?"]))
    await runtime.write_behind.spool_replay.replay()
    await runtime.write_behind.spool_replay.replay()
    (file,) = folder.iterdir()
    assert file.read_text().splitlines() == [lines["eve"]]


# -- what goes on meanwhile ----------------------------------------------------------------------------------------


async def test_a_conversation_that_goes_on_brings_nothing_back(runtime: Runtime) -> None:
    caller = Caller("ada")
    log = await talk(runtime, caller)
    assert await erase_user("ada") is True
    log.add(Turn("user", f"about {WORD}", NOON, log.conversation_id))
    with use_caller(caller):
        assert await save_user_profile_async(f"Likes: {WORD}", made_from="") is False
        assert await add_memory_async(Memory(f"keeps a {WORD}", NOON)) is False
        assert await save_user_state_async({"stage": WORD}) is False
    assert await log.close() == 0
    assert await export_user("ada") == NOTHING
    assert Spool(runtime.settings.home).files() == []


async def test_who_comes_back_is_remembered_anew(runtime: Runtime) -> None:
    await talk(runtime)
    assert await erase_user("ada") is True
    log = await talk(runtime, Caller("ada"))
    assert await log.close() == 0
    assert (await export_user("ada")).profile == f"Likes: {WORD}"
    with use_caller(Caller("ada")):
        assert await get_user_profile_async() == f"Likes: {WORD}"


async def test_who_comes_back_and_speaks_at_once_is_remembered(runtime: Runtime) -> None:
    """Words are dated when it is known when their conversation began, also if another process has erased."""
    await runtime.store.erase_user("ada", "by another process")
    log = TurnLog(Caller("ada"), runtime.write_behind)
    log.add(Turn("user", "I am back", NOON, log.conversation_id))
    assert await log.close() == 0
    assert [turn.text for turn in await runtime.store.recent_turns("ada")] == ["I am back"]


async def test_who_comes_back_to_a_store_that_is_away_is_remembered(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused as words of before the erasure, they wait until it is known when their conversation began."""
    await runtime.store.erase_user("ada", "by another process")

    async def fail() -> int:
        raise StoreError("latest_erasure", "timeout")

    log = TurnLog(Caller("ada"), runtime.write_behind)
    with monkeypatch.context() as outage:
        outage.setattr(runtime.store, "latest_erasure", fail)
        log.add(Turn("user", "I am back", NOON, log.conversation_id))
        with use_caller(log.caller):
            assert await add_memory_async(Memory("likes tea", NOON)) is False, "not yet"
        assert await runtime.store.recent_turns("ada") == []
    assert await log.close() == 0
    kept = await export_user("ada")
    assert ([turn.text for turn in kept.turns], [fact.text for fact in kept.memories]) == (["I am back"], ["likes tea"])


@pytest.mark.parametrize("erased", [False, True])
async def test_an_answer_that_is_late_counts_no_erasure_after_the_beginning(
    runtime: Runtime, path: Path, monkeypatch: pytest.MonkeyPatch, erased: bool
) -> None:
    """Where no person was erased since, it is as good as an answer in time; else what was said may be of before."""
    await runtime.store.erase_user("ada", "long ago")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE erasures SET at = at - 3600000000")
    monkeypatch.setattr("companion.writes.beginnings.AT_ONCE", 0.0)
    ada = Caller("ada")
    if erased:
        await runtime.store.erase_user("ada", "after the beginning")
    log = TurnLog(ada, runtime.write_behind)
    log.add(Turn("user", "my secret", NOON, log.conversation_id))
    assert await log.close() == 0
    assert len(await runtime.store.recent_turns("ada")) == (not erased)


async def test_a_conversation_of_before_does_not_learn_of_the_erasure_from_a_later_one(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its store was away as it began, and another conversation of its process has begun after the erasure."""

    async def fail() -> int:
        raise StoreError("latest_erasure", "timeout")

    monkeypatch.setattr("companion.writes.beginnings.AT_ONCE", 0.0)
    with monkeypatch.context() as outage:
        outage.setattr(runtime.store, "latest_erasure", fail)
        before = TurnLog(Caller("ada"), runtime.write_behind)
        with use_caller(before.caller):
            await runtime.write_behind.beginnings.number("ada")
        number = await runtime.store.erase_user("ada", "by another process")
        runtime.write_behind.beginnings.learn(number)
        before.add(Turn("user", "still away", NOON, before.conversation_id))
        await asyncio.sleep(0.2)
        assert await runtime.store.recent_turns("ada") == []
    before.add(Turn("user", "and back", NOON, before.conversation_id))
    assert await before.close() == 0
    assert await export_user("ada") == NOTHING


async def test_what_is_withdrawn_before_it_is_dated_is_not_stored(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, answer = runtime.store.latest_erasure, asyncio.Event()

    async def late() -> int:
        await answer.wait()
        return await read()

    monkeypatch.setattr(runtime.store, "latest_erasure", late)
    log = TurnLog(Caller("ada"), runtime.write_behind)
    with use_caller(log.caller):
        runtime.write_behind.add("ada", Memory("likes tea", NOON), Memory("likes rum", NOON))
    assert len(await runtime.write_behind.withdraw_fact("ada", "likes rum")) == 1
    assert len(await runtime.write_behind.withdraw_fact("ada", "likes tea")) == 1
    answer.set()
    assert await log.close() == 0
    assert await export_user("ada") == NOTHING


async def test_a_late_answer_of_before_an_erasure_is_not_the_latest(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, asked, answer = runtime.store.latest_erasure, asyncio.Event(), asyncio.Event()

    async def late() -> int:
        number = await read()
        asked.set()
        await answer.wait()
        return number

    async def fail() -> int:
        raise StoreError("latest_erasure", "timeout")

    with monkeypatch.context() as slow:
        slow.setattr(runtime.store, "latest_erasure", late)
        bob = Caller("bob")
        others = TurnLog(bob, runtime.write_behind)
        await asked.wait()
    assert await erase_user("ada") is True
    answer.set()
    await until(lambda: bob.beginning.erasures is not None)
    with monkeypatch.context() as outage:
        outage.setattr(runtime.store, "latest_erasure", fail)
        log = TurnLog(Caller("ada"), runtime.write_behind)
        log.add(Turn("user", "I am back", NOON, log.conversation_id))
        assert await log.close() == 0
    assert [turn.text for turn in await runtime.store.recent_turns("ada")] == ["I am back"]
    await others.close()


async def test_a_conversation_that_begins_in_an_outage_is_known_as_a_later_one(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as this machine has heard of erasures, also if the process is a new one."""
    assert await erase_user("ada") is True
    await until((runtime.settings.home / "erasures").exists)
    later = Runtime(runtime.settings, store=runtime.store)

    async def fail(*_: object) -> int:
        raise StoreError("latest_erasure", "timeout")

    with monkeypatch.context() as outage:
        outage.setattr(runtime.store, "latest_erasure", fail)
        with use_caller(Caller("ada")):
            await later.write_behind.write("ada", Memory("likes tea", NOON))
    assert [fact.text for fact in (await export_user("ada")).memories] == ["likes tea"]
    await later.write_behind.close()


async def test_what_waited_in_a_queue_or_a_spool_is_dropped(
    runtime: Runtime, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("companion.writes.queue.FIRST_TRY", 0.3)
    spool = Spool(runtime.settings.home)
    await runtime.store.get_profile("ada")  # creates the file
    with use_caller(Caller("ada")), closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await add_memory_async(Memory(f"keeps a {WORD}", NOON)) is False
        await until(spool.files)
        erasing = asyncio.create_task(erase_user("ada"))
        await until(lambda: runtime.write_behind.waiting_facts("ada") == [])
        other.execute("ROLLBACK")
    assert await erasing is True
    await until(lambda: spool.files() == [])
    assert await export_user("ada") == NOTHING


async def test_other_processes_forget_within_a_second(
    start: Start, runtime: Runtime, redis_server: RedisServer, path: Path
) -> None:
    """Three processes with near caches, in the middle of a conversation each, and one of them erases."""
    await talk(runtime)
    workers = [await start() for _ in range(3)]
    for worker in workers:
        await worker.do("begin")
        assert await worker.do(f"read {WORD}") == f"Likes: {WORD}"
        assert WORD in await worker.do("near")
    assert await workers[0].do("erase") is True

    async def forgotten() -> bool:
        return not any([WORD in await worker.do("near") for worker in workers])

    await until(forgotten, timeout=1.0)
    for worker in workers[1:]:
        await worker.do(f"say {WORD}")
        assert await worker.do(f"profile Likes: {WORD}") is False
        assert await worker.do(f"fact keeps a {WORD}") is False
        assert await worker.do("read tea") == ""
    assert await forgotten()
    assert in_redis(redis_server) == []
    await until(lambda: in_files(runtime.settings.home, path.parent) == [])
    assert await export_user("ada") == NOTHING
    await workers[1].do("begin")
    assert await workers[1].do("profile Likes: tea") is True


# -- what fails ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", erasure_worker.STEPS)
async def test_a_killed_erasure_is_completed_by_the_next_start(
    start: Start, runtime: Runtime, redis_server: RedisServer, path: Path, step: str
) -> None:
    await talk(runtime)
    await fill_redis()
    Spool(runtime.settings.home).add("ada", [Memory(f"spooled {WORD}", NOON)])
    worker = await start()
    await worker.do(f"die {step}")
    assert await worker.do("erase") is None
    await completed(runtime)
    assert in_files(runtime.settings.home, path.parent) == []
    assert in_redis(redis_server) == in_redis(redis_server, "ada") == []
    assert await export_user("ada") == NOTHING
    assert list(Spool(runtime.settings.home).folder.iterdir()) == []
    assert await runtime.store.pending_erasures(60.0) == []


async def test_an_erasure_waits_for_the_store(
    runtime: Runtime, redis_server: RedisServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await talk(runtime)
    await fill_redis()

    async def fail(*_: object) -> int:
        raise StoreError("erase_user", "SQLITE_BUSY")

    with monkeypatch.context() as outage:
        outage.setattr(runtime.store, "erase_user", fail)
        assert await erase_user("ada") is False
        assert in_redis(redis_server) == [], "no greeting uses a last good value in the meantime"
    (wish,) = Spool(runtime.settings.home).folder.iterdir()
    assert wish.read_text() == "ada\n"
    await completed(runtime)
    assert in_files(runtime.settings.home, path.parent) == []
    assert in_redis(redis_server) == []
    assert await export_user("ada") == NOTHING


async def test_a_store_that_is_silent_does_not_hold_up_who_asked(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await talk(runtime)
    answers, erase = asyncio.Event(), runtime.store.erase_user

    async def silent(user_id: str, request: str) -> int:
        await answers.wait()
        return await erase(user_id, request)

    monkeypatch.setattr(runtime.store, "erase_user", silent)
    assert await erase_user("ada", wait=0.01) is False
    answers.set()

    async def erased() -> bool:
        return await export_user("ada") == NOTHING

    await until(erased)
    assert await export_user("ada") == NOTHING


async def test_a_silent_move_of_earlier_ids_does_not_hold_it_up(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await talk(runtime)
    await runtime.store.save_profile("sip_1", WORD)
    monkeypatch.setattr(runtime.store, "move_user", lambda *_: asyncio.Event().wait())
    assert await erase_user("ada", ("sip_1", "sip_2")) is True
    for each in ("ada", "sip_1", "sip_2"):
        assert await export_user(each) == NOTHING


async def test_the_wish_for_all_ids_is_on_disk_before_the_store_is_asked(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill at any later moment loses nothing; a replay then erases each id, the current one last."""
    await talk(runtime)
    await runtime.store.save_profile("sip_1", WORD)
    kept, asked = Spool(runtime.settings.home), []

    async def fail(*given: Any) -> Any:
        asked.append([user_ids for _, user_ids, _ in kept.wishes.all()])
        raise StoreError("write", "timeout")

    with monkeypatch.context() as outage:
        for method in ("move_user", "erase_user"):
            outage.setattr(runtime.store, method, fail)
        assert await erase_user("ada", ("sip_1", "sip_2", "ada")) is False
    assert asked[0] == [["sip_1", "sip_2", "ada"]]
    assert await runtime.write_behind.eraser.waits_for("sip_1")
    await completed(runtime)
    for each in ("ada", "sip_1", "sip_2"):
        assert await export_user(each) == NOTHING
        assert await runtime.store.is_erased(each, 0)


async def test_a_conversation_that_knows_an_id_of_before_erases_the_person(
    runtime: Runtime, redis_server: RedisServer, path: Path
) -> None:
    """It began before the person was moved, or runs in a worker without the key."""
    await talk(runtime)
    await runtime.store.save_profile("sip_1", WORD)
    (moved,) = await runtime.store.move_user(["sip_1"], "ada")
    await runtime.outbox_relay.erasures.deliver(moved)
    await fill_redis()
    Spool(runtime.settings.home).add("ada", [Memory(WORD, NOON)])
    assert await erase_user("sip_1") is True
    assert in_files(runtime.settings.home, path.parent) == []
    assert in_redis(redis_server) == in_redis(redis_server, "ada") == []
    assert await runtime.store.pending_erasures(60.0) == []


async def test_who_comes_back_completes_what_was_cut_short(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """The erasure waited for the store; their next call begins before a replay has done it."""
    await talk(runtime)

    async def fail(*_: object) -> int:
        raise StoreError("erase_user", "timeout")

    with monkeypatch.context() as outage:
        outage.setattr(runtime.store, "erase_user", fail)
        assert await erase_user("ada") is False
    with use_caller(Caller("ada")):
        assert await add_memory_async(Memory("likes tea", NOON)) is True
    await runtime.write_behind.spool_replay.replay()
    kept = await export_user("ada")
    assert [fact.text for fact in kept.memories] == ["likes tea"]
    assert WORD not in repr(kept)


async def test_an_erasure_waits_for_redis(
    runtime: Runtime, redis_server: RedisServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_DEADLINE_MS", "300")
    await talk(runtime)
    await fill_redis()
    redis_server.pause()
    try:
        assert await erase_user("ada") is False
    finally:
        redis_server.resume()
    assert in_files(runtime.settings.home, path.parent) == []
    cache = await get_redis_cache()
    await until(lambda: cache.connected)
    await until(runtime.outbox_relay.erasures.deliver_pending)
    assert in_redis(redis_server) == in_redis(redis_server, "ada") == []
    assert await runtime.store.pending_erasures(60.0) == []


async def test_a_spool_that_cannot_be_written_delays_nothing(
    runtime: Runtime, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await talk(runtime)

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Wishes, "add", full)
    assert await erase_user("ada") is True
    assert in_files(path.parent) == []


async def test_a_cancelled_caller_stops_nothing(runtime: Runtime, path: Path) -> None:
    await talk(runtime)
    erasing = asyncio.create_task(erase_user("ada"))
    await asyncio.sleep(0)
    erasing.cancel()
    await asyncio.wait({erasing})
    await until(lambda: in_files(runtime.settings.home, path.parent) == [])


async def test_a_redis_that_was_restored_serves_nothing_of_before(runtime: Runtime) -> None:
    await runtime.store.save_profile("eve", "Likes: tea")
    assert await runtime.outbox_relay.recent.redeliver() is True
    assert await erase_user("ada") is True
    assert await runtime.outbox_relay.recent.redeliver() is False  # then everything of all users goes
