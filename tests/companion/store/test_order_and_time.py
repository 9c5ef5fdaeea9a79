"""The order is that of the store, not of clocks; a time in the future is unknown; contexts are bounded. Every store."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from companion.store import OutboxRow, Store, Summary, Turn
from companion.store.records import MAX_TURN_TEXT
from tests.companion.store.outbox.test_outbox import pending_of
from tests.real.supabase.postgres import connection
from tests.wait import until

pytestmark = pytest.mark.integration
NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
SetClock = Callable[[str, float], Awaitable[None]]


def turn(text: str, at: datetime, conversation: str) -> Turn:
    return Turn("user", text, at, conversation)


@pytest.fixture
def set_clock(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> SetClock:
    """Dates a user's rows of the outbox as a clock would have that was ahead by so many seconds, and is right again."""

    async def in_sqlite(user: str, ahead: float) -> None:
        with closing(sqlite3.connect(tmp_path / "home" / "companion.db")) as db, db:
            db.execute("UPDATE outbox SET written_at = written_at + ? WHERE user_id = ?", (int(ahead * 1e6), user))

    async def in_postgres(user: str, ahead: float) -> None:
        async with connection(request.getfixturevalue("project")) as db:
            await db.execute(
                "update companion_outbox set written_at = written_at + $2 where user_id = $1",
                user,
                timedelta(seconds=ahead),
            )

    return in_sqlite if request.node.callspec.params["store"] == "sqlite" else in_postgres


async def test_the_last_conversation_is_the_one_stored_last_whatever_the_clock_said(store: Store, user: str) -> None:
    for number in range(3):
        await store.add_turn(user, turn(f"ahead {number}", NOW + HOUR + timedelta(seconds=number), "c1"))
    for number in range(3):  # the clock has been set back
        await store.add_turn(user, turn(f"right {number}", NOW + timedelta(seconds=number), "c2"))
    order = ["ahead 0", "ahead 1", "ahead 2", "right 0", "right 1", "right 2"]
    assert [each.text for each in await store.recent_turns(user)] == order
    assert [each.text for each in (await store.context(user)).turns] == order
    assert [each.text for each in await store.recent_turns(user, 2)] == order[-2:]
    assert [each.text for each in (await store.context(user, turns=4)).turns] == order[-4:]


async def test_turns_that_waited_for_the_store_keep_the_order_of_their_conversation(store: Store, user: str) -> None:
    await store.add_turn(user, turn("before", NOW + HOUR, "c1"))
    for number in (20, *range(21, 40), *range(20)):  # as a queue stores them that has tried each in turn
        await store.add_turn(user, turn(str(number), NOW + timedelta(seconds=number), "c2"))
    await store.add_turn("another", turn("not mine", NOW, "c2"))
    assert [each.text for each in await store.recent_turns(user, 3)] == ["37", "38", "39"]
    assert [each.text for each in (await store.context(user)).turns] == [str(number) for number in range(28, 40)]
    assert [each.text for each in await store.recent_turns(user, 100)] == ["before", *map(str, range(40))]


@pytest.mark.parametrize("long", ["x" * 1_000_000, "👩‍👩‍👧 é " * 10_000])
async def test_a_context_holds_the_beginning_of_a_long_turn_and_the_store_all_of_it(
    store: Store, user: str, long: str
) -> None:
    for text in (long, "short", "y" * MAX_TURN_TEXT):
        await store.add_turn(user, turn(text, NOW, "c1"))
    texts = [each.text for each in (await store.context(user)).turns]
    assert texts == [long[:MAX_TURN_TEXT], "short", "y" * MAX_TURN_TEXT]
    assert (await store.recent_turns(user))[0].text == long


async def test_a_summary_from_the_future_is_the_latest_only_if_there_is_no_other(store: Store, user: str) -> None:
    ahead, right = Summary("c1", "ahead", NOW + HOUR), Summary("c2", "right", NOW)
    await store.save_summary(user, ahead)
    assert await store.latest_summary(user) == (await store.context(user)).summary == ahead
    await store.save_summary(user, right)
    assert await store.latest_summary(user) == (await store.context(user)).summary == right


async def test_a_pending_row_from_the_future_is_seen(store: Store, user: str, set_clock: SetClock) -> None:
    await store.save_profile(user, "me")
    assert await pending_of(store, user, older_than=60) == []
    await set_clock(user, 3600)
    assert await pending_of(store, user, older_than=60) == [OutboxRow(user, "profile", 1)]
    assert OutboxRow(user, "profile", 1) in await store.recent_changes(60, 1_000_000)


async def test_the_age_of_a_pending_row_is_the_stores(store: Store, user: str, set_clock: SetClock) -> None:
    await store.save_profile(user, "me")
    await set_clock(user, -50)
    assert await pending_of(store, user, older_than=60) == []
    assert await pending_of(store, user, older_than=49) == [OutboxRow(user, "profile", 1)]
    await set_clock(user, -10)

    async def seen() -> bool:
        return await pending_of(store, user, older_than=60) == [OutboxRow(user, "profile", 1)]

    await until(seen)
