"""Every promise of docs/security.md names a test, and its table of keys matches the code."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from cache import keys
from companion.caching import STALE_FOR
from companion.conversation.opening.greeting import MAX_TOPIC

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "security.md").read_text()
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOCUMENT)))
KEYS = {
    "user:{user_id}:profile": keys.profile("1"),
    "user:{user_id}:greeting_instructions": keys.greeting_instructions("1"),
    "user:{user_id}:summary": keys.summary("1"),
    "user:{user_id}:state": keys.state("1"),
    "user:{user_id}:memory:{memory_id}": keys.memory("1", "1"),
    "user:{user_id}:speech:{speech_id}": keys.speech("1", "1"),
    "speech:{speech_id}": keys.shared_speech("1"),
    "user:{user_id}:settings": keys.settings("1"),
    "system:config": keys.system_config(),
    "temp:{session_id}:{key}": keys.temp("1", "1"),
    "lock:{resource}:{id}": keys.lock("1", "1"),
    "system:stats": keys.system_stats(),
}


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_the_test_that_shows_it_exists(path: str, name: str) -> None:
    assert name.startswith("test_")
    assert name in names_in(path)


def test_every_promise_names_a_test() -> None:
    rows, shown = [], False
    for line in DOCUMENT.splitlines():
        shown = line.endswith("| shown by |") or (shown and line.startswith("|"))
        if shown and not line.endswith("| shown by |") and not line.startswith("|---"):
            rows.append(line)
    assert len(rows) > 40
    assert [row for row in rows if not re.search(r"\| (`tests/[\w/]+\.py::test_\w+` ?)+\|$", row)] == []


def test_the_table_of_keys_is_the_codes() -> None:
    documented = dict(re.findall(r"(?m)^\| `([a-z]+:[^`]+)` \| (\d+|for ever) \|", DOCUMENT))
    assert documented == {name: "for ever" if key.ttl is None else str(key.ttl) for name, key in KEYS.items()}


def test_figures_are_the_codes() -> None:
    assert f"{MAX_TOPIC} characters each" in DOCUMENT
    longest = max(keys.SPEECH_TTL, keys.PROFILE_TTL + STALE_FOR)
    assert longest >= max(key.ttl or 0 for key in KEYS.values())
    assert f"After {longest // 86_400} days" in DOCUMENT


def test_every_way_to_make_a_key_is_described() -> None:
    makers = {
        node.name
        for node in ast.parse((ROOT / "cache" / "keys.py").read_text()).body
        if isinstance(node, ast.FunctionDef) and isinstance(node.returns, ast.Name) and node.returns.id == "Key"
    }
    assert len(makers) == len(KEYS)
