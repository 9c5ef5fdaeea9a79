"""What waits for the store is on the disk: kill -9 at any moment loses nothing, and a healthy store costs no write."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from companion import Caller
from companion.conversation.turn_log import TurnLog
from companion.runtime import Runtime
from companion.settings import Settings
from companion.store import Memory, SqliteStore, StoreError, Turn
from companion.writes.records import from_line, to_line
from companion.writes.spool import Spool
from companion.writes.spool.file import SpoolFile
from companion.writes.spool.keeper import GRACE
from tests.companion.processes import Worker
from tests.companion.writes import outage_worker
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OLD_LINES = Path(__file__).with_name("spool_of_d094e41.jsonl")


Start = Callable[..., Awaitable[Worker]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the runtime's store."""
    return tmp_path / "store" / "companion.db"


@pytest.fixture
async def start(runtime: Runtime, path: Path, redis_server: RedisServer) -> AsyncIterator[Start]:
    """Starts workers on the runtime's store and spool."""
    workers: list[Worker] = []

    async def start(kind: str = "") -> Worker:
        worker = await asyncio.to_thread(
            Worker, outage_worker.work, path, runtime.settings.home, redis_server.url, kind
        )
        workers.append(worker)
        assert await worker.answer() == "ready"
        return worker

    yield start
    await asyncio.gather(*(worker.ended() for worker in workers))


def spool_of(runtime: Runtime) -> Spool:
    return Spool(runtime.settings.home)


def spooled(spool: Spool) -> list[Any]:
    lines = [line for path in spool.files() for line in path.read_text(encoding="utf-8").splitlines()]
    return [from_line(line)[1] for line in lines]


# -- kill -9 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outage", ["locked", "silent"])
async def test_a_conversation_killed_during_an_outage_is_stored_by_the_next_start(
    start: Start, runtime: Runtime, path: Path, outage: str
) -> None:
    spool, store = spool_of(runtime), runtime.store
    await store.get_profile("ada")  # creates the file
    worker = await start("silent" if outage == "silent" else "")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        if outage == "locked":
            other.execute("BEGIN IMMEDIATE")
        await worker.do("say 20")
        if outage == "locked":
            assert await worker.do("fact My sister visits on Friday") is False
            assert await worker.do("profile Name: Ada") is False
        await until(lambda: len(spooled(spool)) == (22 if outage == "locked" else 20), timeout=30)
        await worker.kill()
    assert await runtime.write_behind.spool_replay.replay() == (22 if outage == "locked" else 20)
    assert [turn.text for turn in await store.recent_turns("ada", 50)] == [f"turn {number}" for number in range(20)]
    if outage == "locked":
        assert [memory.text for memory in await store.search_memories("ada", "")] == ["My sister visits on Friday"]
        assert await store.get_profile("ada") == "Name: Ada"
    assert list(spool.folder.iterdir()) == []


async def test_a_write_that_was_stored_before_the_kill_is_not_stored_twice(start: Start, runtime: Runtime) -> None:
    worker = await start("deadly")
    worker.send("say 1")
    while await worker.answer() is not None:
        pass
    assert await worker.ended() == -signal.SIGKILL
    assert len(spooled(spool_of(runtime))) == 1
    assert len(await runtime.store.recent_turns("ada")) == 1
    assert await runtime.write_behind.spool_replay.replay() == 1
    assert len(await runtime.store.recent_turns("ada")) == 1
    assert spool_of(runtime).files() == []


async def test_the_file_of_a_living_process_is_left_to_it(start: Start, runtime: Runtime) -> None:
    worker = await start("silent")
    await worker.do("say 3")
    await until(lambda: len(spooled(spool_of(runtime))) == 3)
    assert await runtime.write_behind.spool_replay.replay() == 0
    assert len(spooled(spool_of(runtime))) == 3
    await worker.kill()
    assert await runtime.write_behind.spool_replay.replay() == 3


async def test_two_processes_that_drain_at_once_share_the_work(start: Start, runtime: Runtime, path: Path) -> None:
    spool = spool_of(runtime)
    turns = [Turn("user", f"turn {number}", NOON, "c", id=f"t{number}") for number in range(60)]
    for first in range(0, 60, 3):
        spool.add("ada", turns[first : first + 3])
    workers = await asyncio.gather(start(), start())
    counts = await asyncio.gather(*(worker.do("replay") for worker in workers))
    assert sum(counts) == 60
    assert spool.files() == []
    assert {turn.id for turn in await runtime.store.recent_turns("ada", 100)} == {turn.id for turn in turns}
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM turns").fetchone() == (60,)


# -- upgrades ----------------------------------------------------------------------------------------------------


async def test_a_file_of_commit_d094e41_is_replayed(runtime: Runtime) -> None:
    spool = spool_of(runtime)
    spool.folder.mkdir(parents=True)
    (spool.folder / "0.jsonl").write_bytes(OLD_LINES.read_bytes())
    assert await runtime.write_behind.spool_replay.replay() == 7
    assert list(spool.folder.iterdir()) == []
    context = await runtime.store.context("ada")
    assert [turn.id for turn in context.turns] == ["t1", "t2"]
    assert context.profile == "Name: Ada\nLikes: chess\nLives in: Oslo"
    assert context.summary is not None
    assert context.summary.text == "about chess"
    assert context.state is not None
    assert context.state["conversations"] == 1
    assert [memory.id for memory in await runtime.store.search_memories("ada", "sister")] == ["m1"]


def test_every_write_has_the_line_that_commit_d094e41_reads() -> None:
    """A worker of that commit may drain the file of one of this version."""
    for line in OLD_LINES.read_text(encoding="utf-8").splitlines():
        user_id, write = from_line(line)
        assert to_line(user_id, write) == line.replace(r"\ud800", r"\ufffd")  # a text is made storable by now


async def test_what_an_earlier_version_moved_aside_is_taken_back(runtime: Runtime) -> None:
    """It cannot parse every line of a later one."""
    spool = spool_of(runtime)
    path = spool.add("ada", [Turn("user", "hello", NOON, "c")])
    path.write_text(path.read_text() + "nonsense\n")
    path.rename(path.with_suffix(".unreadable"))
    assert await runtime.write_behind.spool_replay.replay() == 1
    assert [turn.text for turn in await runtime.store.recent_turns("ada")] == ["hello"]
    (rest,) = spool.folder.iterdir()
    assert (rest.suffix, rest.read_text()) == (".unreadable", "nonsense\n")


async def test_a_file_that_was_not_finished_is_deleted(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.folder.mkdir(parents=True)
    old, new, locked = (spool.folder / f"{name}.new" for name in ("old", "new", "locked"))
    for path in (old, new, locked):
        path.write_text("what ada said")
    for path in (old, locked):
        os.utime(path, (0, 0))
    with locked.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert spool.recover() == 0
    assert sorted(spool.folder.iterdir()) == [locked, new]


# -- the disk ----------------------------------------------------------------------------------------------------


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of lines at each write of a spool file."""
    held: list[int] = []
    hold = SpoolFile.hold

    def noted(self: SpoolFile, lines: list[str]) -> None:
        held.append(len(lines))
        hold(self, lines)

    monkeypatch.setattr(SpoolFile, "hold", noted)
    return held


async def test_a_healthy_store_costs_no_disk_write(
    runtime: Runtime, held: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    grace = 5 * GRACE  # a busy machine's store is healthy, too
    monkeypatch.setattr("companion.writes.spool.keeper.GRACE", grace)
    log = TurnLog(Caller("ada"), runtime.write_behind)
    for number in range(20):
        log.add(Turn("user", f"turn {number}", datetime.now(UTC), "c"))
        await asyncio.sleep(0.02)
    assert await log.close() == 0
    await asyncio.sleep(grace + 0.1)
    assert held == []
    assert not spool_of(runtime).folder.exists()


async def test_a_write_has_a_line_while_it_waits_and_none_afterwards(
    runtime: Runtime, held: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    add, silent = runtime.store.add_turn, asyncio.Event()

    async def late(user_id: str, turn: Turn) -> None:
        await silent.wait()
        await add(user_id, turn)

    monkeypatch.setattr(runtime.store, "add_turn", late)
    spool, log = spool_of(runtime), TurnLog(Caller("ada"), runtime.write_behind)
    log.add(Turn("user", "turn 0", NOON, "c"))
    await until(lambda: len(spooled(spool)) == 1)
    (path,) = spool.files()
    assert path.stat().st_mode & 0o777 == 0o600
    log.add(Turn("assistant", "turn 1", NOON, "c"))
    await until(lambda: len(spooled(spool)) == 2)
    silent.set()
    await until(lambda: not spool.files())
    assert (held[:2], held[-1]) == ([1, 2], 0)
    assert await log.close() == 0
    assert list(spool.folder.iterdir()) == []


async def test_an_outage_keeps_the_order_of_the_turns(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    add, away = runtime.store.add_turn, True

    async def refused(user_id: str, turn: Turn) -> None:
        if away:
            raise StoreError("add_turn", "timeout")
        await add(user_id, turn)

    monkeypatch.setattr(runtime.store, "add_turn", refused)
    for number in range(7):
        runtime.write_behind.add("ada", Turn("user", str(number), NOON, "c"))
    await asyncio.sleep(0.5)  # a few tries
    away = False
    assert await runtime.write_behind.end_conversation("ada", 10) == 0
    assert [turn.text for turn in await runtime.store.recent_turns("ada")] == list("0123456")


async def test_a_folder_that_is_deleted_during_an_outage_is_written_again(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "unstored")
    file.hold(["one"])
    (path,) = (tmp_path / "unstored").iterdir()
    path.unlink()
    path.parent.rmdir()
    file.hold(["one", "two"])
    assert path.read_text() == "one\ntwo\n"
    file.hold(["two"])
    assert path.read_text() == "two\n"
    file.hold([])
    assert not path.exists()


async def test_a_disk_that_fails_for_a_while(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("companion.writes.spool.keeper.RETRY", 0.05)
    home = runtime.settings.home
    home.parent.mkdir(parents=True, exist_ok=True)
    home.write_text("a file where a folder should be")

    async def refused(*_: object) -> None:
        raise StoreError("add_memory", "timeout")

    monkeypatch.setattr(runtime.store, "add_memory", refused)
    runtime.write_behind.add("ada", Memory("My sister visits on Friday", NOON))
    await until(lambda: "COMPANION_HOME cannot be written" in caplog.text)
    await asyncio.sleep(0.3)
    assert caplog.text.count("COMPANION_HOME cannot be written") == 1
    home.unlink()
    await until(lambda: len(spooled(spool_of(runtime))) == 1)
    assert "sister" not in caplog.text


async def test_a_home_that_cannot_be_written_is_said_at_the_start(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.to_thread(runtime.spool.check)
    assert [record for record in caplog.records if record.name == "companion"] == []
    assert list(spool_of(runtime).folder.iterdir()) == []
    spool_of(runtime).folder.rmdir()
    runtime.settings.home.rmdir()
    runtime.settings.home.write_text("a file where a folder should be")
    await asyncio.to_thread(runtime.spool.check)
    assert caplog.text.count("COMPANION_HOME cannot be written (File exists)") == 1


# -- a person who was moved to another id ------------------------------------------------------------------------


async def test_a_store_that_raises_its_own_exceptions_ends_no_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For the wish of an erasure, which is replayed first."""
    monkeypatch.setattr("companion.writes.replay.POLL_INTERVAL", 0.01)
    calls: list[str] = []

    class Raises(SqliteStore):
        async def erase_user(self, user_id: str, request: str) -> int:
            calls.append(user_id)
            if len(calls) == 1:
                raise KeyError("a secret")
            return await super().erase_user(user_id, request)

    store = Raises(tmp_path / "own.db")
    runtime = Runtime(Settings(home=tmp_path, models="offline"), store=store)
    runtime.spool.wishes.add(["ada"], "request")
    runtime.write_behind.spool_replay.start()
    await until(lambda: not runtime.spool.wishes.all())
    await runtime.close()
    assert "a secret" not in caplog.text


async def test_what_waits_under_an_earlier_id_is_stored_under_the_new_one(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a spool, of another machine say, and in the queue of a conversation that goes on."""
    store, spool = runtime.store, spool_of(runtime)
    spool.add("sip_1", [Memory("Has a cat", NOON), Turn("user", "Tom is my cat", NOON, "c1", "t1")])
    unreadable = spool.folder / "later.unreadable"
    unreadable.write_text('{"user_id": "sip_1", "kind": "of a later version"}\n')
    runtime.write_behind.begin_conversation("sip_1")
    await store.save_profile("sip_1", "Name: Ada")

    async def away(*_: object) -> None:
        raise StoreError("add_memory", "timeout")

    with monkeypatch.context() as outage:
        outage.setattr(store, "add_memory", away)
        runtime.write_behind.add("sip_1", Memory("Has a dog", NOON))
        await until(lambda: len(spool.files()) == 2)
        await store.move_user(["sip_1"], "~==phone=1")
    assert await runtime.write_behind.end_conversation("sip_1", 10.0) == 0
    assert await runtime.write_behind.spool_replay.replay() == 2
    assert {fact.text for fact in await store.search_memories("~==phone=1", "")} == {"Has a cat", "Has a dog"}
    assert [turn.text for turn in await store.recent_turns("~==phone=1")] == ["Tom is my cat"]
    assert await store.search_memories("sip_1", "") == []
    assert spool.files() == []
    assert unreadable.exists()


@pytest.mark.parametrize("how", ["add", "write"])
async def test_what_comes_after_the_end_is_left_to_the_next_start(runtime: Runtime, how: str) -> None:
    """A tool that ends late: no call would end a queue that began now, and none would spool what is in it."""
    ended = Runtime(runtime.settings)
    await ended.close()
    fact = Memory("plays chess", datetime.now(UTC))
    if how == "add":
        ended.write_behind.add("1", fact)
    else:
        assert await ended.write_behind.write("1", fact) is None
    assert [spooled["text"] for spooled in runtime.spool.fields_of("1")] == ["plays chess"]
    assert await runtime.write_behind.spool_replay.replay() == 1
    assert [kept.text for kept in await runtime.store.search_memories("1", "")] == ["plays chess"]
