"""Masking of unindexed keys during a background scan, and its memory limit."""

from __future__ import annotations

import pytest

from cache.coherence import pending, unindexed_keys
from cache.coherence.pending import PendingQueue
from cache.coherence.unindexed_keys import UnindexedKeys
from cache.keys import profile, user_pattern

pytestmark = pytest.mark.unit


def test_only_possibly_unindexed_keys_are_masked() -> None:
    hidden = UnindexedKeys()
    assert not hidden
    hidden.mask("user:1:*", "1", {"memory:a"}, 7)
    assert hidden
    assert hidden.newest("user:1:by hand") == 7
    for key in ("user:1:memory:a", profile("1"), "user:2:by hand", "user:12:by hand", "temp:1:x", "user:1:", "user:1"):
        assert hidden.newest(key) == 0, key
    hidden.stored("user:1:by hand", since=6)
    assert hidden.newest("user:1:by hand") == 7, "that began to be stored before it was to be hidden"
    hidden.stored("user:1:by hand", since=7)
    hidden.stored("user:2:by hand", since=7)
    assert hidden.newest("user:1:by hand") == 0


def test_each_pattern_hides_what_it_reaches() -> None:
    hidden = UnindexedKeys()
    hidden.mask("*:notes:*", "1", {"notes:a"}, 1)
    assert hidden.newest("user:1:notes:b") == 1
    assert hidden.newest("user:1:other") == 0
    hidden.mask("user:1:*", "1", set(), 2)
    assert [hidden.newest(f"user:1:{name}") for name in ("notes:a", "notes:b", "other")] == [2, 2, 2]


def test_keys_invalidated_again_stay_masked() -> None:
    hidden = UnindexedKeys()
    hidden.mask("user:1:*", "1", set(), 1)
    hidden.mask("user:2:*", "2", set(), 2)
    walked = hidden.waiting()
    hidden.mask("user:1:*", "1", set(), 3)
    hidden.mask("user:2:notes:*", "2", set(), 4)
    hidden.mask("user:3:*", "3", set(), 5)
    hidden.deleted(walked)
    assert hidden.waiting() == {"1": {"user:1:*": 3}, "2": {"user:2:notes:*": 4}, "3": {"user:3:*": 5}}
    hidden.deleted(hidden.waiting())
    assert not hidden


def test_no_more_names_are_remembered_than_is_sane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unindexed_keys, "MAX_KNOWN", 3)
    hidden = UnindexedKeys()
    hidden.mask("user:1:*", "1", set(), 1)
    for n in range(4):
        hidden.stored(f"user:1:n{n}", since=1)
    assert [hidden.newest(f"user:1:n{n}") for n in range(4)] == [0, 0, 0, 1]


def test_too_many_patterns_of_one_user_become_all_of_that_user() -> None:
    queue = PendingQueue()
    for n in range(pending.MAX_PATTERNS_PER_USER):
        queue.mask(f"user:1:{n}:*", "1", set())
    assert not queue.undelivered
    assert not queue.covers(profile("1"))
    queue.mask("user:1:more:*", "1", set())
    assert not queue.unindexed
    assert queue.invalidations.patterns == ((user_pattern("1"), "1"),)


def test_too_many_users_become_all_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_SCANNED_USERS", 3)
    queue = PendingQueue()
    for user in "1234":
        queue.mask(user_pattern(user), user, set())
    assert not queue.unindexed
    assert queue.covers("user:5:anything")
    assert not queue.covers("temp:5:anything")
