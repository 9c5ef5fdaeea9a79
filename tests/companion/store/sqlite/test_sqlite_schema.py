"""The schema of a SQLite file: migration from older versions, and counters of every change."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from companion.store import Context, Memory, OutboxRow, SqliteStore, StoreError, Summary, Turn
from tests.companion.processes import processes
from tests.companion.store.outbox.test_outbox import ALL, WRITES

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
VERSION_1 = Path(__file__).with_name("version_1.sql")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "companion.db"


@pytest.fixture
def old(path: Path) -> Path:
    """A file as version 1 wrote it."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(VERSION_1.read_text(encoding="utf-8"))
    return path


@pytest.fixture
async def by_hand(path: Path) -> AsyncIterator[sqlite3.Connection]:
    """A connection to a file of this version, as from sqlite3 in a terminal."""
    store = SqliteStore(path)
    await store.get_profile("u")
    await store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        yield db


def shape(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()


async def test_a_file_of_version_1_keeps_what_it_has(old: Path) -> None:
    store = SqliteStore(old)
    turns = [
        Turn("user", "hello", NOON + timedelta(microseconds=1), "c1", id="t1"),
        Turn("assistant", "hi", NOON + timedelta(microseconds=2), "c1", id="t2"),
    ]
    assert await store.context("u") == Context("from before", turns, None, None)
    assert await store.search_memories("u", "tea") == [Memory("likes tea", NOON, id="m1")]
    assert await store.pending_changes() == []
    for write in WRITES.values():
        await write(store, "u")
    assert set(await store.pending_changes_of("u", ALL)) == {OutboxRow("u", what, 1) for what in ALL}
    assert (await store.recent_turns("u"))[1:] == turns
    await store.close()


async def test_a_file_that_was_brought_up_is_like_a_new_one(old: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    for path in (old, new):
        store = SqliteStore(path)
        await store.get_profile("u")
        await store.close()
    assert shape(old) == shape(new)


async def test_a_worker_of_version_1_that_still_runs_counts_too(old: Path) -> None:
    with closing(sqlite3.connect(old, isolation_level=None)) as theirs:
        theirs.execute("SELECT count(*) FROM profiles").fetchone()  # it has read the schema of version 1
        store = SqliteStore(old)
        await store.get_profile("u")
        theirs.execute("UPDATE profiles SET text = 'by the old worker'")
    assert await store.pending_changes() == [OutboxRow("u", "profile", 1)]
    await store.close()


async def test_bringing_up_is_all_or_nothing(old: Path) -> None:
    with closing(sqlite3.connect(old)) as db:
        db.execute("CREATE TABLE outbox (in_the_way)")
    before = shape(old)
    store = SqliteStore(old)
    with pytest.raises(StoreError, match="SQLITE_ERROR"):
        await store.get_profile("u")
    assert shape(old) == before
    with closing(sqlite3.connect(old)) as db:
        db.execute("DROP TABLE outbox")
    assert await store.get_profile("u") == "from before"
    await store.close()


def _bring_up(path: Path, number: int, barrier: Barrier) -> None:
    async def work() -> None:
        store = SqliteStore(path)
        barrier.wait()
        await store.save_summary("u", Summary(f"c{number}", "x", NOON))
        await store.close()

    asyncio.run(work())


def test_four_processes_bring_a_file_up_at_once(old: Path) -> None:
    barrier = processes.Barrier(4)
    children = [processes.Process(target=_bring_up, args=(old, number, barrier)) for number in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0] * 4

    async def look() -> list[OutboxRow]:
        store = SqliteStore(old)
        assert await store.get_profile("u") == "from before"
        rows = await store.pending_changes()
        await store.close()
        return rows

    assert asyncio.run(look()) == [OutboxRow("u", "summary", 4)]


# One after the other, with the version each leads to. No way to write sets a counter back.
CHANGES = [
    ("UPDATE profiles SET text = 'a' WHERE user_id = 'nobody'", 1),
    ("INSERT OR IGNORE INTO profiles VALUES ('u', 'b', 0)", 1),
    ("UPDATE profiles SET text = 'c'", 2),
    ("INSERT OR REPLACE INTO profiles VALUES ('u', 'd', 0)", 3),
    ("REPLACE INTO profiles VALUES ('u', 'e', 0)", 4),
    ("UPDATE OR REPLACE profiles SET text = 'f'", 5),
    ("UPDATE OR IGNORE profiles SET text = 'g'", 6),
    ("INSERT INTO profiles VALUES ('u', 'h', 0) ON CONFLICT DO UPDATE SET text = 'h'", 7),
    ("DELETE FROM profiles", 8),
    ("INSERT OR IGNORE INTO profiles VALUES ('u', 'i', 0)", 9),
    ("INSERT OR ROLLBACK INTO profiles VALUES ('v', 'j', 0)", 9),
]


async def test_every_change_by_hand_counts(by_hand: sqlite3.Connection) -> None:
    by_hand.execute("INSERT INTO profiles VALUES ('u', 'x', 0)")
    by_hand.execute("UPDATE outbox SET delivered = version")
    for statement, version in CHANGES:
        by_hand.execute(statement)
        row = by_hand.execute("SELECT version, delivered FROM outbox WHERE user_id = 'u'").fetchone()
        assert row == (version, 1), statement


async def test_all_rows_deleted_count_for_everybody(by_hand: sqlite3.Connection, path: Path) -> None:
    by_hand.executemany("INSERT INTO states VALUES (?, '{}', 0)", [("u",), ("v",)])
    by_hand.execute("DELETE FROM states")
    store = SqliteStore(path)
    assert set(await store.pending_changes()) == {OutboxRow("u", "state", 2), OutboxRow("v", "state", 2)}
    await store.close()


async def test_a_row_that_changes_hands_counts_for_both(by_hand: sqlite3.Connection, path: Path) -> None:
    by_hand.execute("INSERT INTO memories (user_id, id, text, at) VALUES ('u', 'm', 'x', 0)")
    by_hand.execute("UPDATE memories SET user_id = 'heir'")
    store = SqliteStore(path)
    assert set(await store.pending_changes()) == {OutboxRow("u", "memory", 2), OutboxRow("heir", "memory", 1)}
    await store.close()


async def test_a_write_that_is_rolled_back_is_not_pending(by_hand: sqlite3.Connection, path: Path) -> None:
    by_hand.execute("BEGIN")
    by_hand.execute("INSERT INTO profiles VALUES ('u', 'x', 0)")
    by_hand.execute("ROLLBACK")
    store = SqliteStore(path)
    assert await store.pending_changes() == []
    await store.close()


BROKEN = {
    "no JSON": "INSERT INTO states VALUES ('u', 'secret', 0)",
    "no object": "INSERT INTO states VALUES ('u', '[\"secret\"]', 0)",
    "bytes": "INSERT INTO states VALUES ('u', x'ff', 0)",
    "too deep": "INSERT INTO states VALUES ('u', replace(hex(zeroblob(50000)), '00', '['), 0)",
    "no time": "INSERT INTO summaries VALUES ('u', 'c', 'secret', 'yesterday')",
    "no such time": "INSERT INTO summaries VALUES ('u', 'c', 'secret', 9000000000000000000)",
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_row_broken_by_hand_is_a_store_error(by_hand: sqlite3.Connection, path: Path, what: str) -> None:
    by_hand.execute(BROKEN[what])
    store = SqliteStore(path)
    with pytest.raises(StoreError, match=r"^context failed: \w+$") as caught:
        await store.context("u")
    assert caught.value.__context__ is None
    assert await store.get_profile("u") is None
    await store.close()


async def test_pending_rows_are_found_by_an_index(by_hand: sqlite3.Connection) -> None:
    plan = by_hand.execute(
        "EXPLAIN QUERY PLAN SELECT user_id, what, version FROM outbox"
        " WHERE version > delivered AND (1 OR written_at <= 0) ORDER BY written_at LIMIT 100"
    ).fetchall()
    assert "outbox_owed" in str(plan)
    assert "TEMP B-TREE" not in str(plan)


async def test_the_last_turns_are_found_by_an_index(by_hand: sqlite3.Connection) -> None:
    plan = by_hand.execute(
        "EXPLAIN QUERY PLAN SELECT seq, conversation_id, at FROM turns WHERE user_id = 'u' ORDER BY seq DESC LIMIT 200"
    ).fetchall()
    assert "COVERING INDEX turns_in_order" in str(plan)  # a row's time lies behind its text, which may be long
    assert "TEMP B-TREE" not in str(plan)


async def test_a_worker_of_the_version_before_uses_the_file(path: Path) -> None:
    """Its statements, on a file that this version has opened; and its file, opened by this version."""
    store = SqliteStore(path)
    await store.add_turn("u", Turn("user", "mine", NOON, "c1"))
    with closing(sqlite3.connect(path)) as other, other:
        other.execute(
            "INSERT INTO turns (user_id, id, conversation_id, role, text, at) VALUES ('u', 't', 'c', 'user', 'x', 0)"
        )
        last = other.execute("SELECT text FROM turns WHERE user_id = 'u' ORDER BY at DESC, seq DESC LIMIT 1").fetchone()
        assert last == ("mine",)
        other.execute("DROP INDEX turns_in_order")
    assert [turn.text for turn in await store.recent_turns("u")] == ["mine", "x"]
    await store.close()


def _write_and_acknowledge_until_killed(path: Path, acknowledged: Connection) -> None:
    async def work() -> None:
        store = SqliteStore(path)
        for number in range(1_000_000):
            await store.add_turn("u", Turn("user", "x", NOON, "c1", id=str(number)))
            acknowledged.send(("written", number + 1))
            rows = await store.pending_changes_of("u", ["turn"])
            acknowledged.send(("acknowledged", rows[0].version))
            await store.acknowledge(rows)

    asyncio.run(work())


@pytest.mark.parametrize("least", [20, 33, 47])
def test_kill_9_leaves_pending_what_was_not_acknowledged(path: Path, least: int) -> None:
    ours, theirs = processes.Pipe()
    child = processes.Process(target=_write_and_acknowledge_until_killed, args=(path, theirs))
    child.start()
    theirs.close()
    last = {"written": 0, "acknowledged": 0}
    while last["written"] + last["acknowledged"] < least:
        kind, number = ours.recv()
        last[kind] = number
    child.kill()
    child.join()
    while ours.poll():
        try:
            kind, number = ours.recv()
        except EOFError:
            break
        last[kind] = number

    async def look() -> tuple[int, list[OutboxRow]]:
        store = SqliteStore(path)
        kept = len(await store.recent_turns("u", 1_000_000))
        rows = await store.pending_changes()
        await store.close()
        return kept, rows

    kept, rows = asyncio.run(look())
    assert kept >= last["written"]
    # All is acknowledged, or pending up to the last write: nothing in between.
    assert rows == [OutboxRow("u", "turn", kept)] or (rows == [] and last["acknowledged"] == kept)
