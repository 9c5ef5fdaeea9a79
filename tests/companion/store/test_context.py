"""The context of a conversation: summaries, state, and all in one read. Run over every store."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from companion.store import Context, SqliteStore, Store, StoreError, Summary, SupabaseStore, Turn
from tests.companion.store.test_conformance import TEXTS
from tests.real.supabase.postgres import connection

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def about(text: str, minutes: float = 0, conversation: str = "c1") -> Summary:
    return Summary(conversation, text, NOON + timedelta(minutes=minutes))


async def test_a_stranger_has_no_context(store: Store, user: str) -> None:
    assert await store.latest_summary(user) is None
    assert await store.get_state(user) is None
    assert await store.context(user) == Context(None, [], None, None)


async def test_texts_come_back_as_they_went_in(store: Store, user: str) -> None:
    for text in TEXTS:
        await store.save_profile(user, text)
        await store.save_summary(user, about(text))
        await store.save_state(user, {text: [text]})
        assert await store.latest_summary(user) == about(text)
        assert await store.get_state(user) == {text: [text]}
        assert await store.context(user) == Context(text, [], about(text), {text: [text]})


async def test_a_conversation_has_one_summary(store: Store, user: str) -> None:
    await store.save_summary(user, about("first draft"))
    await store.save_summary(user, about("better", minutes=1))
    assert await store.latest_summary(user) == about("better", minutes=1)
    await store.save_summary(user, about("earlier", minutes=-5))
    assert await store.latest_summary(user) == about("earlier", minutes=-5)


async def test_the_latest_summary_is_the_one_with_the_latest_time(store: Store, user: str) -> None:
    for minutes in (5, 9, 1):
        await store.save_summary(user, about(str(minutes), minutes, conversation=f"c{minutes}"))
    assert await store.latest_summary(user) == about("9", 9, conversation="c9")
    elsewhere = Summary("c10", "elsewhere", (NOON + timedelta(minutes=10)).astimezone(timezone(timedelta(hours=5))))
    await store.save_summary(user, elsewhere)
    latest = await store.latest_summary(user)
    assert latest == elsewhere
    assert latest.at.tzinfo is UTC


def test_a_summary_needs_a_time_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Summary("c", "x", datetime(2026, 1, 1))


STATES: list[dict[str, Any]] = [
    {},
    {"stage": "getting to know", "visits": 3, "score": 0.25, "new": False, "last": None},
    {"z": 1, "a": {"deep": [[], {}, [{"er": "é 👋"}]]}, "": ""},
    {"big": 2**80, "small": 1e-12, "large": 1e15, "negative": -1.5, "one": 1.0, "true": True},
    {"nested": {"state": {"state": None}}},
]


async def test_a_state_comes_back_as_it_went_in(store: Store, user: str) -> None:
    for state in STATES:
        await store.save_state(user, state)
        kept = await store.get_state(user)
        assert kept == state
        assert {key: type(value) for key, value in kept.items()} == {key: type(value) for key, value in state.items()}
        assert (await store.context(user)).state == state


async def test_a_state_is_replaced_not_merged(store: Store, user: str) -> None:
    await store.save_state(user, {"stage": 1, "mood": "fine"})
    await store.save_state(user, {"stage": 2})
    assert await store.get_state(user) == {"stage": 2}


async def test_what_no_database_can_hold_is_marked_not_lost(store: Store, user: str) -> None:
    await store.save_summary(user, about("a\x00b\ud800c"))
    await store.save_state(user, {"\x00k": ["a\x00b", {"x": "\udfff"}], "t": ("tuple",), "escape": "\\u0000"})
    assert await store.latest_summary(user) == about("a\ufffdb\ufffdc")
    assert await store.get_state(user) == {
        "\ufffdk": ["a\ufffdb", {"x": "\ufffd"}],
        "t": ["tuple"],
        "escape": "\\u0000",
    }


def _circle() -> dict[str, Any]:
    circle: dict[str, Any] = {}
    circle["self"] = circle
    return circle


def _deep() -> dict[str, Any]:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"deeper": deep}
    return deep


NO_STATES: dict[str, tuple[Any, type[Exception]]] = {
    "a list": ([], TypeError),
    "a text": ("{}", TypeError),
    "none": (None, TypeError),
    "a datetime": ({"at": NOON}, TypeError),
    "bytes": ({"x": b"x"}, TypeError),
    "a number as a key": ({"x": [{1: "x"}]}, TypeError),
    "nan": ({"x": float("nan")}, ValueError),
    "infinity": ({"x": [float("-inf")]}, ValueError),
    "a circle": (_circle(), ValueError),
    "a well": (_deep(), ValueError),
}


async def test_what_is_no_state_is_refused_at_once(store: Store, user: str) -> None:
    await store.save_state(user, {"before": True})
    for what, (state, error) in NO_STATES.items():
        try:
            await store.save_state(user, state)
        except error:
            continue
        pytest.fail(f"{what} was taken for a state")
    assert await store.get_state(user) == {"before": True}


async def test_the_context_is_all_there_is(store: Store, user: str) -> None:
    turns = [Turn("user", str(number), NOON + timedelta(seconds=number), "c1") for number in range(15)]
    for turn in turns:
        await store.add_turn(user, turn)
    await store.save_profile(user, "me")
    await store.save_summary(user, about("then", minutes=-60, conversation="c0"))
    await store.save_summary(user, about("now"))
    await store.save_state(user, {"stage": 2})
    assert await store.context(user) == Context("me", turns[-12:], about("now"), {"stage": 2})
    assert (await store.context(user, turns=2)).turns == turns[-2:]
    assert (await store.context(user, turns=100)).turns == turns
    assert (await store.context(user, turns=0)).turns == []
    assert (await store.context(user, turns=-1)).turns == []
    assert all(turn.at.tzinfo is UTC for turn in (await store.context(user)).turns)


async def test_users_are_apart(store: Store, user: str) -> None:
    other = f"{user}-2"
    await store.save_summary(user, about("mine"))
    await store.save_summary(other, about("theirs", minutes=1))
    await store.save_state(user, {"whose": "mine"})
    assert await store.latest_summary(user) == about("mine")
    assert await store.context(user) == Context(None, [], about("mine"), {"whose": "mine"})
    assert await store.context(other) == Context(None, [], about("theirs", minutes=1), None)
    assert await store.context("*") == Context(None, [], None, None)


FAILING: dict[str, Callable[[Store, str], Awaitable[object]]] = {
    "context": lambda store, user: store.context(user),
    "save_summary": lambda store, user: store.save_summary(user, about("secret")),
    "latest_summary": lambda store, user: store.latest_summary(user),
    "save_state": lambda store, user: store.save_state(user, {"secret": "secret"}),
    "get_state": lambda store, user: store.get_state(user),
}


async def test_a_failure_names_the_operation_not_the_data(store: Store) -> None:
    for name, operation in FAILING.items():
        with pytest.raises(StoreError) as caught:
            await operation(store, "secret\ud800name")
        assert caught.value.operation == name
        assert "secret" not in repr(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None


# The context is one snapshot: a transaction with two changes is never visible by half.


async def _never_halfway(store: Store, user: str, writing: asyncio.Task[None]) -> None:
    seen = set()
    while not writing.done():
        context = await store.context(user)
        state = context.state or {}
        assert context.profile == state.get("profile")
        seen.add(context.profile)
    await writing
    assert len(seen) > 3


async def test_the_context_is_of_one_moment_in_sqlite(sqlite_store: SqliteStore, tmp_path: Path, user: str) -> None:
    await sqlite_store.get_profile(user)

    def change_both() -> None:
        with closing(sqlite3.connect(tmp_path / "home" / "companion.db", timeout=5)) as db:
            for number in range(300):
                with db:
                    db.execute("REPLACE INTO profiles VALUES (?, ?, 0)", (user, str(number)))
                    db.execute("REPLACE INTO states VALUES (?, ?, 0)", (user, f'{{"profile": "{number}"}}'))

    await _never_halfway(sqlite_store, user, asyncio.create_task(asyncio.to_thread(change_both)))


async def test_the_context_is_of_one_moment_in_supabase(supabase_store: SupabaseStore, project: str, user: str) -> None:
    async def change_both() -> None:
        async with connection(project) as db:
            for number in range(200):
                async with db.transaction():
                    await db.execute(
                        "insert into companion_profiles values ($1, $2)"
                        " on conflict (user_id) do update set text = excluded.text",
                        user,
                        str(number),
                    )
                    await db.execute(
                        "insert into companion_states values ($1, jsonb_build_object('profile', $2::text))"
                        " on conflict (user_id) do update set state = excluded.state",
                        user,
                        str(number),
                    )

    await _never_halfway(supabase_store, user, asyncio.create_task(change_both()))
