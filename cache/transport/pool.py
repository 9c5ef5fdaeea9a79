"""redis-py behind a deadline: every operation answers in time or fails with a ``TransportError``.

``asyncio.timeout`` around redis-py does not hold: with a socket timeout set, redis-py can swallow a cancellation, and
the caller hangs for as long as that timeout. So every operation runs as a task of its own, the caller waits for it
with ``asyncio.wait`` (which cancels and awaits nothing), and after the deadline the task is abandoned: cancelled, kept
until it ends, its outcome dropped.

While Redis is away ``call`` fails at once and a background task reconnects. A late operation does not prove that Redis
is away, since our own loop may have been blocked: a PING decides. So does, every second, the server's role.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import AuthenticationError, RedisClusterException, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ..background import BackgroundTasks
from ..exceptions import (
    CommandRejected,
    CommandTimeout,
    ConnectionLost,
    HandshakeFailed,
    NotConnected,
    TransportError,
)
from ..settings import CacheSettings
from .attempts import Attempts
from .connection import REPLICA
from .dial import Names
from .handshake import REJECTED
from .redis_py import check_role, find_client, rejection
from .sentinel import MOVED, PrimaryFinder

T = TypeVar("T")

_PING_TIMEOUT = 0.25  # seconds a PING may take before Redis counts as away
CHECK_EVERY = 1.0  # seconds between two looks at whether the server is still a primary
_GRACE_TURNS = 3  # loop iterations for a reply that has arrived but was not yet read
_SPARE = 2  # connections to a cluster's node that redis-py keeps for refreshing its slot table


class PooledClient:
    """A redis-py client, replaced whenever Redis has been away.

    Args:
        probes: returns the commands that a server is sent before it is used. Each may be rejected.
        on_up: called each time Redis answers again, with the replies to them.
        on_failed: called with the reason, free of credentials, of each attempt that failed.

    Attributes:
        away: whether Redis is known not to answer; if False, it answers or that is not known yet.
        client: the redis-py client in use; None while there is none.
        background: abandoned calls, and clients that are being closed.
    """

    def __init__(
        self,
        settings: CacheSettings,
        probes: Callable[[], Sequence[tuple[Any, ...]]],
        on_up: Callable[[list[Any]], None],
        on_failed: Callable[[str], None],
    ) -> None:
        self._settings, self._probes, self._on_up = settings, probes, on_up
        self._on_failed = on_failed
        self.client: Redis | None = None
        self._known = asyncio.Event()  # set once it is known whether Redis answers
        self._suspect = asyncio.Event()
        self._deposed = ""  # why the server in use is not the primary any more
        self.away = False
        self._supervisor: asyncio.Task[None] | None = None
        self.background = BackgroundTasks()
        self._server = settings.endpoint  # what the last attempt connected to
        self._primary = PrimaryFinder(settings.endpoint, Names(self.background), self.background)
        self._attempts = Attempts(
            self._attempt,
            settings.socket_connect_timeout,
            self.background,
            on_failed=self._failed,
            discard=lambda found: self._retire(found[0]),
        )
        self._operations: dict[asyncio.Future[Any], Redis] = {}
        self._free_connections = asyncio.Semaphore(max(1, settings.max_connections - _SPARE))

    @property
    def up(self) -> bool:
        """Whether Redis is believed to answer."""
        return self.client is not None

    def start(self) -> None:
        """Begin connecting in the background. Does nothing when that is under way."""
        if self._supervisor is None or self._supervisor.done():
            self._supervisor = asyncio.create_task(self._supervise(), name="cache-pool", context=Context())

    async def wait_up(self, timeout: float) -> bool:
        """Wait until Redis answers, a first failure, or ``timeout`` (seconds). Returns whether it answers."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._known.wait()
        return self.up

    def stop(self) -> None:
        """Stop using Redis at once. Connections close in the background; see :meth:`closed`."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            self.background.abandon(supervisor)
        self.client, self.away = None, False
        self._known.clear()

    async def closed(self) -> None:
        """Wait at most a second until everything that :meth:`stop` ended has ended."""
        # The supervisor closes its client in the background as it ends.
        await self.background.ended(1.0)

    async def call(self, operation: Callable[[Redis], Awaitable[T]], *, timeout: float) -> T:
        """Run an operation of redis-py's client. ``timeout``: seconds.

        Raises:
            NotConnected: Redis is away.
            CommandTimeout: no reply within the timeout.
            ConnectionLost: the connection was lost.
            CommandRejected: Redis answered with an error.
        """
        client = self.client
        if client is None:
            raise NotConnected("not connected")
        work = self._with_connection(client, operation) if isinstance(client, RedisCluster) else operation(client)
        try:
            return await self._answer(client, work, timeout)
        except (CommandTimeout, ConnectionLost):
            self._suspect.set()
            raise

    async def _answer(self, client: Redis, work: Awaitable[T], timeout: float) -> T:
        task = asyncio.ensure_future(work)
        self._operations[task] = client
        task.add_done_callback(self._operations.pop)
        try:
            await asyncio.wait({task}, timeout=timeout)
            for _ in range(_GRACE_TURNS):
                if task.done():
                    break
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.background.abandon(task)
            raise
        if not task.done():
            self.background.abandon(task)
            raise CommandTimeout("no answer within the deadline")
        try:
            return task.result()
        except (RedisConnectionError, RedisTimeoutError, OSError, asyncio.CancelledError) as problem:
            raise ConnectionLost(type(problem).__name__) from None
        except ResponseError as problem:
            rejected = rejection(problem)
            if rejected.code == "READONLY" and client is self.client:
                self._deposed = REPLICA
                self._suspect.set()
            raise rejected from None
        except (RedisError, RedisClusterException) as problem:
            self._suspect.set()
            raise CommandRejected(type(problem).__name__) from None

    async def _with_connection(self, client: Redis, operation: Callable[[Redis], Awaitable[T]]) -> T:
        """Run ``operation`` once a connection is free. The pools of a cluster raise instead of waiting."""
        async with self._free_connections:
            return await operation(client)

    async def _attempt(self) -> tuple[Redis, list[Any]]:
        self._server = await self._primary.find()
        return await find_client(self._settings, self._server, self._probes(), self._retire)

    async def _supervise(self) -> None:
        while True:
            client, probed = await self._attempts.first()
            self.client, self._deposed, self.away = client, "", False
            watching = self._primary.watch(self._server, self._moved)
            self._known.set()
            self._on_up(probed)
            try:
                await self._until_lost(client)
            finally:
                if watching is not None:
                    watching.cancel()
                if self.client is client:
                    self.client = None
                    self._known.clear()
                self._retire(client)

    def _moved(self) -> None:
        """The server is no longer the one that the Sentinels name."""
        self._deposed = MOVED
        self._suspect.set()

    async def _until_lost(self, client: Redis) -> None:
        """Return when Redis is away."""
        while True:
            suspected = False
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_EVERY):
                    suspected = await self._suspect.wait()
            self._suspect.clear()
            try:
                if self._deposed:  # its user may lack the right to ask
                    raise HandshakeFailed(self._deposed, REJECTED)
                await self._answer(client, check_role(client), _PING_TIMEOUT)
            except HandshakeFailed as problem:
                self._failed(problem)
                return
            except TransportError:
                if suspected:  # otherwise all connections may be in use
                    self._failed(CommandTimeout("no answer"))
                    return

    def _failed(self, problem: BaseException) -> float:
        """Report the failure. Returns the seconds for which it asks until the next attempt."""
        self._known.set()
        self.away = True
        # The text of a rejection is withheld: an old server quotes the whole command, password included.
        refused = f"refused ({rejection(problem).code})" if isinstance(problem, ResponseError) else ""
        self._on_failed(refused or str(problem) or type(problem).__name__)
        return REJECTED if isinstance(problem, AuthenticationError | ResponseError | HandshakeFailed) else 0.0

    def _retire(self, client: Redis) -> None:
        self.background.spawn(self._close(client), name="cache-close")

    async def _close(self, client: Redis) -> None:
        """Close it, and once more when its operations have ended: one that was cut off may have reconnected."""
        await client.aclose()
        operations = {task for task, used in self._operations.items() if used is client}
        for task in operations:
            task.cancel()
        if operations:
            await asyncio.wait(operations)
            await client.aclose()
