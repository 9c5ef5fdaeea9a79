"""Finds a redis-py client that Redis answers: for the server of the URL, or for the cluster it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from ..exceptions import CommandRejected, HandshakeFailed, rejected_with
from ..settings import CacheSettings
from .capabilities import HUNG_UP, PROBE_EVAL
from .connection import REPLICA
from .handshake import REJECTED, SENTINEL
from .redis_py import execute, open_client, open_cluster, rejection


async def find_client(
    settings: CacheSettings, probes: Sequence[tuple[Any, ...]], retire: Callable[[Redis], None]
) -> tuple[Redis, list[Any]]:
    """Connect with redis-py. Returns the client, and the replies to the probes, rejections among them.

    Args:
        settings: where and how long.
        probes: sent before the client is used. Each may be rejected.
        retire: closes a client that is not needed.

    Raises:
        HandshakeFailed: the server is a replica or a Sentinel.
        redis.exceptions.RedisError: it does not answer, or rejects us.
    """
    try:
        return await _find(settings, probes, retire, named=True)
    except AuthenticationError:
        raise
    except RedisConnectionError:  # a proxy may end the connection over CLIENT SETNAME
        return await _find(settings, probes, retire, named=False)


async def _find(
    settings: CacheSettings, probes: Sequence[tuple[Any, ...]], retire: Callable[[Redis], None], *, named: bool
) -> tuple[Redis, list[Any]]:
    client = open_client(settings, named=named)
    try:
        info = await check_role(client, "default")
        if info.get("cluster_enabled") and await _knows_its_slots(client):
            retire(client)
            client = cast(Redis, open_cluster(settings))  # no subclass, but the methods used here are the same
            await client.initialize()
        replies = [await _answer(client, *probe) for probe in probes]
        if any(rejected_with(reply, HUNG_UP) for reply in replies):
            replies.append(await _answer(client, *PROBE_EVAL))  # elsewhere it is tried once EVALSHA is refused
        return client, replies
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
    info = await _answer(client, "INFO", section)
    if isinstance(info, CommandRejected):
        return {}
    if "sentinel" in (info.get("redis_mode"), info.get("server_mode")):  # Redis, Valkey
        raise HandshakeFailed(SENTINEL, REJECTED)
    if info.get("role") == "slave" and not info.get("cluster_enabled"):
        raise HandshakeFailed(REPLICA, REJECTED)
    return cast(dict[str, Any], info)


async def _knows_its_slots(client: Redis) -> bool:
    """Whether a node of a cluster answers itself. A proxy in front of one knows no slots, and is used as one server."""
    slots = await _answer(client, "CLUSTER SLOTS")
    return not isinstance(slots, CommandRejected) or slots.code == "NOPERM"


async def _answer(client: Redis, *command: Any) -> Any:
    """The reply to a command, or its rejection. Ending the connection over it, and answering a PING, is one too."""
    try:
        return await execute(client, command)
    except ResponseError as problem:
        return rejection(problem)
    except RedisConnectionError:
        await client.ping()
        return CommandRejected(HUNG_UP)
