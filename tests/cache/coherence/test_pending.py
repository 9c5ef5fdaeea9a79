"""Masking of a user's keys that no name is known of, and the memory limits of what is pending."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from cache.coherence import pending
from cache.coherence.pending import PendingPattern, PendingQueue
from cache.keys import profile, user_pattern

pytestmark = pytest.mark.unit


def by_name(queue: PendingQueue, glob: str, user_id: str, known: set[str]) -> PendingPattern:
    """Queue a pattern whose known keys are deleted at once."""
    pattern = PendingPattern(glob, user_id)
    queue.add_pattern(*pattern)
    queue.deleted_by_name(pattern, queue.sequence_of(pattern), known)
    return pattern


def test_only_keys_that_were_not_deleted_by_name_are_masked() -> None:
    queue = PendingQueue()
    assert not queue
    by_name(queue, "user:1:*", "1", {"user:1:memory:a"})
    assert queue
    assert not any(queue.invalidations)
    began = queue.sequence
    assert queue.newest_invalidation("user:1:by hand") == began
    for key in ("user:1:memory:a", profile("1"), "user:2:by hand", "user:12:by hand", "temp:1:x", "user:1"):
        assert not queue.masks(key), key
    queue.acknowledge_store("user:1:by hand", began - 1)
    assert queue.masks("user:1:by hand"), "that began to be stored before it was to be hidden"
    queue.acknowledge_store("user:1:by hand", began)
    assert not queue.masks("user:1:by hand")


def test_until_the_deletion_by_name_all_is_masked() -> None:
    queue = PendingQueue()
    queue.add_pattern("user:1:*", None)
    assert queue.masks(profile("1"))
    assert queue.undelivered
    assert not queue.to_scan()
    queue.acknowledge_store(profile("1"), queue.sequence)
    assert not queue.masks(profile("1"))


def test_each_pattern_hides_what_it_reaches() -> None:
    queue = PendingQueue()
    by_name(queue, "*:notes:*", "1", {"user:1:notes:a"})
    assert queue.masks("user:1:notes:b")
    assert not queue.masks("user:1:other")
    by_name(queue, "user:1:*", "1", set())
    assert all(queue.masks(f"user:1:{name}") for name in ("notes:a", "notes:b", "other"))


def test_keys_invalidated_again_stay_masked() -> None:
    queue = PendingQueue()
    first = by_name(queue, "user:1:*", "1", set())
    by_name(queue, "user:2:*", "2", set())
    scanned = queue.to_scan()
    by_name(queue, "user:1:*", "1", set())
    by_name(queue, "user:2:notes:*", "2", set())
    by_name(queue, "user:3:*", "3", set())
    for pattern, sequence in scanned.items():
        queue.acknowledge(pattern, sequence)
    assert {pattern.glob for pattern in queue.to_scan()} == {"user:1:*", "user:2:notes:*", "user:3:*"}
    queue.deleted_by_name(first, scanned[first], {"user:1:x"})
    assert queue.masks("user:1:x"), "that deletion began before"
    for pattern, sequence in queue.to_scan().items():
        queue.acknowledge(pattern, sequence)
    assert not queue


def test_no_more_names_are_remembered_than_is_sane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_KNOWN", 3)
    queue = PendingQueue()
    by_name(queue, "user:1:*", "1", set())
    for n in range(4):
        queue.acknowledge_store(f"user:1:n{n}", queue.sequence)
    assert [queue.masks(f"user:1:n{n}") for n in range(4)] == [False, False, False, True]


def test_too_many_patterns_of_one_user_become_all_of_that_user() -> None:
    queue = PendingQueue()
    for n in range(pending.MAX_PATTERNS_PER_USER):
        by_name(queue, f"user:1:{n}:*", "1", set())
    assert not any(queue.invalidations)
    assert not queue.masks(profile("1"))
    by_name(queue, "user:1:more:*", "1", set())
    assert not queue.to_scan()
    assert queue.invalidations.patterns == (PendingPattern(user_pattern("1"), "1", own=True),)


def test_too_many_users_become_all_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_USERS", 3)
    queue = PendingQueue()
    for user in "1234":
        by_name(queue, user_pattern(user), user, set())
    assert queue.invalidations.patterns == (PendingPattern("user:*", None, own=True),)
    assert queue.masks("user:5:anything")
    assert not queue.masks("temp:5:anything")


def test_the_caches_of_one_redis_share_the_entries() -> None:
    one = PendingQueue()
    other = PendingQueue(one.shared)
    pattern = by_name(one, "user:1:*", "1", set())
    assert other.masks("user:1:by hand")
    assert set(one.to_scan()) == set(other.to_scan()) == {pattern}
    one.quarantine("its server", lambda _: True)
    assert one.masks(profile("3"))
    assert not other.masks(profile("3")), "the other may be connected to another server"
    other.acknowledge(pattern, other.sequence_of(pattern))
    assert not one.masking("user:1:by hand")


@pytest.mark.parametrize("ended", ["scan", "loop", "fork"])
def test_one_cache_scans_for_all_until_it_cannot(ended: str) -> None:
    one, loop = PendingQueue(), asyncio.new_event_loop()
    other = PendingQueue(one.shared)

    async def scan() -> None:
        one.shared.scan = asyncio.create_task(asyncio.sleep(0 if ended == "scan" else 60))
        await asyncio.sleep(0)
        assert one.shared.scanning
        assert other.shared.scanning
        if ended == "scan":
            await one.shared.scan
        elif ended == "fork":
            other.shared.forked()
        if ended in ("scan", "fork"):
            assert not other.shared.scanning

    try:
        loop.run_until_complete(scan())
        assert not other.shared.scanning, "its loop does not run"
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def test_the_entries_may_be_used_in_several_threads() -> None:
    first, stop = PendingQueue(), Event()

    def use(number: int) -> int:
        queue, rounds = PendingQueue(first.shared), 0
        while not stop.is_set():
            rounds += 1
            name = f"user:{number}:{rounds % 50}"
            queue.add(name)
            pattern = by_name(queue, f"user:{number}:*{rounds % 50}", str(number), {name})
            assert queue.masks(name)
            assert queue.undelivered_for({str(number)})
            queue.acknowledge_store(name, queue.sequence)
            queue.acknowledge(pattern, queue.sequence_of(pattern))
            assert not queue.masks(name)
        return rounds

    with ThreadPoolExecutor(4) as threads:
        used = [threads.submit(use, number) for number in range(4)]
        time.sleep(0.2)
        stop.set()
        assert all(each.result() for each in used)
    assert not first
