"""The documented keys, and ids that try to match more than one user."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import keys
from cache.coherence.glob import matches

pytestmark = pytest.mark.unit


def test_every_documented_key_and_ttl() -> None:
    made = {
        keys.profile("123"): ("user:123:profile", 3600),
        keys.greeting_instructions("123"): ("user:123:greeting_instructions", 120),
        keys.settings("123"): ("user:123:settings", 3600),
        keys.state("123"): ("user:123:state", 1800),
        keys.memory("123", "m1"): ("user:123:memory:m1", 300),
        keys.system_config(): ("system:config", 3600),
        keys.system_stats(): ("system:stats", None),
        keys.lock("user", "123"): ("lock:user:123", 60),
        keys.temp("session", "draft"): ("temp:session:draft", 300),
    }
    assert {key: (str(key), key.ttl) for key in made} == made


HOSTILE = [
    "*",
    "user-*",
    "a?",
    "[a]",
    "a]",
    "a\\",
    "1:profile",
    "a b",
    "a\n",
    "",
    "é",
    "😀",
    "x" * 129,
    "a\x00",
    "a^",
]


@pytest.mark.parametrize("hostile", [*HOSTILE, None, 7, b"1"])
def test_no_id_widens_a_key(hostile: str) -> None:
    for make in (keys.profile, keys.greeting_instructions, keys.settings, keys.state, keys.user_pattern):
        with pytest.raises(keys.InvalidKeyPart) as refusal:
            make(hostile)
        assert len(str(refusal.value)) < 200
    with pytest.raises(keys.InvalidKeyPart):
        keys.lock("user", hostile)
    with pytest.raises(keys.InvalidKeyPart):
        keys.temp(hostile, "k")


@pytest.mark.parametrize("fine", ["1", "abc-123", "a.b_c@d.org", "0f8fad5b-d9cb-469f-a165-70867728950e", "x" * 128])
def test_usual_ids_are_fine(fine: str) -> None:
    assert keys.profile(fine) == f"user:{fine}:profile"
    assert matches(keys.user_pattern(fine), keys.profile(fine))


@given(st.text("ab*?[]^-\\:", max_size=8), st.text("ab*?[]^-\\:", max_size=8))
def test_an_escaped_text_matches_only_itself(text: str, other: str) -> None:
    assert matches(keys.escape(text), text)
    assert matches(keys.escape(text), other) == (text == other)


@given(st.text("ab*?", max_size=10), st.text("ab", max_size=10))
def test_the_matcher_agrees_with_fnmatch(pattern: str, text: str) -> None:
    assert matches(pattern, text) == fnmatch.fnmatchcase(text, pattern)


@pytest.mark.parametrize("pattern", ["*a" * 500 + "b", "*[" + "b" * 1020 + "]", "*" + "[ab]" * 250 + "c", "*?" * 512])
def test_a_hostile_pattern_costs_little(pattern: str) -> None:
    """A user may have hundreds of keys, and matching them blocks the loop."""
    texts = [f"{number:03}" + "a" * 297 for number in range(300)]
    began = time.process_time()
    found = [text for text in texts if matches(pattern, text)]
    assert time.process_time() - began < 0.5
    assert not found


def test_a_guard_names_its_key() -> None:
    odd = ["7", "{7}", ":7", ":{7}", "{7", "7}", "}{", "{}", ":", "lease:{7}", "lease::{7}", "user:1:a{b}c", "\n"]
    for guard in (keys.lease, keys.stale):
        assert [keys.guarded_by(guard(key)) for key in odd] == odd
    for other in ("lease:car:7", "lease:{}", "lease:{a}b", "lease::a", "lease:", "stale", "lock:{a}", "user:1:x"):
        assert keys.guarded_by(other) == "", other
