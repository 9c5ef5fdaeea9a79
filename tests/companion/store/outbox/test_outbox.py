"""The outbox: a write is pending until its invalidation is acknowledged, also after a crash. Run over every store."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from itertools import count
from typing import get_args
from uuid import uuid4

import pytest

from companion.store import DataKind, Memory, OutboxRow, Store, StoreError, Summary, Turn
from tests.wait import until

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALL: tuple[DataKind, ...] = get_args(DataKind)
WRITES: dict[DataKind, Callable[[Store, str], Awaitable[None]]] = {
    "profile": lambda store, user: store.save_profile(user, "me"),
    "turn": lambda store, user: store.add_turn(user, Turn("user", "hello", NOON, "c1")),
    "memory": lambda store, user: store.add_memory(user, Memory(f"likes tea {uuid4()}", NOON)),
    "summary": lambda store, user: store.save_summary(user, Summary("c1", "about tea", NOON)),
    "state": lambda store, user: store.save_state(user, {"stage": 1}),
}


async def pending_of(store: Store, user: str, older_than: float = 0) -> list[OutboxRow]:
    """The outbox entries of one user: other tests may share the database."""
    return [one for one in await store.pending_changes(1_000_000, older_than) if one.user_id == user]


def test_every_write_has_a_test() -> None:
    assert set(WRITES) == set(ALL)


@pytest.mark.parametrize("what", ALL)
async def test_every_write_is_pending_until_it_is_acknowledged(store: Store, user: str, what: DataKind) -> None:
    assert await store.pending_changes_of(user, ALL) == []
    await WRITES[what](store, user)
    pending = [OutboxRow(user, what, 1)]
    assert await store.pending_changes_of(user, [what]) == pending
    assert await store.pending_changes_of(user, ALL) == pending
    assert await store.pending_changes_of(user, [other for other in ALL if other != what]) == []
    assert await store.pending_changes_of(user, []) == []
    assert await pending_of(store, user) == pending
    await store.acknowledge(pending)
    assert await store.pending_changes_of(user, ALL) == []
    assert await pending_of(store, user) == []
    await WRITES[what](store, user)
    assert await pending_of(store, user) == [OutboxRow(user, what, 2)]


async def test_many_writes_are_one_row(store: Store, user: str) -> None:
    for _ in range(3):
        for write in WRITES.values():
            await write(store, user)
    expected = {OutboxRow(user, what, 3) for what in ALL}
    assert set(await store.pending_changes_of(user, ALL)) == expected
    assert set(await pending_of(store, user)) == expected
    await store.acknowledge(list(expected))
    assert await pending_of(store, user) == []


async def test_a_write_that_changes_nothing_is_not_pending(store: Store, user: str) -> None:
    turn, memory = Turn("user", "once", NOON, "c1"), Memory("once", NOON)
    for _ in range(3):
        await store.add_turn(user, turn)
        await store.add_memory(user, memory)
    assert set(await store.pending_changes_of(user, ALL)) == {OutboxRow(user, "turn", 1), OutboxRow(user, "memory", 1)}


async def test_acknowledging_never_covers_a_later_write(store: Store, user: str) -> None:
    await store.save_profile(user, "first")
    pending = await store.pending_changes_of(user, ["profile"])
    await store.save_profile(user, "second")  # while the first one's invalidation is delivered
    await store.acknowledge(pending)
    assert await store.pending_changes_of(user, ["profile"]) == [OutboxRow(user, "profile", 2)]


async def test_acknowledging_again_or_late_changes_nothing(store: Store, user: str) -> None:
    for _ in range(3):
        await store.save_profile(user, "me")
    await store.acknowledge([OutboxRow(user, "profile", 3)])
    await store.acknowledge(
        [OutboxRow(user, "profile", 1), OutboxRow(user, "profile", 3), OutboxRow(user, "profile", 2)]
    )
    assert await store.pending_changes_of(user, ALL) == []
    await store.save_profile(user, "me")
    await store.acknowledge([])
    await store.acknowledge([OutboxRow(user, "profile", 2)])
    assert await store.pending_changes_of(user, ALL) == [OutboxRow(user, "profile", 4)]


async def test_a_version_from_before_a_restored_backup_acknowledges_nothing(store: Store, user: str) -> None:
    await store.save_profile(user, "me")
    await store.acknowledge(
        [OutboxRow(user, "profile", 50), OutboxRow(user, "turn", 1), OutboxRow("nobody", "turn", 1)]
    )
    assert await store.pending_changes_of(user, ALL) == [OutboxRow(user, "profile", 1)]
    assert await store.pending_changes_of("nobody", ALL) == []
    await store.add_turn(user, Turn("user", "x", NOON, "c1"))
    assert OutboxRow(user, "turn", 1) in await pending_of(store, user)


async def test_users_are_apart(store: Store, user: str) -> None:
    odd = f'{user}, "x" \'\\ {{}} *%'
    for one in (user, odd):
        await store.save_profile(one, "me")
        await store.save_state(one, {})
    await store.acknowledge([OutboxRow(odd, "profile", 1), OutboxRow(user, "state", 1)])
    assert await store.pending_changes_of(user, ALL) == [OutboxRow(user, "profile", 1)]
    assert await store.pending_changes_of(odd, ALL) == [OutboxRow(odd, "state", 1)]


async def test_the_longest_waiting_comes_first(store: Store, user: str) -> None:
    users = [f"{user}-{number}" for number in (2, 3, 1)]
    for one in users:
        await store.save_profile(one, "me")
        await asyncio.sleep(0.002)  # the clock of an outbox has milliseconds
    pending = [one.user_id for one in await store.pending_changes(1_000_000) if one.user_id in users]
    assert pending == users
    assert len(await store.pending_changes(2)) == 2
    assert await store.pending_changes(2) == (await store.pending_changes(1_000_000))[:2]
    assert await store.pending_changes(0) == await store.pending_changes(-1) == []


async def test_a_recent_write_is_left_to_the_relay_of_its_writer(store: Store, user: str) -> None:
    started = time.monotonic()
    await store.save_profile(user, "me")
    assert await pending_of(store, user, older_than=60) == []
    assert await pending_of(store, user, older_than=0) == [OutboxRow(user, "profile", 1)]
    assert await until(lambda: pending_of(store, user, older_than=0.2)) == [OutboxRow(user, "profile", 1)]
    assert time.monotonic() - started > 0.19


async def test_what_was_written_lately(store: Store, user: str) -> None:
    started = time.monotonic()
    for _ in range(2):
        await store.save_profile(user, "me")
    await store.acknowledge(await store.pending_changes_of(user, ALL))  # acknowledged or not makes no difference
    await asyncio.sleep(0.002)
    await store.save_state(user, {})

    async def recent(within: float, limit: int = 1_000_000) -> list[OutboxRow]:
        return [one for one in await store.recent_changes(within, limit) if one.user_id == user]

    everything = [OutboxRow(user, "state", 1), OutboxRow(user, "profile", 2)]
    assert await recent(60) == everything
    assert await recent(60, 0) == await recent(60, -1) == []
    assert len(await store.recent_changes(60, 1)) == 1
    assert await until(lambda: _none(recent(0.2)))
    assert time.monotonic() - started > 0.19
    assert await recent(60) == everything


async def _none(rows: Awaitable[list[OutboxRow]]) -> bool:
    return await rows == []


async def test_nothing_is_acknowledged_that_was_not_delivered(store: Store, user: str) -> None:
    """Two writers that may die after their commits, and two relays, all at random points."""
    chance = random.Random(11)
    written = 0  # writes that were acknowledged
    delivered = 0  # of those, the ones whose invalidation has been delivered
    writing = 2
    numbers = count()

    async def deliver(pending: list[OutboxRow]) -> None:
        nonlocal delivered
        await asyncio.sleep(chance.uniform(0, 0.002))
        delivered = written
        await asyncio.sleep(chance.uniform(0, 0.002))
        if chance.random() < 0.8:
            await store.acknowledge(pending)

    async def write() -> None:
        nonlocal written, writing
        for _ in range(30):
            await store.add_turn(user, Turn("user", "x", NOON, "c1", id=str(next(numbers))))
            written += 1
            if chance.random() < 0.7:
                await deliver(await store.pending_changes_of(user, ["turn"]))
            await asyncio.sleep(chance.uniform(0, 0.002))
        writing -= 1

    async def relay() -> None:
        while writing:
            acknowledged = written
            pending = await pending_of(store, user)
            if not pending:
                assert delivered >= acknowledged
            elif chance.random() < 0.3:
                await deliver(pending)
            await asyncio.sleep(0.001)

    await asyncio.gather(write(), write(), relay(), relay())
    await store.add_turn(user, Turn("user", "the last", NOON, "c1"))
    pending = await pending_of(store, user)
    assert pending == [OutboxRow(user, "turn", 61)]
    await store.acknowledge(pending)
    assert await pending_of(store, user) == []


FAILING: dict[str, Callable[[Store, str], Awaitable[object]]] = {
    "pending_changes_of": lambda store, user: store.pending_changes_of(user, ALL),
    "acknowledge": lambda store, user: store.acknowledge([OutboxRow(user, "turn", 1)]),
}


async def test_a_failure_names_the_operation_not_the_data(store: Store) -> None:
    for name, operation in FAILING.items():
        with pytest.raises(StoreError) as caught:
            await operation(store, "secret\ud800name")
        assert caught.value.operation == name
        assert "secret" not in repr(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None


def test_a_row_has_a_kind_that_stores_keep() -> None:
    with pytest.raises(ValueError, match="no store keeps"):
        OutboxRow("u", "weather", 1)  # type: ignore[arg-type]  # the case under test
