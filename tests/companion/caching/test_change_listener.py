"""External changes of the database invalidate the cache: at once with Realtime, soon without it, after outages too."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, get_args
from unittest.mock import AsyncMock
from uuid import uuid4

import aiohttp
import asyncpg
import pytest
import pytest_asyncio
from realtime import AsyncRealtimeClient, RealtimePostgresChangesListenEvent

from cache import RedisCache, keys
from companion.caching.change_feed import INITIAL_WINDOW, Change, ChangeFeed, FeedFailed
from companion.caching.change_listener import ChangeListener, ListenerTiming
from companion.caching.invalidation import invalidate
from companion.caching.realtime import NotifierTiming
from companion.store import Memory, Summary, SupabaseStore, Turn
from tests.lag import within
from tests.real.supabase.phoenix import Fault, Phoenix
from tests.real.supabase.postgres import Postgres, connection, migrate
from tests.real.supabase.postgrest import PostgREST
from tests.wait import until

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = 3600.0
# With this timing the feed is polled only after a notification (and at the start).
NOTIFIER_ONLY = ListenerTiming(
    poll_interval=HOUR,
    confirm_after=HOUR,
    min_poll_gap=0.01,
    retry_first=0.02,
    retry_max=0.05,
    notifier=NotifierTiming(heartbeat_interval=0.1, reply_timeout=2, subscribe_timeout=5),
)
IMPATIENT = replace(
    NOTIFIER_ONLY, notifier=NotifierTiming(heartbeat_interval=0.1, reply_timeout=0.15, subscribe_timeout=0.25)
)
SOON = replace(NOTIFIER_ONLY, poll_interval=0.1, confirm_after=0.1)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def watched(postgres: Postgres) -> str:
    """The DSN of a database with Realtime's publication, as a hosted project has it."""
    dsn = await postgres.create_database(migrated=False)
    async with connection(dsn) as db:
        await db.execute("create publication supabase_realtime")
        await migrate(db)
        await migrate(db)
    return dsn


@pytest.fixture
async def db(watched: str) -> AsyncIterator[asyncpg.Connection]:
    """Another client of the database."""
    async with connection(watched) as superuser:
        yield superuser


@pytest.fixture
async def realtime(watched: str) -> AsyncIterator[Phoenix]:
    async with Phoenix(watched) as server:
        yield server


@pytest.fixture
async def api(watched: str, realtime: Phoenix) -> AsyncIterator[PostgREST]:
    async with PostgREST(watched, realtime) as server:
        yield server


class Listening:
    """Listeners, and the changes they applied."""

    def __init__(self, api: PostgREST) -> None:
        self.applied: list[tuple[str, str]] = []
        self._api = api
        self._listeners: list[ChangeListener] = []

    def __call__(self, timing: ListenerTiming = NOTIFIER_ONLY, on_change: Any = None) -> ChangeListener:
        listener = ChangeListener(self._api.url, self._api.secret_key, on_change or self.apply, timing=timing)
        listener.start()
        self._listeners.append(listener)
        return listener

    async def apply(self, user_id: str, what: str) -> None:
        self.applied.append((user_id, what))

    def of(self, user: str) -> list[str]:
        return [what for one, what in self.applied if one == user]

    async def end(self) -> None:
        for listener in self._listeners:
            await listener.stop()


@pytest.fixture
async def listen(api: PostgREST) -> AsyncIterator[Listening]:
    listening = Listening(api)
    yield listening
    await listening.end()


async def edit(db: asyncpg.Connection, user: str, text: str = "edited by hand") -> None:
    await db.execute(
        "insert into companion_profiles (user_id, text) values ($1, $2)"
        " on conflict (user_id) do update set text = excluded.text",
        user,
        text,
    )


async def noted(db: asyncpg.Connection, user: str) -> set[str]:
    rows = await db.fetch("select what from companion_changes where user_id = $1", user)
    return {row["what"] for row in rows}


# What is noted -----------------------------------------------------------------------------------------------------


async def test_our_own_writes_are_not_noted(api: PostgREST, db: asyncpg.Connection, user: str) -> None:
    store = SupabaseStore(api.url, api.secret_key)
    await store.save_profile(user, "me")
    await store.save_profile(user, "me again")
    await store.add_turn(user, Turn("user", "hello", NOON, "c"))
    await store.add_memory(user, Memory("likes tea", NOON))
    await store.save_summary(user, Summary("c", "about tea", NOON))
    await store.save_state(user, {"stage": 1})
    await store.acknowledge(await store.pending_changes_of(user, ["profile", "turn"]))
    await store.close()
    assert await noted(db, user) == set()


async def test_whatever_comes_without_our_header_is_noted(api: PostgREST, db: asyncpg.Connection, user: str) -> None:
    service = api.client(api.secret_key)
    row = {"user_id": user, "text": "from another service"}
    await service.table("companion_profiles").upsert(row, on_conflict="user_id", returning="minimal").execute()
    await service.postgrest.aclose()
    assert await noted(db, user) == {"profile"}


async def test_every_kind_of_data_and_of_change_is_noted(db: asyncpg.Connection, user: str) -> None:
    heir = f"{user}-heir"
    await edit(db, user)
    await db.execute("insert into companion_turns values ($1, 't', 'c', 'user', 'hello', now())", user)
    await db.execute("insert into companion_memories (user_id, id, text, at) values ($1, 'm', 'tea', now())", user)
    await db.execute("insert into companion_summaries values ($1, 'c', 'about tea', now())", user)
    await db.execute("insert into companion_states values ($1, '{}')", user)
    assert await noted(db, user) == {"profile", "turn", "memory", "summary", "state"}

    async def changes() -> dict[str, int]:
        rows = await db.fetch("select * from companion_changes where user_id = $1", user)
        return {row["what"]: row["xact"] for row in rows}

    before = await changes()
    await db.execute("update companion_memories set user_id = $2 where user_id = $1", user, heir)
    assert await noted(db, heir) == {"memory"}
    await db.execute("delete from companion_turns where user_id = $1", user)
    after = await changes()
    assert {what for what in after if after[what] > before[what]} == {"memory", "turn"}
    async with db.transaction():  # a session in which PostgREST's setting was set earlier: it is empty, not absent
        await db.execute("select set_config('request.headers', '', true)")
        await db.execute("truncate companion_summaries")
    assert (await changes())["summary"] > after["summary"]


async def test_only_the_service_role_reads_what_is_noted(db: asyncpg.Connection) -> None:
    allowed = {
        "select * from companion_changes": ["service_role"],
        "select companion_changes_after(0)": ["service_role"],
        "delete from companion_changes": [],
        "insert into companion_changes values ('u', 'profile', 1, now())": [],
    }
    for statement, roles in allowed.items():
        for role in ("anon", "authenticated", "service_role"):
            refusal: Any = pytest.raises(asyncpg.InsufficientPrivilegeError)
            with contextlib.nullcontext() if role in roles else refusal:
                async with db.transaction():
                    await db.execute(f"set local role {role}")
                    await db.execute(statement)


# What is read ------------------------------------------------------------------------------------------------------


class Reader:
    """A feed, read by hand."""

    def __init__(self, api: PostgREST, page: int = 1000) -> None:
        self.pages = 0
        self._feed = ChangeFeed(api.url, api.secret_key, timeout=2, page=page)

    async def news(self) -> list[Change]:
        read: list[Change] = []

        async def apply(changes: list[Change]) -> None:
            self.pages += 1
            read.extend(changes)

        async with aiohttp.ClientSession() as http:
            await self._feed.read(http, apply)
        return read


async def test_a_transaction_that_ends_late_is_not_missed(
    api: PostgREST, watched: str, db: asyncpg.Connection, user: str
) -> None:
    reader = Reader(api)
    await reader.news()
    async with connection(watched) as slow:
        transaction = slow.transaction()
        await transaction.start()
        await edit(slow, f"{user}-slow")
        await edit(db, f"{user}-quick")
        (quick,) = await reader.news()
        assert quick.user_id == f"{user}-quick"
        assert await reader.news() == []  # nothing is read twice because another transaction is open
        await edit(db, f"{user}-quick")
        (again,) = await reader.news()
        assert again.xact > quick.xact
        await transaction.commit()
    (late,) = await reader.news()
    assert late.user_id == f"{user}-slow"
    assert late.xact < quick.xact  # a reader with the highest number seen as its cursor would have missed it
    assert await reader.news() == []


async def test_a_change_that_is_rolled_back_is_none(api: PostgREST, db: asyncpg.Connection, user: str) -> None:
    reader = Reader(api)
    await reader.news()
    transaction = db.transaction()
    await transaction.start()
    await edit(db, user)
    await transaction.rollback()
    assert await reader.news() == []


async def test_many_changes_come_in_pages(api: PostgREST, db: asyncpg.Connection, user: str) -> None:
    reader = Reader(api, page=10)
    await reader.news()
    reader.pages = 0
    many = "insert into companion_profiles (user_id, text) select $1 || n, 'x' from generate_series(1, 35) n"
    await db.execute(many, user)
    assert sorted(change.user_id for change in await reader.news()) == sorted(f"{user}{n}" for n in range(1, 36))
    assert reader.pages == 4
    await db.execute(many.replace("'x'", "'y'").replace("$1", "$1 || '-'"), user)
    async with db.transaction():
        await edit(db, user)
        assert len(await reader.news()) == 35
    assert len(await reader.news()) == 1


async def test_a_new_reader_begins_with_what_caches_may_still_hold(
    api: PostgREST, db: asyncpg.Connection, user: str
) -> None:
    for name, age in (("new", 0), ("held", INITIAL_WINDOW - 60), ("gone", INITIAL_WINDOW + 60)):
        await edit(db, f"{user}-{name}")
        await db.execute(
            "update companion_changes set at = now() - make_interval(secs => $2) where user_id = $1",
            f"{user}-{name}",
            float(age),
        )
    read = {change.user_id for change in await Reader(api).news()}
    assert {f"{user}-new", f"{user}-held"} <= read
    assert f"{user}-gone" not in read


async def test_what_is_no_answer_is_an_error_and_nothing_is_lost(
    api: PostgREST, db: asyncpg.Connection, user: str
) -> None:
    reader = Reader(api)
    await reader.news()
    await edit(db, user)
    for fault, reason in (("504", "HTTP 504"), ("html", "unexpected"), ("cut", "unexpected"), ("empty", "unexpected")):
        with api.failing(fault), pytest.raises(FeedFailed, match=reason):  # type: ignore[arg-type]  # the fault's name, as a str
            await reader.news()
    assert [change.user_id for change in await reader.news()] == [user]


# The listener ------------------------------------------------------------------------------------------------------


async def test_a_change_is_applied_at_once(listen: Listening, realtime: Phoenix, db: asyncpg.Connection) -> None:
    listen()
    await until(lambda: realtime.subscribed)
    users = [str(uuid4()) for _ in range(60)]
    delays = []
    for user in users:
        await edit(db, user)
        committed = time.perf_counter()
        await until(lambda user=user: listen.of(user))
        delays.append(time.perf_counter() - committed)
    assert sorted(delays)[-2] < 0.5, delays  # of 60; at most a tenth of a second on an idle machine
    assert realtime.attempts == 1


async def test_changes_from_before_the_start_are_applied(listen: Listening, db: asyncpg.Connection, user: str) -> None:
    await edit(db, user)
    listen()
    await until(lambda: listen.of(user))


async def test_our_own_writes_do_not_notify(
    listen: Listening, api: PostgREST, realtime: Phoenix, db: asyncpg.Connection, user: str
) -> None:
    listen()
    await until(lambda: realtime.subscribed)
    store = SupabaseStore(api.url, api.secret_key)
    await store.save_profile(user, "ours")
    await store.close()
    await edit(db, f"{user}-2")
    await until(lambda: listen.of(f"{user}-2"))
    assert listen.of(user) == []


async def test_changes_between_the_join_and_the_subscription_are_applied(
    listen: Listening, api: PostgREST, realtime: Phoenix, db: asyncpg.Connection, user: str
) -> None:
    realtime.delay = 0.2
    listen()
    await until(lambda: api.requests)  # the poll at the start
    await asyncio.sleep(0.05)
    assert not realtime.subscribed
    await edit(db, user)
    await until(lambda: listen.of(user))


BROKEN: dict[Fault, str] = {
    "disabled": "HTTP 403",
    "gone": "ServerDisconnectedError",
    "silent": "no answer in time",
    "mute": "the subscription was not answered",
    "join refused": "refused: ConnectionRateLimitReached",
    "never subscribed": "the subscription was not answered",
    "no heartbeat": "a heartbeat was not answered",
}
WORKING = {"external changes: Realtime notifies", "external changes: the feed can be read"}
"""The beginnings of the lines in the log when all works."""

LEAKY: set[Fault] = {"lossy", "malformed"}


def test_every_fault_has_a_test() -> None:
    assert BROKEN.keys() | LEAKY == set(get_args(Fault))


@pytest.fixture
def log_lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Captures the log of all libraries; a call returns the lines of the companion."""
    caplog.set_level(logging.DEBUG)
    return lambda: [record.getMessage() for record in caplog.records if record.name == "companion"]


@pytest.mark.parametrize("fault", BROKEN)
async def test_changes_during_a_failure_of_realtime_are_applied_after_it(
    listen: Listening,
    api: PostgREST,
    realtime: Phoenix,
    db: asyncpg.Connection,
    user: str,
    fault: Fault,
    log_lines: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    listen(IMPATIENT)
    # Also the first poll is over: a slow one would find the change of below.
    await until(lambda: {line.partition("; ")[0] for line in log_lines()} >= WORKING)
    realtime.attempts = 0
    with realtime.failing(fault):
        realtime.drop()
        await until(lambda: realtime.attempts > 2)
        await edit(db, user)
        if fault != "no heartbeat":  # changes still arrive
            assert listen.of(user) == []
    await until(lambda: listen.of(user))
    assert f"external changes: Realtime does not notify ({BROKEN[fault]})" in "\n".join(log_lines())
    for private in (api.secret_key, user):
        assert private not in caplog.text


async def test_it_never_gives_up(
    listen: Listening, realtime: Phoenix, db: asyncpg.Connection, user: str, log_lines: Callable[[], list[str]]
) -> None:
    with realtime.failing("disabled"):
        listen()
        await until(lambda: realtime.attempts > 20)  # supabase-py's client would have given up after five
        await edit(db, user)
    await until(lambda: listen.of(user))
    assert [line for line in log_lines() if "Realtime" in line] == [
        "external changes: Realtime does not notify (HTTP 403); polling every 3600 s",
        "external changes: Realtime notifies; polling every 3600 s",
    ]


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ("phx_close", {}),
        ("phx_error", {}),
        ("system", {"extension": "system", "status": "error", "message": "Too many messages per second"}),
        ("system", {"extension": "postgres_changes", "status": "error", "message": "Unable to subscribe"}),
    ],
)
async def test_bad_news_means_another_try(
    listen: Listening,
    realtime: Phoenix,
    db: asyncpg.Connection,
    user: str,
    event: str,
    payload: dict[str, Any],
) -> None:
    listen()
    await until(lambda: realtime.subscribed)
    await realtime.push(event, payload)
    await until(lambda: realtime.attempts == 2 and realtime.subscribed)
    await edit(db, user)
    await until(lambda: listen.of(user))


async def test_a_token_that_expires_is_routine(
    listen: Listening, realtime: Phoenix, db: asyncpg.Connection, user: str, log_lines: Callable[[], list[str]]
) -> None:
    """Once a day, with a secret key: the gateway has made a token of it."""
    listen()
    await until(lambda: realtime.subscribed)
    for number in (2, 3):
        expired = {"extension": "system", "status": "error", "message": "Token has expired 0 seconds ago"}
        with realtime.failing("lossy"):
            await edit(db, f"{user}-{number}")
            await realtime.push("system", expired)
            await until(lambda number=number: realtime.attempts == number)
        await until(lambda: realtime.subscribed)
        await until(lambda number=number: listen.of(f"{user}-{number}"))
    lines = [line for line in log_lines() if "Realtime" in line]
    assert lines == ["external changes: Realtime notifies; polling every 3600 s"]


async def test_a_token_that_is_never_good_is_reported(
    listen: Listening, realtime: Phoenix, log_lines: Callable[[], list[str]]
) -> None:
    realtime.delay = HOUR
    listen()
    await until(lambda: realtime.channels)
    await realtime.push("system", {"extension": "system", "status": "error", "message": "Token has expired 9 s ago"})
    await until(lambda: any("does not notify (the token has expired)" in line for line in log_lines()))


async def test_a_project_that_wants_private_channels(
    listen: Listening, realtime: Phoenix, db: asyncpg.Connection, user: str, log_lines: Callable[[], list[str]]
) -> None:
    realtime.private_only = True
    listen()
    await until(lambda: realtime.subscribed)
    await edit(db, user)
    await until(lambda: listen.of(user))
    lines = [line for line in log_lines() if "Realtime" in line]
    assert lines == ["external changes: Realtime notifies; polling every 3600 s"]


@pytest.mark.parametrize(
    ("extension", "message", "reason"),
    [
        (
            "postgres_changes",
            "Unable to subscribe to changes with given parameters.",
            "is the table in the publication",
        ),
        ("postgres_changes", "DatabaseLackOfConnections: Too many", "(refused: DatabaseLackOfConnections)"),
        ("postgres_changes", "could not connect: x is 7", "(refused)"),
        ("system", "PrivateOnly: as before", "(refused: PrivateOnly)"),
    ],
)
async def test_only_a_subscription_that_is_refused_names_the_publication(
    listen: Listening,
    realtime: Phoenix,
    log_lines: Callable[[], list[str]],
    extension: str,
    message: str,
    reason: str,
) -> None:
    realtime.private_only = message.startswith("PrivateOnly")
    listen()
    await until(lambda: realtime.subscribed)
    await realtime.push("system", {"extension": extension, "status": "error", "message": message})
    await until(lambda: any("does not notify" in line for line in log_lines()))
    (line,) = (line for line in log_lines() if "does not notify" in line)
    assert reason in line
    assert ("publication" in line) == message.startswith("Unable to subscribe")


@pytest.mark.parametrize("kind", ["secret_key", "service_role_key"])
async def test_only_a_key_that_is_a_token_is_sent_as_one(api: PostgREST, realtime: Phoenix, kind: str) -> None:
    listener = ChangeListener(api.url, getattr(api, kind), AsyncMock(), timing=NOTIFIER_ONLY)
    listener.start()
    await until(lambda: realtime.subscribed)
    await listener.stop()
    assert [join.get("access_token") for join in realtime.joins] == [api.service_role_key if "role" in kind else None]


async def test_a_connection_that_is_cut_is_made_anew(
    listen: Listening, realtime: Phoenix, db: asyncpg.Connection, user: str
) -> None:
    listen()
    for number in range(1, 8):  # supabase-py's client would have given up after five
        await until(lambda number=number: realtime.attempts == number and realtime.subscribed)
        realtime.drop()
        await edit(db, f"{user}-{number}")
        await until(lambda number=number: listen.of(f"{user}-{number}"))


async def test_heartbeats_keep_a_quiet_connection(listen: Listening, realtime: Phoenix) -> None:
    listen()
    await until(lambda: realtime.heartbeats > 3)
    assert realtime.attempts == 1


@pytest.mark.parametrize(
    "garbage", ["malformed", "{}", '{"topic": "realtime:companion", "event": "system"}', "[1]", "7"]
)
async def test_what_cannot_be_read_may_have_been_a_change(
    listen: Listening, realtime: Phoenix, db: asyncpg.Connection, user: str, garbage: str
) -> None:
    listen()
    await until(lambda: realtime.subscribed)
    if garbage == "malformed":
        with realtime.failing("malformed"):
            await edit(db, user)
            await until(lambda: listen.of(user))
    else:
        with realtime.failing("lossy"):
            await edit(db, user)
            await realtime.say(garbage)
            await until(lambda: listen.of(user))
    assert realtime.attempts == 1


async def test_what_realtime_leaves_out_is_found(
    listen: Listening, realtime: Phoenix, db: asyncpg.Connection, user: str
) -> None:
    listen(SOON)
    await until(lambda: realtime.subscribed)
    with realtime.failing("lossy"):
        await edit(db, user)
        await until(lambda: listen.of(user))
    assert realtime.attempts == 1


async def test_without_realtime_the_feed_is_polled(project: str, user: str, log_lines: Callable[[], list[str]]) -> None:
    """A project whose Realtime does not serve the table: the publication is missing."""
    async with Phoenix(project) as realtime, PostgREST(project, realtime) as api, connection(project) as db:
        listening = Listening(api)
        listening(SOON)
        await until(lambda: realtime.attempts > 3)
        await edit(db, user)
        await until(lambda: listening.of(user))
        await listening.end()
    assert [line for line in log_lines() if "Realtime" in line] == [
        "external changes: Realtime does not notify (no subscription; is the table in the publication "
        "supabase_realtime?); polling every 0.1 s"
    ]


async def test_a_notification_that_comes_too_early_is_followed_by_a_second_poll(
    listen: Listening, api: PostgREST, realtime: Phoenix, watched: str, db: asyncpg.Connection, user: str
) -> None:
    """Realtime reads the write-ahead log, which contains a commit before it is visible to others."""
    listen(replace(NOTIFIER_ONLY, confirm_after=0.3))
    await until(lambda: realtime.subscribed)
    await db.execute("alter table companion_changes disable trigger stand_in_tells")
    try:
        async with connection(watched) as slow, slow.transaction():
            await edit(slow, user)
            polls = api.requests
            realtime.emit({"schema": "public", "table": "companion_changes", "type": "UPDATE", "record": {}})
            await until(lambda: api.requests > polls)
            assert listen.of(user) == []
        await until(lambda: listen.of(user))
    finally:
        await db.execute("alter table companion_changes enable trigger stand_in_tells")


async def test_the_project_may_be_away(
    listen: Listening, api: PostgREST, db: asyncpg.Connection, user: str, log_lines: Callable[[], list[str]]
) -> None:
    listen(SOON)
    await until(lambda: log_lines()[1:])
    await api.stop()
    await until(
        lambda: any("cannot be read (ClientConnectorError (the project cannot be" in line for line in log_lines())
    )
    await edit(db, user)
    assert listen.of(user) == []
    await api.start()
    await until(lambda: listen.of(user))

    def of_the_feed() -> list[str]:
        return [line for line in log_lines() if "the feed" in line]

    await until(lambda: "can be read" in of_the_feed()[-1])
    before, *reasons, after = of_the_feed()
    assert "can be read" in before
    assert "can be read" in after
    # Each reason is logged once. A request in flight when the project stops may add its own (ServerDisconnectedError).
    assert "ClientConnectorError" in reasons[-1]
    assert len(reasons) == len(set(reasons)) <= 2


async def test_missing_migrations_are_logged(postgres: Postgres, log_lines: Callable[[], list[str]]) -> None:
    dsn = await postgres.create_database(migrated=False)
    async with Phoenix(dsn) as realtime, PostgREST(dsn, realtime) as api:
        listening = Listening(api)
        listening(SOON)
        await until(
            lambda: any(
                "HTTP 404 PGRST202 (the function companion_changes_after is missing: apply" in line
                for line in log_lines()
            )
        )
        await listening.end()


async def test_a_change_that_cannot_be_applied_stops_nothing(
    listen: Listening, realtime: Phoenix, db: asyncpg.Connection, user: str, log_lines: Callable[[], list[str]]
) -> None:
    async def apply(user_id: str, what: str) -> None:
        if user_id.endswith("bad"):
            raise RuntimeError(user_id)
        await listen.apply(user_id, what)

    listen(on_change=apply)
    await until(lambda: realtime.subscribed)
    for name in ("bad", "good"):
        await edit(db, f"{user}-{name}")
    await until(lambda: listen.of(f"{user}-good"))
    assert "an external change could not be applied (RuntimeError)" in log_lines()
    assert user not in "".join(log_lines())


@pytest.mark.parametrize("fault", [None, *BROKEN])
async def test_stopping_leaves_nothing(listen: Listening, realtime: Phoenix, fault: Fault | None) -> None:
    before = asyncio.all_tasks()
    realtime.fault = fault
    listener = listen(replace(NOTIFIER_ONLY, notifier=NotifierTiming()))
    await until(lambda: realtime.attempts and (fault or realtime.subscribed))
    ours = {task for task in asyncio.all_tasks() - before if task.get_name().startswith("change-listener")}
    assert len(ours) == 3
    async with within(1.0):
        await listener.stop()
    assert all(task.done() for task in ours)
    await until(lambda: not realtime.sockets)
    await listener.stop()
    realtime.fault = None
    listener.start()
    await until(lambda: realtime.subscribed)


# The cache ---------------------------------------------------------------------------------------------------------

KEYS = {
    "profile": "user:ada:profile",
    "greeting": "user:ada:greeting_instructions",
    "summary": "user:ada:summary",
    "state": "user:ada:state",
    "settings": "user:ada:settings",
    "memory": "user:ada:memory:search-1",
}


@pytest.mark.parametrize(
    ("what", "gone"),
    [
        ("profile", {"profile", "greeting"}),
        ("turn", {"greeting"}),
        ("summary", {"summary", "greeting"}),
        ("state", {"state", "greeting"}),
        ("memory", {"memory", "greeting"}),
        ("something new", set(KEYS)),
    ],
)
async def test_dependent_keys_are_deleted(cache: RedisCache, what: str, gone: set[str]) -> None:
    await cache.set_many({**dict.fromkeys(KEYS.values(), "old"), "user:ad:profile": "another's"})
    await invalidate(cache, "ada", what)
    rest = await cache.get_many([*KEYS.values(), "user:ad:profile"])
    assert rest.keys() == {KEYS[name] for name in KEYS.keys() - gone} | {"user:ad:profile"}


@pytest.mark.parametrize("user_id", ["", "*", "a:b", "user-*", "x" * 1000, "ünï", "a\nb"])
async def test_an_id_that_cannot_be_cached_is_passed_over(cache: RedisCache, user_id: str) -> None:
    await cache.set("user:a:profile", "stays")
    for what in ("profile", "memory", "anything"):
        await invalidate(cache, user_id, what)
    assert await cache.get("user:a:profile") == "stays"


async def test_an_edit_by_hand_reaches_the_cache(
    listen: Listening, api: PostgREST, realtime: Phoenix, db: asyncpg.Connection, user: str, cache: RedisCache
) -> None:
    store = SupabaseStore(api.url, api.secret_key)
    key = keys.profile(user)

    async def profile() -> Any:
        return await cache.get_or_load(key, lambda: store.get_profile(user), ttl=key.ttl)

    async def on_change(user_id: str, what: str) -> None:
        await invalidate(cache, user_id, what)

    listen(on_change=on_change)
    await until(lambda: realtime.subscribed)
    await store.save_profile(user, "as it was")
    assert await profile() == "as it was"
    await edit(db, "not:an id that is ever cached")
    await edit(db, user)

    async def has_changed() -> bool:
        return await profile() == "edited by hand"

    await until(has_changed)
    await store.close()


# The stand-in ------------------------------------------------------------------------------------------------------


async def test_supabases_own_client_understands_the_stand_in(
    api: PostgREST, realtime: Phoenix, db: asyncpg.Connection, user: str
) -> None:
    client = AsyncRealtimeClient(f"{api.url}/realtime/v1", api.secret_key)
    received: list[Any] = []
    channel = client.channel("theirs").on_postgres_changes(
        RealtimePostgresChangesListenEvent.All, received.append, table="companion_changes", schema="public"
    )
    systems: list[Any] = []
    channel.on_system(systems.append)
    await channel.subscribe()
    await until(lambda: systems)
    assert systems[0].message == "Subscribed to PostgreSQL"
    await edit(db, user)
    await until(lambda: received)
    assert received[0]["data"]["record"]["user_id"] == user
    assert realtime.heartbeats == 1
    await client.remove_all_channels()
    await until(lambda: not realtime.sockets)


@pytest.mark.parametrize(
    ("key", "join", "reason"),
    [
        ("secret_key", {"config": {}}, "does not know this way to join"),
        ("secret_key", {"filter": "user_id=eq.1"}, "does not know this kind of change"),
        ("secret_key", {"access_token": "not.a.token"}, "MalformedJWT"),
        ("publishable_key", {}, "knows nothing of row level security"),
    ],
)
async def test_what_it_does_not_know_it_refuses(
    api: PostgREST, realtime: Phoenix, key: str, join: dict[str, Any], reason: str
) -> None:
    change = {"event": "*", "schema": "public", "table": "companion_changes"}
    if "filter" in join:
        change |= join
    config = {
        "broadcast": {"ack": False, "self": False},
        "presence": {"key": "", "enabled": False},
        "private": False,
        "postgres_changes": [change],
    }
    payload = {"config": join.get("config", config), "access_token": join.get("access_token", getattr(api, key))}
    address = f"{api.url}/realtime/v1/websocket?apikey={getattr(api, key)}&vsn=1.0.0"
    async with aiohttp.ClientSession() as http, http.ws_connect(address) as socket:
        await socket.send_json({"topic": "realtime:x", "event": "phx_join", "payload": payload, "ref": "1"})
        answer = await socket.receive_json()
    assert answer["payload"]["status"] == "error"
    assert reason in answer["payload"]["response"]["reason"]


async def test_a_wrong_key_is_refused_at_the_gateway(api: PostgREST, realtime: Phoenix) -> None:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await http.ws_connect(f"{api.url}/realtime/v1/websocket?apikey=wrong&vsn=1.0.0")
    assert caught.value.status == 401
    assert realtime.attempts == 0
