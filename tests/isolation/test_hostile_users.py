"""A reduced run of the cases of ``make chaos``, and mutations of the product that the checks must detect."""

from __future__ import annotations

import logging
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import pytest

from cache import RedisCache, keys
from companion.store import SqliteStore
from tests.faults.harness.table import isolation_row
from tests.isolation.cases.tool_cases import cache_tools, operators, profile_tools, unknown_callers
from tests.isolation.fixture_data import OPERATOR
from tests.isolation.runner import open_runner
from tests.isolation.suite import CASE_COUNTS, CASES, run_suite
from tools import CacheTools

pytestmark = pytest.mark.isolation
REDUCED_COUNTS = {
    "identities": 1_000,
    "metadata": 800,
    "key parts": 800,
    "patterns": 1_000,
    "cache tools": 300,
    "operators": 50,
    "unknown callers": 250,
    "profile tools": 250,
    "functions": 250,
    "conversations": 50,
    "erasures": 12,
}


def test_case_counts() -> None:
    assert sum(CASE_COUNTS.values()) >= 100_000
    assert CASE_COUNTS.keys() == REDUCED_COUNTS.keys() == CASES.keys()


async def test_nothing_of_others_changes_or_is_seen(tmp_path: Path) -> None:
    result = await run_suite(tmp_path, REDUCED_COUNTS, seed=1)
    assert not result.violations
    assert dict(result.cases) == REDUCED_COUNTS
    assert result.lines > 10
    assert isolation_row(result).endswith("none")


# -- mutations that must be detected ------------------------------------------------------------------------------


async def _violations_of(directory: Path, kind: Any, count: int = 100) -> str:
    async with open_runner(directory, float("inf")) as it:
        await kind(it, Random(1), count)
    return " ".join(it.result.violations)


async def test_detects_a_pattern_that_is_not_narrowed(tmp_path: Path) -> None:
    original = RedisCache.invalidate

    async def invalidate(self: RedisCache, pattern: str, *, user_id: str | None = None, own: bool = False) -> Any:
        return await original(self, pattern)

    with patch.object(RedisCache, "invalidate", invalidate):
        assert "changed of others" in await _violations_of(tmp_path, cache_tools)


async def test_detects_an_unknown_caller_treated_as_a_user(tmp_path: Path) -> None:
    with patch.object(CacheTools, "_identify", lambda self, context: ("me", False)):  # private: the bug to be made
        assert "changed of others" in await _violations_of(tmp_path, unknown_callers)


async def test_detects_an_operator_who_reaches_locks(tmp_path: Path) -> None:
    with patch.object(keys, "RESERVED", ("lease:", "stale:")):
        assert "changed of others" in await _violations_of(tmp_path, operators)


async def test_detects_a_store_that_mixes_users_up(tmp_path: Path) -> None:
    original = SqliteStore.save_profile

    async def swap_profile(self: SqliteStore, user_id: str, text: str, **given: Any) -> bool:
        await original(self, "me2", text)
        return True

    with patch.object(SqliteStore, "swap_profile", swap_profile):
        assert "changed of others" in await _violations_of(tmp_path, profile_tools)


async def test_detects_data_shown_to_others(tmp_path: Path) -> None:
    original = SqliteStore.search_memories

    async def search_memories(self: SqliteStore, user_id: str, query: str, limit: int = 5) -> Any:
        return await original(self, OPERATOR, "", limit)

    with patch.object(SqliteStore, "search_memories", search_memories):
        assert "shown of others" in await _violations_of(tmp_path, profile_tools)


async def test_detects_a_log_leak(tmp_path: Path) -> None:
    original = SqliteStore.swap_profile

    async def swap_profile(self: SqliteStore, user_id: str, text: str, **given: Any) -> bool:
        logging.getLogger("companion").debug("saving %s", text)
        return await original(self, user_id, text, **given)

    with patch.object(SqliteStore, "swap_profile", swap_profile):
        assert "log leaks" in await _violations_of(tmp_path, profile_tools)
