"""Whether Redis is there, and the one way to ask it something: answered in time, or CacheUnavailable.

``asyncio.timeout`` around redis-py does not hold: with a socket time-out set, a cancellation can be swallowed
and the caller hangs for as long as redis-py likes. So every operation runs as a task of its own, the caller
waits for it with ``asyncio.wait`` (which cancels nothing and awaits nothing), and when the deadline has
passed the task is abandoned: cancelled, kept until it ends, its outcome dropped.

While Redis is away ``call`` fails at once and one background task goes on connecting. An operation that was
late does not yet mean that Redis is away (our own loop may have been stalled): a PING decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ..background import BackgroundTasks
from ..exceptions import (
    CommandRejected,
    CommandTimeout,
    ConnectionLost,
    NotConnected,
    code_inside_script,
)
from ..settings import CacheSettings
from .finder import ClientFinder

T = TypeVar("T")

_PROBE = 0.25  # seconds a PING may take before Redis counts as away
_GRACE_TURNS = 3  # turns of the loop for a reply that has arrived but was not yet seen
_SPARE = 2  # connections to a cluster's node that are left to redis-py for asking what has moved


class PooledClient:
    """Keeps a client to Redis, as long as Redis is there.

    Args:
        settings: where and how long.
        on_up: called each time Redis is there again.
        on_failed: called with the reason, free of credentials, of each attempt that failed.
    """

    def __init__(
        self,
        settings: CacheSettings,
        *,
        on_up: Callable[[], None],
        on_failed: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._on_up = on_up
        self._on_failed = on_failed
        self._client: Redis | None = None
        self._settled = asyncio.Event()  # set once it is known whether Redis is there
        self._doubt = asyncio.Event()
        self._broken = False
        self.away = False
        """Whether Redis is known not to answer; otherwise it is there, or nobody knows yet."""
        self._keeper: asyncio.Task[None] | None = None
        self._background = BackgroundTasks()
        self._finder = ClientFinder(settings, self._background, self._failed, self._retire)
        self._under_way: dict[asyncio.Future[Any], Redis] = {}
        self._room = asyncio.Semaphore(max(1, settings.max_connections - _SPARE))

    @property
    def up(self) -> bool:
        """Whether Redis is believed to answer."""
        return self._client is not None

    def start(self) -> None:
        """Begin connecting in the background. Does nothing when that is under way."""
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep(), name="cache-link")

    async def wait_up(self, timeout: float) -> bool:
        """Wait for Redis to be there, until ``timeout`` (seconds) or the first failure; whether it is there."""
        if self._client is None and not self._settled.is_set():
            waiter = asyncio.ensure_future(self._settled.wait())
            try:
                await asyncio.wait({waiter}, timeout=timeout)
            finally:
                waiter.cancel()
        return self.up

    def stop(self) -> None:
        """Stop using Redis from this moment. What is open closes in the background; see ``closed``."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            self._background.abandon(keeper)
        self._client, self.away = None, False
        self._settled.clear()

    async def closed(self) -> None:
        """Wait, at most a second, until everything that ``stop`` ended has ended."""
        # A keeper that ends hands its client over to be closed.
        await self._background.ended(1.0)

    async def call(self, operation: Callable[[Redis], Awaitable[T]], *, timeout: float | None = None) -> T:
        """Run ``operation`` against Redis.

        Args:
            operation: takes the client, returns an awaitable.
            timeout: seconds; None for the settings' deadline.

        Raises:
            CacheUnavailable: no answer within the deadline, or Redis is away.
            CommandRejected: Redis answered with an error.
        """
        client = self._client
        if client is None:
            raise NotConnected("not connected")
        task = asyncio.ensure_future(
            self._in_turn(client, operation) if isinstance(client, RedisCluster) else operation(client)
        )
        self._under_way[task] = client
        task.add_done_callback(self._under_way.pop)
        try:
            await asyncio.wait({task}, timeout=self._settings.deadline if timeout is None else timeout)
            for _ in range(_GRACE_TURNS):
                if task.done():
                    break
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._background.abandon(task)
            raise
        if not task.done():
            self._background.abandon(task)
            self._doubt.set()
            raise CommandTimeout("no answer within the deadline")
        try:
            return task.result()
        except (RedisConnectionError, RedisTimeoutError, OSError, asyncio.CancelledError) as problem:
            if client is self._client:
                self._broken = True
                self._doubt.set()
            raise ConnectionLost(type(problem).__name__) from None
        except ResponseError as problem:
            raise CommandRejected(_code(problem)) from None
        except (RedisError, RedisClusterException) as problem:
            self._doubt.set()
            raise CommandRejected(type(problem).__name__) from None

    async def _in_turn(self, client: Redis, operation: Callable[[Redis], Awaitable[T]]) -> T:
        """Run ``operation`` when there is a connection for it. The pools of a cluster do not wait by themselves."""
        async with self._room:
            return await operation(client)

    async def _keep(self) -> None:
        while True:
            client = await self._finder.find()
            self._client, self._broken, self.away = client, False, False
            self._settled.set()
            self._on_up()
            try:
                await self._watch(client)
            finally:
                if self._client is client:
                    self._client = None
                    self._settled.clear()
                self._retire(client)

    async def _watch(self, client: Redis) -> None:
        """Return when Redis is away."""
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            if self._broken:
                self._failed(RedisConnectionError("connection lost"))
                return
            ping = asyncio.ensure_future(client.ping())
            try:
                await asyncio.wait({ping}, timeout=_PROBE)
            finally:
                if not ping.done():
                    self._background.abandon(ping)
            if not ping.done() or ping.cancelled() or ping.exception() is not None:
                self._failed(RedisTimeoutError("no answer"))
                return

    def _failed(self, problem: BaseException) -> None:
        self._settled.set()
        self.away = True
        # The text of a refusal is not passed on: an old server quotes the whole command, password included.
        refused = f"refused ({_code(problem)})" if isinstance(problem, ResponseError) else ""
        self._on_failed(refused or str(problem) or type(problem).__name__)

    def _retire(self, client: Redis) -> None:
        self._background.spawn(self._close(client), name="cache-close")

    async def _close(self, client: Redis) -> None:
        """Close it, and again when nobody uses it any more: who is cut off by the first may connect once more."""
        await client.aclose()
        users = {task for task, used in self._under_way.items() if used is client}
        for task in users:
            task.cancel()
        if users:
            await asyncio.wait(users)
            await client.aclose()


def _code(problem: ResponseError) -> str:
    # redis-py takes the code out of the text of some errors, NOSCRIPT among them.
    return (code_inside_script(str(problem)) or problem.status_code or str(problem).partition(" ")[0])[:40]
