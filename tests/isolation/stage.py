"""Where the cases are carried out: the cache and the store of one loop, the town they stand in, and the judge."""

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
from tests.isolation.ear import MARK, SECRET, listening
from tests.isolation.town import OPERATOR, PASSWORD, PEOPLE, Town, mark, owns
from tests.isolation.verdict import Verdict
from tests.real.redis_server import RedisServer
from tests.wait import until

BATCH: Final = 50
"""Cases of one caller in a row; between two batches everything comes to rest."""
_BUSY: Final = (
    "delivery",
    "cache-walk",
    "cache-scan",
    "context-read",
)  # names of tasks that still have something to do
_KEYS: Final = ("OPENAI_API_KEY", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "DEEPGRAM_API_KEY", "CARTESIA_API_KEY")
_MARKS: Final = re.compile(rf"{MARK}\d\dq")


class Stage:
    """Carries nothing out itself: says who may act, and looks afterwards what became of everybody else."""

    def __init__(self, town: Town, cache: RedisCache, verdict: Verdict, ends: float) -> None:
        self.town = town
        self.cache = cache
        self.verdict = verdict
        self.calm = True
        """Whether Redis has been there all the time since the last rest."""
        self._ends = ends
        self._before: tuple[str, str] = ("", "")
        self._details: dict[str, str] = {}

    @property
    def over(self) -> bool:
        """Whether there is no time for more."""
        self.verdict.early = self.verdict.early or time.monotonic() > self._ends
        return self.verdict.early

    async def rest(self) -> None:
        """Wait until everything that was begun has ended."""

        def resting() -> bool:
            busy = any(task.get_name().startswith(_BUSY) for task in asyncio.all_tasks())
            return self.cache.connected and not self.cache.owing and not busy

        await until(resting, 15.0)

    @asynccontextmanager
    async def turn_of(self, user: str | None) -> AsyncIterator[None]:
        """From now on nobody but this user does anything. Everything is there when the block begins."""
        await self.rest()
        self.calm = True
        self.town.fill()
        self._remember(user)
        yield
        await self.rest()
        self.unchanged(user, "in the background")
        self.town.forget_facts(user)

    def lose_connections(self) -> None:
        """Cut every connection to Redis. What cannot be told to it now is made up for."""
        self.calm = False
        self.town.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def _remember(self, user: str | None) -> None:
        self._before, self._details = self.town.of_others(user), self.town.details()

    def unchanged(self, user: str | None, case: object) -> None:
        """All that is not this user's is as it was before he began."""
        after = self.town.of_others(user)
        if after == self._before:
            return
        now = self.town.details()
        differs = [key for key in now.keys() | self._details.keys() if now.get(key) != self._details.get(key)]
        keys = [key for key in differs if not owns(user, key)] or ["a lifetime, or rows of the store"]
        self.verdict.changes.append(f"{user} {_short(case)}: {sorted(keys)[:5]}")
        self._remember(user)

    def shows_nothing(self, user: str | None, text: str, case: object) -> None:
        """A text that this user is shown holds nobody else's words."""
        if alien := set(_MARKS.findall(text)) - ({mark(user)} if user else set()):
            self.verdict.shown.append(f"{user} {_short(case)}: {sorted(alien)}")
        if SECRET in text:
            self.verdict.shown.append(f"{user} {_short(case)}: a secret")

    def crashed(self, user: object, case: object, problem: BaseException) -> None:
        where = traceback.extract_tb(problem.__traceback__)[-1]
        self.verdict.crashes.append(f"{user} {_short(case)}: {problem!r:.120} at {where.filename[-40:]}:{where.lineno}")

    def expect(self, holds: object, user: object, case: object, what: str) -> None:
        if not holds:
            self.verdict.wrong.append(f"{user} {_short(case)}: {what}")


def read_json(text: Any) -> dict[str, Any]:
    """What a tool returned: JSON text that can be sent, an object. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError(f"a tool returned {type(text).__name__}")
    text.encode()
    answer = json.loads(text)
    if not isinstance(answer, dict):
        raise ValueError("a tool returned no object")
    return answer


def _short(case: object) -> str:
    return repr(case)[:160]


@asynccontextmanager
async def stage(directory: Path, ends: float) -> AsyncIterator[Stage]:
    """Everything started, filled and listened to; at the end everything that was heard is in the verdict."""
    verdict = Verdict()
    server = RedisServer(directory / "redis", password=PASSWORD)
    settings = {
        "REDIS_URL": server.url,
        "COMPANION_HOME": str(directory / "home"),
        "COMPANION_MODELS": "offline",
        "COMPANION_OPERATORS": OPERATOR,
        "COMPANION_WATCH_SHARE": "0",  # it would find that the town's own values are not what the store says
        "CACHE_DEADLINE_MS": "2000",
        "CACHE_CONNECT_WAIT_MS": "5000",
        **{name: f"{SECRET}-{name.lower()}" for name in _KEYS},
    }
    mine = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    await asyncio.to_thread(server.start)
    with patch.dict(os.environ, mine | settings, clear=True), listening() as ear:
        database = directory / "home" / "companion.db"
        store = SqliteStore(database)
        set_runtime(Runtime(Settings.from_env(), store=store))
        await _fill(store)
        town = Town(server, database)
        town.fill()
        try:
            cache = await get_redis_cache()
            await until(lambda: cache.connected)
            yield Stage(town, cache, verdict, ends)
        finally:
            town.close()
            await close_runtime()
            await close_redis_cache()
            await asyncio.to_thread(server.stop)
            gc.collect()  # now asyncio complains of tasks whose failure nobody looked at
    verdict.lines, verdict.telling = ear.lines, ear.telling
    verdict.crashes += ear.failures


async def _fill(store: SqliteStore) -> None:
    """Give everybody everything in the store."""
    at = datetime.now(UTC)
    for user in PEOPLE:
        words = f"the words of {mark(user)}"
        await store.save_profile(user, f"Name: {mark(user)}")
        await store.add_turn(user, Turn(role="user", text=words, at=at, conversation_id="c", id="t"))
        await store.add_memory(user, Memory(text=words, at=at, id="m"))
        await store.save_summary(user, Summary("c", words, at))
        await store.save_state(user, {"conversations": 3, "stage": "acquainted", "note": words})
        await store.settle(await store.owed_by(user, ("profile", "turn", "memory", "summary", "state")))
