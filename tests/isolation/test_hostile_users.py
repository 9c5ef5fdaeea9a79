"""A few thousand of the cases that ``make chaos`` carries out in full, and the promise that it would notice."""

from __future__ import annotations

import logging
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from cache import RedisCache, keys
from companion.store import SqliteStore
from tests.faults.table import isolation_line
from tests.isolation.stage import stage
from tests.isolation.tool_calls import cache_tools, nobodies, operators, profile_tools
from tests.isolation.town import OPERATOR
from tests.isolation.trial import ALL, KINDS, isolation
from tools import CacheTools

FEW = {
    "identities": 1_000,
    "metadata": 800,
    "key parts": 800,
    "patterns": 1_000,
    "cache tools": 300,
    "operators": 50,
    "nobodies": 250,
    "profile tools": 250,
    "functions": 250,
    "conversations": 50,
}


def test_there_are_enough() -> None:
    assert sum(ALL.values()) >= 100_000
    assert ALL.keys() == FEW.keys() == KINDS.keys()


async def test_nothing_of_others_changes_or_is_seen(tmp_path: Path) -> None:
    verdict = await isolation(tmp_path, FEW, seed=1)
    assert not verdict.broken
    assert dict(verdict.cases) == FEW
    assert verdict.lines > 10
    assert isolation_line(verdict).endswith("none")


# -- it would notice ---------------------------------------------------------------------------------------------


async def _broken(directory: Path, kind: Any, count: int = 100) -> str:
    async with stage(directory, float("inf")) as it:
        await kind(it, Random(1), count)
    return " ".join(it.verdict.broken)


async def test_it_notices_a_pattern_that_is_not_narrowed(tmp_path: Path) -> None:
    everybody = RedisCache.invalidate

    async def invalidate(self: RedisCache, pattern: str, *, user_id: str | None = None) -> Any:
        return await everybody(self, pattern)

    with patch.object(RedisCache, "invalidate", invalidate):
        assert "changed of others" in await _broken(tmp_path, cache_tools)


async def test_it_notices_that_nobody_is_taken_for_somebody(tmp_path: Path) -> None:
    with patch.object(CacheTools, "_who", lambda self, context: ("me", False)):
        assert "changed of others" in await _broken(tmp_path, nobodies)


async def test_it_notices_an_operator_who_reaches_locks(tmp_path: Path) -> None:
    with patch.object(keys, "RESERVED", ("lease:", "stale:")):
        assert "changed of others" in await _broken(tmp_path, operators)


async def test_it_notices_a_store_that_mixes_people_up(tmp_path: Path) -> None:
    right = SqliteStore.save_profile

    async def save_profile(self: SqliteStore, user_id: str, text: str) -> None:
        await right(self, "me2", text)

    with patch.object(SqliteStore, "save_profile", save_profile):
        assert "changed of others" in await _broken(tmp_path, profile_tools)


async def test_it_notices_what_is_shown_to_others(tmp_path: Path) -> None:
    right = SqliteStore.search_memories

    async def search_memories(self: SqliteStore, user_id: str, query: str, limit: int = 5) -> Any:
        return await right(self, OPERATOR, "", limit)

    with patch.object(SqliteStore, "search_memories", search_memories):
        assert "shown of others" in await _broken(tmp_path, profile_tools)


async def test_it_notices_a_log_that_tells(tmp_path: Path) -> None:
    right = SqliteStore.save_profile

    async def save_profile(self: SqliteStore, user_id: str, text: str) -> None:
        logging.getLogger("companion").debug("saving %s", text)
        await right(self, user_id, text)

    with patch.object(SqliteStore, "save_profile", save_profile):
        assert "log lines tell" in await _broken(tmp_path, profile_tools)
