"""Old turns are deleted by the worker itself: at its start, once a day, and after a store that was away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from companion.runtime import Runtime, close_runtime, set_runtime
from companion.settings import Settings
from companion.store import SqliteStore, StoreError, Turn
from companion.writes import retention
from tests.real.supabase.postgres import connection
from tests.wait import until

pytestmark = pytest.mark.integration
OLD = datetime.now(UTC) - timedelta(days=40)
EXPIRE = "select companion_expire_turns(30, 1000)"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "companion.db")
    yield store
    await store.close()


def settings_of(home: Path, days: int | None) -> Settings:
    return Settings(home=home, models="offline", retention_days=days)


async def test_the_worker_deletes_in_batches(
    tmp_path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "companion")
    monkeypatch.setattr(retention, "BATCH", 2)
    monkeypatch.setattr(retention, "PAUSE", 0.0)
    for number in range(5):
        await store.add_turn("ada", Turn("user", "a secret", OLD, "c", id=str(number)))
    await store.add_turn("ada", Turn("user", "new", datetime.now(UTC), "c"))
    set_runtime(Runtime(settings_of(tmp_path, 30), store=store)).start_worker_services()
    try:
        await until(lambda: "5 turns older than 30 days deleted" in caplog.text)
        assert [turn.text for turn in await store.recent_turns("ada")] == ["new"]
    finally:
        await close_runtime()
    assert not {"ada", "secret"} & set(caplog.text.split())


@pytest.mark.parametrize(
    ("problem", "reason"),
    [(StoreError("expire_turns", "HTTP 503"), "expire_turns failed: HTTP 503"), (KeyError("a secret"), "KeyError")],
    ids=["away", "its own exception"],
)
async def test_it_comes_back_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, problem: Exception, reason: str
) -> None:
    """Every day, and in an hour when the store was away."""

    class AwayOnce(SqliteStore):
        calls = 0

        async def expire_turns(self, days: int, limit: int) -> int:
            self.calls += 1
            if self.calls == 1:
                raise problem
            return 0

    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(retention.asyncio, "sleep", sleep)
    store = AwayOnce(Path("unused.db"))
    with pytest.raises(asyncio.CancelledError):
        await retention.expire_turns(lambda: store, 30)
    assert pauses == [3600.0, 86400.0, 86400.0]
    assert f"old turns could not be deleted: {reason}\n" in caplog.text


async def test_without_the_setting_nothing_is_deleted(tmp_path: Path, store: SqliteStore) -> None:
    await store.add_turn("ada", Turn("user", "old", OLD, "c"))
    runtime = set_runtime(Runtime(settings_of(tmp_path, None), store=store))
    assert runtime.start_worker_services() is None
    assert "retention" not in {task.get_name() for task in asyncio.all_tasks()}
    assert [turn.text for turn in await store.recent_turns("ada")] == ["old"]
    await close_runtime()


async def test_a_job_of_the_database_can_do_it(project: str, user: str) -> None:
    """One at a time, by the index, and with what waits for the caches."""
    async with connection(project) as db, connection(project) as other:
        while await db.fetchval(EXPIRE) == 1000:
            pass
        turn = "insert into companion_turns (user_id, id, conversation_id, role, text, at) values ($1, $2, 'c', 'user'"
        for number in range(3):
            await db.execute(f"{turn}, 'x', $3)", user, str(number), OLD)
        async with db.transaction():
            assert await db.fetchval(EXPIRE) == 3
            assert await other.fetchval(EXPIRE) == 0  # and does not wait
        changes = "select what from companion_changes where user_id = $1"
        assert [row[0] for row in await db.fetch(changes, user)] == ["turn"]
        for days in (0, None):
            with pytest.raises(asyncpg.InvalidParameterValueError):
                await db.execute("select companion_expire_turns($1)", days)
        async with db.transaction():
            await db.execute("set local enable_seqscan = off; set local enable_bitmapscan = off")
            by_age = "select user_id, id from companion_turns where at < now() - interval '30 days' order by at limit 9"
            plan = "\n".join(row[0] for row in await db.fetch(f"explain {by_age}"))
        assert "companion_turns_by_age" in plan
        assert "Sort" not in plan
