"""The table of keys in docs/security.md, and the figures beside it, are those of the code."""

from __future__ import annotations

import ast
import re

import pytest

from cache import keys
from companion.caching import STALE_FOR
from companion.conversation.opening.greeting import MAX_TOPIC
from tests.documentation.pages import ROOT, text_of

pytestmark = pytest.mark.unit
DOCUMENT = text_of(ROOT / "docs" / "security.md")
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


def test_the_table_of_keys_is_the_codes() -> None:
    documented = dict(re.findall(r"(?m)^\| `([a-z]+:[^`]+)` \| (\d+|for ever) \|", DOCUMENT))
    assert documented == {name: "for ever" if key.ttl is None else str(key.ttl) for name, key in KEYS.items()}


def test_figures_are_the_codes() -> None:
    assert f"{MAX_TOPIC} characters each" in DOCUMENT
    longest = max(keys.SPEECH_TTL, keys.PROFILE_TTL + STALE_FOR)
    assert longest >= max(key.ttl or 0 for key in KEYS.values())
    assert f"After {longest // 86_400} days" in text_of(ROOT / "docs" / "encryption.md")


def test_every_way_to_make_a_key_is_described() -> None:
    makers = {
        node.name
        for node in ast.parse((ROOT / "cache" / "keys.py").read_text()).body
        if isinstance(node, ast.FunctionDef) and isinstance(node.returns, ast.Name) and node.returns.id == "Key"
    }
    assert len(makers) == len(KEYS)
