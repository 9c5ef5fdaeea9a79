"""Finding a client that Redis answers: for the node that the URL names, or for the cluster it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ..background import BackgroundTasks
from ..settings import CacheSettings
from .redis_py import open_client, open_cluster

_BRISK = 0.25  # seconds a brisk attempt may take
_PAUSE = 0.1  # seconds between two attempts that failed at once
_PAUSE_REFUSED = 0.2  # seconds, when Redis answered but does not let us in (what that costs: see dial)


class ClientFinder:
    """Tries until it has one.

    Args:
        settings: where and how long.
        background: keeps the attempts that are given up.
        on_failed: called with what went wrong in each attempt that failed.
        retire: closes a client that is not needed.
    """

    def __init__(
        self,
        settings: CacheSettings,
        background: BackgroundTasks,
        on_failed: Callable[[BaseException], None],
        retire: Callable[[Redis], None],
    ) -> None:
        self._settings = settings
        self._background = background
        self._on_failed = on_failed
        self._retire = retire

    async def find(self) -> Redis:
        """Try until Redis answers a PING.

        One patient attempt is always allowed the whole connect time-out (a slow handshake must succeed), and
        beside it a brisk one is begun anew every quarter of a second, so that a link which swallowed the
        patient one's packets is used again soon after it heals.
        """
        attempts: set[asyncio.Task[Redis]] = set()
        bound = self._settings.socket_connect_timeout
        try:
            while True:
                if len(attempts) < 2:
                    attempts.add(asyncio.create_task(self._attempt(_BRISK if attempts else bound)))
                done, attempts = await asyncio.wait(attempts, timeout=_BRISK, return_when=asyncio.FIRST_COMPLETED)
                pause = 0.0
                for attempt in done:
                    problem = attempt.exception()
                    if problem is None:
                        attempts |= done - {attempt}
                        return attempt.result()
                    self._on_failed(problem)
                    let_in = not isinstance(problem, AuthenticationError | ResponseError)
                    pause = _PAUSE if let_in else _PAUSE_REFUSED
                await asyncio.sleep(pause)
        finally:
            for attempt in attempts:
                self._background.abandon(attempt)
                attempt.add_done_callback(self._not_needed)

    async def _attempt(self, bound: float) -> Redis:
        finding = asyncio.ensure_future(self._find())
        try:
            await asyncio.wait({finding}, timeout=bound)
            if not finding.done():
                raise RedisTimeoutError("no answer")
            return finding.result()
        except BaseException:
            self._background.abandon(finding)
            finding.add_done_callback(self._not_needed)
            raise

    async def _find(self) -> Redis:
        """A client that has been answered: for the node that the URL names, or for the cluster it belongs to."""
        client = open_client(self._settings)
        try:
            await client.ping()
            if not await _in_a_cluster(client):
                return client
        except BaseException:
            self._retire(client)
            raise
        self._retire(client)
        cluster = cast(Redis, open_cluster(self._settings))  # no subclass, but what is called here is alike
        try:
            await cluster.initialize()
        except BaseException:
            self._retire(cluster)
            raise
        return cluster

    def _not_needed(self, finding: asyncio.Future[Redis]) -> None:
        """Close a client that came too late."""
        if not finding.cancelled() and finding.exception() is None:
            self._retire(finding.result())


async def _in_a_cluster(client: Redis) -> bool:
    try:
        return bool((await client.info("cluster")).get("cluster_enabled"))
    except ResponseError:  # not allowed to ask
        return False
