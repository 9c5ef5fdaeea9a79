"""Faults that only the Supabase store meets (networks, proxies, keys); none of them may reveal user data."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import get_args
from unittest.mock import AsyncMock

import aiohttp
import httpx
import pytest

from companion.caching.change_feed import ChangeFeed
from companion.store import Memory, OutboxRow, StoreError, Summary, SupabaseStore, Turn, explain_answer
from tests.lag import LoopLag, within
from tests.real.supabase.postgres import Postgres, connection
from tests.real.supabase.postgrest import Fault, PostgREST
from tests.wait import until

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PRIVATE = "Xanthippe"
TIMEOUT = 1.0
PATIENCE = 20.0  # for a fault that is no silence, on a busy machine

OPERATIONS: dict[str, Callable[[SupabaseStore, str], Awaitable[object]]] = {
    "get_profile": lambda store, user: store.get_profile(user),
    "save_profile": lambda store, user: store.save_profile(user, f"about {PRIVATE}"),
    "swap_profile": lambda store, user: store.swap_profile(user, PRIVATE, instead_of=f"not {PRIVATE}", at=NOON),
    "profile_for_write": lambda store, user: store.profile_for_write(user, PRIVATE),
    "profile_versions": lambda store, user: store.profile_versions(user),
    "restore_profile": lambda store, user: store.restore_profile(user, 1),
    "add_turn": lambda store, user: store.add_turn(user, Turn("user", f"I am {PRIVATE}", NOON, PRIVATE)),
    "recent_turns": lambda store, user: store.recent_turns(user),
    "add_memory": lambda store, user: store.add_memory(user, Memory(f"is {PRIVATE}", NOON)),
    "search_memories": lambda store, user: store.search_memories(user, PRIVATE),
    "count_memories": lambda store, user: store.count_memories(user, PRIVATE),
    "remove_memory": lambda store, user: store.remove_memory(user, PRIVATE),
    "save_summary": lambda store, user: store.save_summary(user, Summary(PRIVATE, f"about {PRIVATE}", NOON)),
    "latest_summary": lambda store, user: store.latest_summary(user),
    "save_state": lambda store, user: store.save_state(user, {PRIVATE: PRIVATE}),
    "get_state": lambda store, user: store.get_state(user),
    "context": lambda store, user: store.context(user),
    "pending_changes": lambda store, user: store.pending_changes(),
    "recent_changes": lambda store, user: store.recent_changes(60, 10),
    "pending_changes_of": lambda store, user: store.pending_changes_of(user, ["turn"]),
    "acknowledge": lambda store, user: store.acknowledge([OutboxRow(user, "turn", 1)]),
    "register_cache": lambda store, user: store.register_cache(user, take_over=False),
}
WRITES = {"add_turn", "add_memory", "save_summary", "save_state"}
REASONS: dict[Fault, str] = {
    "silent": "timeout",
    "drip": "timeout",
    "gone": "ServerDisconnectedError",
    "504": "HTTP 504",
    "401": "HTTP 401 (the key is refused: SUPABASE_SECRET_KEY must be the secret key of the project at SUPABASE_URL)",
    "html": "unexpected answer",
    "cut": "unexpected answer",
    "cut off": "ClientPayloadError",
    "empty": "unexpected answer",
    "broken row": "unexpected answer",
    "deadlock": "HTTP 500 40P01",
}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Captures the log of all libraries."""
    caplog.set_level(logging.DEBUG)
    return caplog


async def fails(
    store: SupabaseStore, operation: str, user: str, log: pytest.LogCaptureFixture, *more_private: str
) -> str:
    """Check that the operation fails in time without logging, and return the reason."""
    started = time.monotonic()
    async with LoopLag() as lag:
        with pytest.raises(StoreError) as caught:
            await OPERATIONS[operation](store, user)
    limit = TIMEOUT + 1 + lag.seconds if caught.value.reason == "timeout" else PATIENCE
    assert time.monotonic() - started < limit
    assert caught.value.operation == operation
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    everything = log.text + "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    for private in (PRIVATE, user, *more_private):
        assert private not in everything
    return caught.value.reason


def test_every_fault_has_a_test() -> None:
    assert {*REASONS, "gone once"} == set(get_args(Fault))


@pytest.mark.parametrize("fault", REASONS)
async def test_a_fault_is_a_store_error_in_time(
    api: PostgREST, user: str, log: pytest.LogCaptureFixture, fault: Fault
) -> None:
    store = SupabaseStore(api.url, api.secret_key, timeout=TIMEOUT if REASONS[fault] == "timeout" else PATIENCE)
    # An empty answer is what a write expects.
    operations = [name for name in OPERATIONS if not (fault == "empty" and name in WRITES)]
    with api.failing(fault):
        reasons = await asyncio.gather(*(fails(store, name, user, log, api.secret_key) for name in operations))
    assert dict(zip(operations, reasons, strict=True)) == dict.fromkeys(operations, REASONS[fault])
    await asyncio.gather(*(operation(store, user) for operation in OPERATIONS.values()))  # it has recovered
    await store.close()


async def test_a_server_that_is_away_and_comes_back(api: PostgREST, user: str, log: pytest.LogCaptureFixture) -> None:
    store = SupabaseStore(api.url, api.secret_key, timeout=PATIENCE)
    await store.save_profile(user, "before")
    await api.stop()
    for operation in OPERATIONS:
        assert (await fails(store, operation, user, log)).startswith("ClientConnectorError (the project cannot be rea")
    await api.start()
    assert await store.get_profile(user) == "before"
    await store.close()


async def test_a_slow_server_is_waited_for(api: PostgREST, user: str) -> None:
    store = SupabaseStore(api.url, api.secret_key, timeout=5)
    api.delay = 0.3
    await store.save_profile(user, "slowly")
    assert await store.get_profile(user) == "slowly"
    await store.close()


async def test_a_kept_connection_may_be_lost_once(supabase_store: SupabaseStore, api: PostgREST, user: str) -> None:
    await supabase_store.get_profile(user)
    for name, operation in OPERATIONS.items():
        before = api.requests
        api.fault = "gone once"
        await operation(supabase_store, user)
        assert (name, api.requests) == (name, before + 2)


async def test_a_write_that_was_done_before_the_connection_was_lost_is_done_once(
    supabase_store: SupabaseStore, user: str
) -> None:
    turn = Turn("user", "once", NOON, "c")
    await asyncio.gather(*(supabase_store.add_turn(user, turn) for _ in range(5)))
    assert await supabase_store.recent_turns(user) == [turn]


@pytest.mark.parametrize("kind", ["secret_key", "service_role_key"])
async def test_both_kinds_of_secret_key_are_good(api: PostgREST, user: str, kind: str) -> None:
    store = SupabaseStore(api.url, getattr(api, kind))
    await store.save_profile(user, "me")
    assert await store.get_profile(user) == "me"
    await store.close()


@pytest.mark.parametrize("kind", ["publishable_key", "anon_key"])
def test_a_public_key_is_refused_without_showing_it(api: PostgREST, kind: str) -> None:
    key = getattr(api, kind)
    with pytest.raises(ValueError, match="secret") as caught:
        SupabaseStore(api.url, key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("key", ["sb_secret_wrong", "nonsense", "a.b.c", "new\nline", "ünï"])
async def test_a_wrong_key_is_a_store_error(api: PostgREST, user: str, log: pytest.LogCaptureFixture, key: str) -> None:
    store = SupabaseStore(api.url, key, timeout=PATIENCE)
    assert await fails(store, "get_profile", user, log, key)
    await store.close()


async def test_a_wrong_key_is_named_as_one(api: PostgREST, user: str, log: pytest.LogCaptureFixture) -> None:
    for key in ("sb_secret_wrong", PostgREST("").service_role_key):
        store = SupabaseStore(api.url, key, timeout=PATIENCE)
        reason = await fails(store, "get_profile", user, log, key)
        assert reason.startswith("HTTP 401 (the key is refused: SUPABASE_SECRET_KEY must be the secret key of the")
        await store.close()


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        ("context", "HTTP 404 PGRST202 (the function companion_open is missing: apply supabase/migrations (`supabase"),
        ("get_profile", "HTTP 404 PGRST205 (the table companion_profiles is missing: apply supabase/migrations (`supa"),
        ("add_turn", "HTTP 404 PGRST205 (the table companion_turns is missing: apply supabase/migrations (`supabase"),
    ],
)
async def test_a_missing_migration_is_named_as_one(
    postgres: Postgres, user: str, log: pytest.LogCaptureFixture, operation: str, reason: str
) -> None:
    async with PostgREST(postgres.dsn()) as empty:
        store = SupabaseStore(empty.url, empty.secret_key, timeout=PATIENCE)
        assert (await fails(store, operation, user, log)).startswith(reason)
        await store.close()


async def test_a_table_that_was_dropped_is_named(postgres: Postgres, user: str, log: pytest.LogCaptureFixture) -> None:
    dsn = await postgres.create_database()
    async with connection(dsn) as db:
        await db.execute("drop table companion_states")
    async with PostgREST(dsn) as api:
        store = SupabaseStore(api.url, api.secret_key, timeout=PATIENCE)
        reason = await fails(store, "context", user, log)
        assert reason.startswith("HTTP 404 42P01 (the table companion_states is missing: apply supabase/migrations")
        await store.close()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b"<html>404</html>", "HTTP 404 (no data API at this address: SUPABASE_URL must be https://PROJECT."),
        (540, b"", "HTTP 540 (the project is paused"),
        (503, b'{"code": "PGRST001", "message": "x"}', "HTTP 503 PGRST001 (the project's database does not answer"),
        (401, b'{"code": "PGRST303", "message": "JWT expired"}', "HTTP 401 PGRST303 (the key has expired"),
        (401, b'{"code": "42501", "message": "x"}', "HTTP 401 42501 (the key is a public one"),
        (403, b'{"code": "42501", "message": "x"}', "HTTP 403 42501 (a right is missing: apply supabase/migrations"),
        (406, b'{"code": "PGRST106", "message": "x"}', "HTTP 406 PGRST106 (the data API does not expose the schema"),
        (409, b'{"code": "23505", "message": "Key (user_id)=(Xanthippe)"}', "HTTP 409 23505"),
        (
            404,
            b'{"code": "PGRST202", "message": "no public.xanthippe()"}',
            "HTTP 404 PGRST202 (not migrated: apply sup",
        ),
        (500, b'{"code": "Xanthippe"}', "HTTP 500"),
        (500, b'["code"]', "HTTP 500"),
        (500, b"\xff", "HTTP 500"),
    ],
)
def test_what_an_error_means(status: int, body: bytes, said: str) -> None:
    assert explain_answer(status, body).startswith(said)
    assert PRIVATE not in explain_answer(status, body)


@pytest.mark.parametrize(("kind", "bearer"), [("secret_key", False), ("service_role_key", True)])
async def test_only_a_key_that_is_a_token_travels_as_one(api: PostgREST, user: str, kind: str, bearer: bool) -> None:
    key = getattr(api, kind)
    store = SupabaseStore(api.url, key)
    await asyncio.gather(*(operation(store, user) for operation in OPERATIONS.values()))
    await store.close()
    async with aiohttp.ClientSession() as http:
        await ChangeFeed(api.url, key).read(http, AsyncMock())
    assert api.bearers == [key if bearer else None] * (len(OPERATIONS) + 1)


@pytest.mark.parametrize("url", ["", "not a url", "ftp://127.0.0.1", "http://", "http://127.0.0.1:99999"])
async def test_a_wrong_url_is_a_store_error(user: str, log: pytest.LogCaptureFixture, url: str) -> None:
    store = SupabaseStore(url, "sb_secret_x", timeout=PATIENCE)
    assert await fails(store, "get_profile", user, log)
    await store.close()


async def test_the_databases_own_words_are_not_passed_on(
    api: PostgREST, log: pytest.LogCaptureFixture, user: str
) -> None:
    store = SupabaseStore(api.url, api.secret_key, timeout=PATIENCE)
    # PostgreSQL refuses NUL, and an index entry of this size, and quotes what it refuses.
    assert await fails(store, "add_turn", f"{user}\x00", log) == "HTTP 400 22P05"
    assert await fails(store, "add_turn", user + "".join(map(str, range(3000))), log) == "HTTP 500 54000"
    await store.close()


async def test_cancelled_calls_cost_the_pool_nothing(api: PostgREST, user: str) -> None:
    store = SupabaseStore(api.url, api.secret_key, timeout=PATIENCE)
    await store.save_profile(user, "still here")
    chance = random.Random(7)
    operations = [OPERATIONS[name] for name in OPERATIONS if name != "save_profile"]
    cut = 0

    async def cut_short(number: int) -> None:
        nonlocal cut
        try:
            # At any stage of a call: waiting for a connection, opening one, writing, reading.
            async with asyncio.timeout(chance.uniform(0, 0.02)):
                await operations[number % len(operations)](store, user)
        except TimeoutError:
            cut += 1

    for _ in range(3):
        await asyncio.gather(*(cut_short(number) for number in range(100)))
    assert cut > 100
    async with within(2.0):
        assert await asyncio.gather(*(store.get_profile(user) for _ in range(40))) == ["still here"] * 40
    await store.close()


async def test_the_first_callers_may_hang_up(api: PostgREST, user: str) -> None:
    store = SupabaseStore(api.url, api.secret_key)
    first, second = (asyncio.create_task(store.get_profile(user)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is None
    await store.close()


async def test_closing_ends_a_call_under_way(api: PostgREST, user: str, log: pytest.LogCaptureFixture) -> None:
    store = SupabaseStore(api.url, api.secret_key, timeout=5)
    with api.failing("silent"):
        call = asyncio.create_task(store.get_profile(user))
        await until(lambda: api.requests)
        await store.close()
        with pytest.raises(StoreError, match="get_profile failed: closed"):
            await call
    assert user not in log.text


async def test_what_httpx_logs_has_no_filters(
    supabase_store: SupabaseStore, api: PostgREST, user: str, log: pytest.LogCaptureFixture
) -> None:
    await supabase_store.get_profile(user)
    await supabase_store.search_memories(user, PRIVATE)
    lines = [record.getMessage() for record in log.records if record.name == "httpx"]
    assert any("/rest/v1/companion_profiles " in line for line in lines)
    assert user not in log.text
    assert PRIVATE not in log.text
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda request: httpx.Response(200))) as theirs:
        await theirs.get("http://elsewhere.example/path?a=1")
    assert "http://elsewhere.example/path?a=1" in log.text  # requests of other clients are logged as usual
