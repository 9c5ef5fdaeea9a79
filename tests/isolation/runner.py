"""The runner of isolation cases: one cache and store, the fixture data in them, and the checks after each case."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from cache import RedisCache, close_redis_cache, get_redis_cache
from companion.runtime import Runtime, close_runtime, set_runtime
from companion.settings import Settings
from companion.store import Memory, SqliteStore, Summary, Turn
from tests.conftest import OURS
from tests.inside import engine_of
from tests.isolation.fixture_data import OPERATOR, PASSWORD, USERS, FixtureData, marker, owns
from tests.isolation.log_capture import MARKER, SECRET, capture_logs
from tests.isolation.result import Result
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

BATCH: Final = 50
"""Cases of one caller in a row. Between two batches, background work is drained."""
_BUSY: Final = (
    "outbox-delivery",
    "cache-walk",
    "cache-scan",
    "context-read",
)  # prefixes of the names of background tasks
_KEYS: Final = ("OPENAI_API_KEY", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "DEEPGRAM_API_KEY", "CARTESIA_API_KEY")
_MARKERS: Final = re.compile(rf"{MARKER}\d\dq")


class Runner:
    """Checks after each case that data of users other than the acting one is unchanged and was not shown."""

    def __init__(self, data: FixtureData, cache: RedisCache, result: Result, deadline: float) -> None:
        self.data = data
        self.cache = cache
        self.result = result
        self._errors = 0
        self._deadline = deadline
        self._before: tuple[str, str] = ("", "")
        self._details: dict[str, str] = {}

    @property
    def undisturbed(self) -> bool:
        """Whether Redis has answered every call since the batch began: no connection was killed, and none was slow."""
        return self._errors == engine_of(self.cache).counters.connection_errors

    @property
    def timed_out(self) -> bool:
        """Whether the deadline has passed."""
        self.result.incomplete = self.result.incomplete or time.monotonic() > self._deadline
        return self.result.incomplete

    async def settle(self) -> None:
        """Wait until Redis is connected, nothing is pending and no background task is running."""

        def idle() -> bool:
            busy = any(task.get_name().startswith(_BUSY) for task in asyncio.all_tasks())
            return self.cache.connected and not self.cache.invalidations.undelivered and not busy

        await until(idle, 15.0)

    @asynccontextmanager
    async def acting_as(self, user: str | None) -> AsyncIterator[None]:
        """Reset the fixture data, let only ``user`` act within the block, and compare other users' data at its end."""
        await self.settle()
        self._errors = engine_of(self.cache).counters.connection_errors
        self.data.load()
        self._snapshot(user)
        yield
        await self.settle()
        self.check_unchanged(user, "in the background")
        self.data.delete_added_rows(user)

    def kill_connections(self) -> None:
        """Kill every client connection. Invalidations that fail now are redelivered."""
        self._errors = -1
        self.data.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def _snapshot(self, user: str | None) -> None:
        self._before, self._details = self.data.digest_of_others(user), self.data.dump()

    def check_unchanged(self, user: str | None, case: object) -> None:
        """Check that everything except this user's data equals the last snapshot."""
        after = self.data.digest_of_others(user)
        if after == self._before:
            return
        now = self.data.dump()
        differs = [key for key in now.keys() | self._details.keys() if now.get(key) != self._details.get(key)]
        keys = [key for key in differs if not owns(user, key)] or ["a TTL, or rows of the store"]
        self.result.changes.append(f"{user} {_shorten(case)}: {sorted(keys)[:5]}")
        self._snapshot(user)

    def check_shown(self, user: str | None, text: str, case: object) -> None:
        """Check that a text shown to this user contains no other user's marker and no secret."""
        if foreign := set(_MARKERS.findall(text)) - ({marker(user)} if user else set()):
            self.result.shown.append(f"{user} {_shorten(case)}: {sorted(foreign)}")
        if SECRET in text:
            self.result.shown.append(f"{user} {_shorten(case)}: a secret")

    def record_crash(self, user: object, case: object, problem: BaseException) -> None:
        frame = traceback.extract_tb(problem.__traceback__)[-1]
        self.result.crashes.append(
            f"{user} {_shorten(case)}: {problem!r:.120} at {frame.filename[-40:]}:{frame.lineno}"
        )

    def check(self, condition: object, user: object, case: object, what: str) -> None:
        if not condition:
            self.result.wrong.append(f"{user} {_shorten(case)}: {what}")


def read_json(text: Any) -> dict[str, Any]:
    """Parse a tool's reply.

    Raises:
        ValueError: the reply is not a JSON object in encodable text.
    """
    if not isinstance(text, str):
        raise ValueError(f"a tool returned {type(text).__name__}")
    text.encode()
    answer = json.loads(text)
    if not isinstance(answer, dict):
        raise ValueError("a tool returned no object")
    return answer


def _shorten(case: object) -> str:
    return repr(case)[:160]


@asynccontextmanager
async def open_runner(directory: Path, deadline: float) -> AsyncIterator[Runner]:
    """Start Redis, store and cache, load the fixture data and capture logs; the log findings end up in the result."""
    result = Result()
    server = RedisServer(directory / "redis", password=PASSWORD)
    settings = {
        "REDIS_URL": server.url,
        "COMPANION_HOME": str(directory / "home"),
        "COMPANION_MODELS": "offline",
        "COMPANION_OPERATORS": OPERATOR,
        "COMPANION_WATCH_SHARE": "0",  # the consistency check would report fixture values that differ from the store
        "CACHE_DEADLINE_MS": "2000",
        "CACHE_CONNECT_WAIT_MS": "5000",
        **{name: f"{SECRET}-{name.lower()}" for name in _KEYS},
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    await asyncio.to_thread(server.start)
    with patch.dict(os.environ, inherited | settings, clear=True), capture_logs() as log:
        database = directory / "home" / "companion.db"
        store = SqliteStore(database)
        set_runtime(Runtime(Settings.from_env(), store=store))
        await _load_store(store)
        data = FixtureData(server, database)
        data.load()
        try:
            cache = await get_redis_cache()
            await until(lambda: cache.connected)
            yield Runner(data, cache, result, deadline)
        finally:
            data.close()
            await close_runtime()
            await close_redis_cache()
            await asyncio.to_thread(server.stop)
            gc.collect()  # asyncio reports exceptions that were never retrieved when their tasks are collected
    result.lines, result.leaks = log.lines, log.leaks
    result.crashes += log.errors


async def _load_store(store: SqliteStore) -> None:
    """Write one record of every kind for every user."""
    at = datetime.now(UTC)
    for user in USERS:
        words = f"the words of {marker(user)}"
        await store.save_profile(user, f"Name: {marker(user)}")
        await store.add_turn(user, Turn(role="user", text=words, at=at, conversation_id="c", id="t"))
        await store.add_memory(user, Memory(text=words, at=at, id="m"))
        await store.save_summary(user, Summary("c", words, at))
        await store.save_state(user, {"conversations": 3, "stage": "acquainted", "note": words})
        await store.acknowledge(await store.pending_changes_of(user, ("profile", "turn", "memory", "summary", "state")))
