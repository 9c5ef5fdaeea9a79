"""redis-py behind a deadline, for servers that speak no RESP3: every command answers in time or fails.

``asyncio.timeout`` around redis-py does not hold: with a socket timeout set, redis-py can swallow a cancellation, and
the caller hangs for as long as that timeout. So every group of commands runs as a task of its own, the caller waits for
its futures, and after the deadline the task is abandoned: cancelled, kept until it ends, its outcome dropped.

While Redis is away commands fail at once and a background task reconnects. A late reply does not prove that Redis is
away, since our own loop may have been blocked: a PING decides. The server is asked for its role with the first command
after a second, and while nothing is sent as seldom as it is pinged. Then its connections are closed as well.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Sequence
from contextvars import Context
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ...background import BackgroundTasks, loop_time, set_within
from ...exceptions import (
    CommandRejected,
    CommandTimeout,
    ConnectionLost,
    HandshakeFailed,
    NotConnected,
    TransportError,
)
from ...redis_url import Endpoint
from ...settings import CacheSettings
from ..attempts import Attempts
from ..client import Argument, ClientListener, Command, OneServer
from ..connection import fail
from ..dial import Names
from ..handshake import REJECTED
from ..roles import REPLICA, ROLE_SECONDS
from ..sentinel import MOVED, PrimaryFinder
from .redis_py import ASK_ROLE, Found, answers, check_role, find_client, judge_role, pipeline, rejection

T = TypeVar("T")

_PING_TIMEOUT = 0.25  # seconds a PING may take before Redis counts as away
_GRACE_ITERATIONS = 3  # of the loop, for a reply that has arrived but was not yet read


class PooledClient(OneServer):
    """A redis-py client, replaced whenever Redis has been away or nothing was sent for ``health_check_interval``.

    Args:
        listener: learns about it. Each time Redis answers again, ``on_handshake`` gets the replies to ``PROBES``.

    Attributes:
        client: the redis-py client in use; None while there is none.
        background: abandoned commands, and clients that are being closed.
    """

    resp3: Final = False
    proven_at: Final = -math.inf
    needed_at = -math.inf

    def __init__(self, settings: CacheSettings, listener: ClientListener) -> None:
        self.only: Final = self
        self.name = settings.safe_url
        self._settings, self._listener = settings, listener
        self.client: Redis | None = None
        self._says_role, self._asked_role_at = False, 0.0  # loop time
        self._suspect = asyncio.Event()
        self._deposed: HandshakeFailed | None = None  # why the server in use is not the primary any more
        self.reason, self.last_answer = "not connected yet", loop_time()
        self.background = BackgroundTasks()
        self._names = Names(self.background)
        self._primary = PrimaryFinder(settings.endpoint, self._names, self.background)
        self._next_address = 0
        self._attempts = Attempts(
            self._attempt,
            settings.socket_connect_timeout,
            self.background,
            on_failed=self._failed,
            discard=lambda found: self._retire(found[0].client),
        )
        self._operations: dict[asyncio.Future[Any], Redis] = {}
        self._supervisor = asyncio.create_task(self._supervise(), name="cache-pool", context=Context())

    @property
    def up(self) -> bool:
        """Whether Redis is believed to answer."""
        return self.client is not None

    complete = up

    async def close(self) -> None:
        """Stop using Redis, and wait at most a second until its connections are closed."""
        self._drop()
        self.reason = "closed"
        self.background.abandon(self._supervisor)
        self._primary.stop()
        await self.background.ended(1.0)

    def call(self, *args: Argument) -> asyncio.Future[Any]:
        """Send one command. The future becomes its reply, or fails with a ``TransportError``."""
        return self.call_many((args,))[0]

    def call_many(self, commands: Sequence[Command]) -> list[asyncio.Future[Any]]:
        """Send commands over one connection, in their order."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Any]] = [loop.create_future() for _ in commands]
        if commands:
            self.background.spawn(self._send(tuple(commands), futures), name="cache-commands")
        return futures

    async def probe(self) -> list[Any]:
        """The replies to ``PROBES``, sent one after another: a proxy may end the connection over one of them."""
        client = self.client
        if client is None:
            raise NotConnected(self.reason)
        return await self._answer(client, answers(client), self._settings.deadline)

    async def _send(self, commands: tuple[Command, ...], futures: list[asyncio.Future[Any]]) -> None:
        client = self.client
        try:
            if client is None:
                raise NotConnected(self.reason)
            replies = await self._replies(client, commands)
        except Exception as problem:
            if isinstance(problem, HandshakeFailed):
                self._depose(client, problem)
            elif isinstance(problem, CommandTimeout | ConnectionLost):
                self._suspect.set()
            replies = [problem] * len(futures)
        for future, reply in zip(futures, replies, strict=True):
            if future.done():
                continue
            if isinstance(reply, Exception):
                if isinstance(reply, CommandRejected) and reply.code == "READONLY":
                    self._depose(client, HandshakeFailed(REPLICA, REJECTED))
                fail(future, reply)
            else:
                future.set_result(reply)

    async def _replies(self, client: Redis, commands: tuple[Command, ...]) -> list[Any]:
        """Raises HandshakeFailed if the server is not a primary any more."""
        question: tuple[Command, ...] = ()
        if (now := loop_time()) >= self._asked_role_at + ROLE_SECONDS:
            self._asked_role_at = now
            question = (ASK_ROLE,) if self._says_role else ()  # a proxy may end the connection over it
        replies = await self._answer(client, pipeline(client, (*question, *commands)), self._settings.deadline)
        if question:
            judge_role(replies.pop(0))
        return replies

    def _depose(self, client: Redis | None, problem: HandshakeFailed) -> None:
        """The server of this client is not the primary."""
        if client is not None and client is self.client:
            self._deposed = problem
            self._suspect.set()

    async def _answer(self, client: Redis, work: Awaitable[T], timeout: float) -> T:
        task = asyncio.ensure_future(work)
        self._operations[task] = client
        task.add_done_callback(self._operations.pop)
        try:
            await asyncio.wait({task}, timeout=timeout)
            for _ in range(_GRACE_ITERATIONS):
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
            raise rejection(problem) from None
        except RedisError as problem:
            self._suspect.set()
            raise CommandRejected(type(problem).__name__) from None

    async def _attempt(self) -> tuple[Found, Endpoint]:
        server, address = await self._primary.find(), ""
        if server.unix_path is None:
            addresses, position = await self._names.addresses(server.host, server.port), self._next_address
            self._next_address += 1  # this one may hang, or be a replica's
            address = addresses[position % len(addresses)]
        found = await find_client(self._settings, server, address, self._retire)
        self._next_address -= 1
        return found, server

    async def _supervise(self) -> None:
        while True:
            found, server = await self._attempts.first()
            self.client, self._deposed, self.reason = found.client, None, ""
            self._says_role, self._asked_role_at = found.says_role, loop_time()
            self._primary.follow(server, lambda: self._depose(self.client, HandshakeFailed(MOVED, REJECTED)))
            self._listener.on_handshake(self, found.probed)
            self._listener.on_connected(self)
            try:
                problem = await self._until_lost(found)
            finally:
                self._drop()
            self._failed(problem)

    async def _until_lost(self, found: Found) -> TransportError:
        """Return once Redis is away, or its server is no primary any more: what says so."""
        client, interval = found.client, self._settings.health_check_interval or None
        while True:
            suspected = await set_within(self._suspect, interval)
            self._suspect.clear()
            if interval and not self._operations and loop_time() >= self._asked_role_at + interval:
                self._drop()
                client = self.client = found.reopen()
            if self._deposed is not None:  # its user may lack the right to ask
                return self._deposed
            try:
                await self._answer(client, check_role(client), _PING_TIMEOUT)
            except HandshakeFailed as problem:
                return problem
            except TransportError:
                if suspected:  # otherwise all connections may be in use
                    return CommandTimeout("no answer")

    def _failed(self, problem: BaseException) -> float:
        """Report the failure. Returns the seconds for which it asks until the next attempt."""
        # The text of a rejection is withheld: an old server quotes the whole command, password included.
        refused = f"refused ({rejection(problem).code})" if isinstance(problem, ResponseError) else ""
        self.reason = refused or str(problem) or type(problem).__name__
        self._listener.on_disconnected(self, self.reason)
        return REJECTED if isinstance(problem, AuthenticationError | ResponseError | HandshakeFailed) else 0.0

    def _drop(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            self.last_answer = loop_time()
            self._retire(client)

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
