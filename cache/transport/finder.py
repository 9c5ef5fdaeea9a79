"""Finds a redis-py client that Redis answers: for the server of the URL, or for the cluster it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoPermissionError, ResponseError

from ..exceptions import HandshakeFailed
from ..settings import CacheSettings
from .connection import REPLICA
from .handshake import REJECTED, SENTINEL
from .redis_py import execute, open_client, open_cluster, rejection


async def find_client(
    settings: CacheSettings, probes: Sequence[tuple[Any, ...]], retire: Callable[[Redis], None]
) -> tuple[Redis, list[Any]]:
    """Connect with redis-py, to the server of the URL or to the cluster it belongs to.

    Args:
        settings: where and how long.
        probes: sent before the client is used. Each may be rejected.
        retire: closes a client that is not needed.

    Returns:
        A client that has been answered, and the replies to the probes, rejections among them.

    Raises:
        HandshakeFailed: the server is a replica or a Sentinel.
        redis.exceptions.RedisError: it does not answer, or rejects us.
    """
    client = open_client(settings)
    try:
        info = await check_role(client, "default")
        if info.get("cluster_enabled") and await _knows_its_slots(client):
            retire(client)
            client = cast(Redis, open_cluster(settings))  # no subclass, but the methods used here are the same
            await client.initialize()
        return client, await _replies(client, probes)
    except BaseException:
        retire(client)
        raise


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
