"""Faults of the SQLite store alone: other processes, kill -9, hangs, and damaged files."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import stat
import threading
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from companion.store import Memory, SqliteStore, StoreError, Turn
from tests.companion.processes import processes
from tests.wait import until

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def said(text: str, number: int = 0) -> Turn:
    return Turn("user", text, NOON + timedelta(seconds=number), "c1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "companion.db"


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)


def delete(path: Path) -> None:
    path.unlink()


def _write_at_once(path: Path, name: str, barrier: Barrier, done: Connection) -> None:
    async def work() -> None:
        store = SqliteStore(path)
        barrier.wait()
        for number in range(10):
            await store.add_turn("shared", said(f"{name} {number}", number))
            await store.save_profile("shared", f"{name} {number}")
            await store.add_memory("shared", Memory(f"fact {name} {number}", NOON))
        await store.close()

    asyncio.run(work())
    done.send(name)


@pytest.mark.parametrize("attempt", range(3))
def test_eight_processes_create_and_write_at_once(path: Path, attempt: int) -> None:
    barrier = processes.Barrier(8)
    ours, theirs = processes.Pipe()
    children = [
        processes.Process(target=_write_at_once, args=(path, f"p{number}", barrier, theirs)) for number in range(8)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0] * 8
    assert sorted(ours.recv() for _ in children) == [f"p{number}" for number in range(8)]

    async def look() -> None:
        store = SqliteStore(path)
        assert len({turn.text for turn in await store.recent_turns("shared", 1000)}) == 80
        assert len(await store.search_memories("shared", "fact", 1000)) == 80
        assert str(await store.get_profile("shared")).endswith(" 9")
        await store.close()

    asyncio.run(look())


def _write_until_killed(path: Path, acknowledged: Connection) -> None:
    async def work() -> None:
        store = SqliteStore(path)
        for number in range(1_000_000):
            await store.add_turn("u", said(str(number), number))
            acknowledged.send(number)

    asyncio.run(work())


def test_what_was_acknowledged_survives_kill_9(path: Path) -> None:
    ours, theirs = processes.Pipe()
    child = processes.Process(target=_write_until_killed, args=(path, theirs))
    child.start()
    theirs.close()
    last = -1
    while last < 30:
        last = ours.recv()
    child.kill()
    child.join()
    while ours.poll():
        try:
            last = ours.recv()
        except EOFError:
            break

    async def look() -> list[Turn]:
        store = SqliteStore(path)
        await store.add_turn("u", said("after", 2_000_000))
        turns = await store.recent_turns("u", 1_000_000)
        await store.close()
        return turns

    kept = [turn.text for turn in asyncio.run(look())]
    assert kept[: last + 1] == [str(number) for number in range(last + 1)]
    assert kept[-1] == "after"


async def test_memory_survives_a_restart(path: Path) -> None:
    first = SqliteStore(path)
    turn, memory = said("hello"), Memory("likes tea", NOON)
    await first.save_profile("u", "me")
    await first.add_turn("u", turn)
    await first.add_memory("u", memory)
    await first.close()
    second = SqliteStore(path)
    assert await second.get_profile("u") == "me"
    assert await second.recent_turns("u") == [turn]
    assert await second.search_memories("u", "tea") == [memory]
    await second.close()


async def test_only_the_owner_may_look(path: Path) -> None:
    store = SqliteStore(path)
    await store.save_profile("u", "me")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    await store.close()


async def test_a_directory_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    home = tmp_path / "theirs"
    home.mkdir()
    home.chmod(0o750)
    store = SqliteStore(home / "companion.db")
    await store.save_profile("u", "me")
    assert stat.S_IMODE(home.stat().st_mode) == 0o750
    await store.close()


async def test_nothing_is_touched_before_the_first_use(path: Path) -> None:
    store = SqliteStore(path)
    await store.close()
    assert not path.parent.exists()


async def test_a_cancelled_write_is_still_done(sqlite_store: SqliteStore) -> None:
    writes = [asyncio.create_task(sqlite_store.add_turn("u", said(str(number), number))) for number in range(50)]
    await asyncio.sleep(0)
    for write in writes:
        write.cancel()
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*writes, return_exceptions=True))

    async def done() -> bool:
        return [turn.text for turn in await sqlite_store.recent_turns("u", 100)] == [str(n) for n in range(50)]

    await until(done)


async def test_closing_does_what_is_queued_first(path: Path) -> None:
    store = SqliteStore(path)
    writes = [asyncio.create_task(store.add_turn("u", said(str(number), number))) for number in range(50)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*writes)
    again = SqliteStore(path)
    assert len(await again.recent_turns("u", 100)) == 50
    await again.close()


def test_a_write_outlives_its_event_loop(path: Path) -> None:
    store = SqliteStore(path)

    async def hang_up() -> None:
        writes = [asyncio.create_task(store.add_turn("u", said(str(number), number))) for number in range(20)]
        await asyncio.sleep(0)
        assert not all(write.done() for write in writes)

    async def look() -> None:
        async def done() -> bool:
            return len(await store.recent_turns("u")) == 20

        await until(done)
        await store.close()

    asyncio.run(hang_up())
    asyncio.run(look())


async def test_closing_ends_the_thread(path: Path) -> None:
    before = set(threading.enumerate())
    store = SqliteStore(path)
    await store.save_profile("u", "me")
    assert {thread.name for thread in set(threading.enumerate()) - before} == {"sqlite-store_0"}
    await store.close()
    assert set(threading.enumerate()) == before


async def test_a_locked_file_is_waited_for_without_holding_the_loop(path: Path) -> None:
    store = SqliteStore(path)
    await store.save_profile("u", "before")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    write = asyncio.create_task(store.save_profile("u", "after"))
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert not write.done()
    other.execute("COMMIT")
    other.close()
    await write
    assert await store.get_profile("u") == "after"
    await store.close()


async def test_a_deleted_file_is_made_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = SqliteStore(path)
    await store.save_profile("u", "lost")
    delete(path)
    await store.save_profile("u", "kept")
    await store.close()
    assert "deleted or replaced" in caplog.text
    again = SqliteStore(path)
    assert await again.get_profile("u") == "kept"
    await again.close()


@pytest.mark.parametrize("content", [b"this is not a database, it only has its place" * 100, b"SQLite"])
async def test_a_broken_file_is_a_store_error(path: Path, content: bytes) -> None:
    put(path, content)
    store = SqliteStore(path)
    with pytest.raises(StoreError, match="SQLITE_NOTADB"):
        await store.get_profile("u")
    delete(path)
    assert await store.get_profile("u") is None  # and it recovers
    await store.close()


async def test_a_place_that_cannot_be_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = SqliteStore(tmp_path / "file" / "companion.db")
    with pytest.raises(StoreError, match=r"^save_profile failed: \w+Error$"):
        await store.save_profile("u", "secret")
    await store.close()


async def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    store = SqliteStore(path)
    with pytest.raises(StoreError, match="WrittenByNewerVersion"):
        await store.get_profile("u")
    await store.close()


async def test_a_failure_after_cancellation_is_logged_without_the_data(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    put(path, b"not a database" * 100)
    store = SqliteStore(path)
    write = asyncio.create_task(store.add_turn("u-private", said("something private")))
    await asyncio.sleep(0)
    write.cancel()
    await asyncio.gather(write, return_exceptions=True)
    await until(lambda: "add_turn failed: SQLITE_NOTADB" in caplog.text)
    assert "private" not in caplog.text
    await store.close()


async def test_the_search_index_follows_a_change_by_hand(path: Path) -> None:
    store = SqliteStore(path)
    await store.add_memory("u", Memory("likes tea", NOON))
    await store.add_memory("u", Memory("likes chess", NOON))
    by_hand = sqlite3.connect(path)
    with by_hand:
        by_hand.execute("UPDATE memories SET text = 'likes coffee' WHERE text = 'likes tea'")
        by_hand.execute("DELETE FROM memories WHERE text = 'likes chess'")
    by_hand.close()
    assert [memory.text for memory in await store.search_memories("u", "tea coffee chess")] == ["likes coffee"]
    await store.close()


async def test_a_full_disk_is_a_store_error_and_loses_nothing(sqlite_store: SqliteStore) -> None:
    await sqlite_store.save_profile("u", "me")
    thread = sqlite_store._writing  # private: SQLite has such a limit for one connection only, here the one that writes

    async def limit(pages: int) -> None:  # as on a full disk
        await thread.read("limit", lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchall())

    await limit(1)
    with pytest.raises(StoreError, match="add_memory failed: SQLITE_FULL"):
        await sqlite_store.add_memory("u", Memory("tea " * 50_000, NOON))
    assert await sqlite_store.get_profile("u") == "me"
    await limit(1 << 30)
    await sqlite_store.add_memory("u", Memory("tea " * 50_000, NOON))
    assert len(await sqlite_store.search_memories("u", "tea")) == 1


def _look_and_leave(path: Path, answers: Connection) -> None:
    async def look() -> str | None:
        store = SqliteStore(path)
        profile = await store.get_profile("u")
        await store.close()
        return profile

    answers.send(asyncio.run(look()))


async def test_another_process_that_leaves_takes_nothing_with_it(path: Path) -> None:
    """The last connection to close removes the write-ahead log; another one must not take itself for the last."""
    store, ours, theirs = SqliteStore(path), *processes.Pipe()
    for number in range(3):
        await store.save_profile("u", str(number))
        assert await store.get_profile("u") == str(number)
        child = processes.Process(target=_look_and_leave, args=(path, theirs))
        child.start()
        await asyncio.to_thread(child.join)
        assert ours.recv() == str(number)
        assert path.with_name("companion.db-wal").exists()
    await store.close()
