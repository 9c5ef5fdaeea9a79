"""Finds a redis-py client that Redis answers: for the server of the URL, or for the cluster it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ..background import BackgroundTasks
from ..exceptions import HandshakeFailed
from ..settings import CacheSettings
from .connection import REPLICA
from .handshake import REJECTED, SENTINEL, backoff
from .redis_py import execute, open_client, open_cluster, rejection

_FRESH_ATTEMPT = 0.25  # seconds a fresh attempt may take
_PAUSE = 0.1  # seconds between two attempts that failed at once


class ClientFinder:
    """Connects with redis-py.

    Args:
        settings: where and how long.
        probes: the commands to send to a server before it is used.
        background: keeps abandoned attempts until they end.
        on_failed: called with the exception of each attempt that failed.
        retire: closes a client that is not needed.
    """

    def __init__(
        self,
        settings: CacheSettings,
        probes: Callable[[], Sequence[tuple[Any, ...]]],
        background: BackgroundTasks,
        on_failed: Callable[[BaseException], None],
        retire: Callable[[Redis], None],
    ) -> None:
        self._settings = settings
        self._probes = probes
        self._background = background
        self._on_failed = on_failed
        self._retire = retire

    async def find(self) -> tuple[Redis, list[Any]]:
        """Attempt until Redis answers a PING. Returns the client, and the replies to the probes.

        One attempt may take the whole connect timeout, so that a slow handshake succeeds; beside it a fresh one is
        begun every quarter of a second, so that a network that lost the first one's packets is used soon after it
        recovers.
        """
        attempts: set[asyncio.Task[tuple[Redis, list[Any]]]] = set()
        timeout = self._settings.socket_connect_timeout
        began = asyncio.get_running_loop().time()
        try:
            while True:
                if len(attempts) < 2:
                    attempts.add(asyncio.create_task(self._attempt(_FRESH_ATTEMPT if attempts else timeout)))
                done, attempts = await asyncio.wait(
                    attempts, timeout=_FRESH_ATTEMPT, return_when=asyncio.FIRST_COMPLETED
                )
                pause = 0.0
                for attempt in done:
                    problem = attempt.exception()
                    if problem is None:
                        attempts |= done - {attempt}
                        return attempt.result()
                    self._on_failed(problem)
                    rejected = isinstance(problem, AuthenticationError | ResponseError | HandshakeFailed)
                    failing_for = 0.0 if attempts else asyncio.get_running_loop().time() - began
                    pause = backoff(REJECTED if rejected else _PAUSE, failing_for)
                await asyncio.sleep(pause)
        finally:
            for attempt in attempts:
                self._background.abandon(attempt)
                attempt.add_done_callback(self._not_needed)

    async def _attempt(self, timeout: float) -> tuple[Redis, list[Any]]:
        finding = asyncio.ensure_future(self._find())
        try:
            await asyncio.wait({finding}, timeout=timeout)
            if not finding.done():
                raise RedisTimeoutError("no answer")
            return finding.result()
        except BaseException:
            self._background.abandon(finding)
            finding.add_done_callback(self._not_needed)
            raise

    async def _find(self) -> tuple[Redis, list[Any]]:
        """A client that Redis has answered: for the server of the URL, or for the cluster it belongs to."""
        client = open_client(self._settings)
        try:
            info = await check_role(client, "default")
            if not info.get("cluster_enabled") or not await _knows_its_slots(client):
                return client, await _replies(client, self._probes())
        except BaseException:
            self._retire(client)
            raise
        self._retire(client)
        cluster = cast(Redis, open_cluster(self._settings))  # no subclass, but the methods used here are the same
        try:
            await cluster.initialize()
            return cluster, await _replies(cluster, self._probes())
        except BaseException:
            self._retire(cluster)
            raise

    def _not_needed(self, finding: asyncio.Future[tuple[Redis, list[Any]]]) -> None:
        """Close a client that connected too late."""
        if not finding.cancelled() and finding.exception() is None:
            self._retire(finding.result()[0])


async def check_role(client: Redis, section: str = "replication") -> dict[str, Any]:
    """Make sure that the server answers and is a primary. Returns that section of its INFO, empty if it is refused.

    Raises:
        HandshakeFailed: it is a replica or a Sentinel.
        redis.exceptions.RedisError: it does not answer, or rejects us.
    """
    await client.ping()
    if isinstance(client, RedisCluster):
        return {}
    try:
        info: dict[str, Any] = await client.info(section)
    except ResponseError:
        return {}
    if "sentinel" in (info.get("redis_mode"), info.get("server_mode")):  # Redis, Valkey
        raise HandshakeFailed(SENTINEL, REJECTED)
    if info.get("role") == "slave" and not info.get("cluster_enabled"):
        raise HandshakeFailed(REPLICA, REJECTED)
    return info


async def _knows_its_slots(client: Any) -> bool:
    """Whether a node of a cluster answers itself. A proxy in front of one knows no slots, and is used as one server."""
    try:
        await client.execute_command("CLUSTER SLOTS")
    except ResponseError as problem:
        return isinstance(problem, NoPermissionError)
    return True


async def _replies(client: Redis, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The replies to commands, rejections among them."""
    replies: list[Any] = []
    for command in commands:
        try:
            replies.append(await execute(client, command))
        except ResponseError as problem:
            replies.append(rejection(problem))
    return replies
