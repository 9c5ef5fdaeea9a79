"""Builds the redis-py client with bounded timeouts and retries.

Differences from redis-py's defaults, and why:

- ``BlockingConnectionPool``: caller 51 waits. The plain pool raises instead, which a layer that answers neutrally
  would turn into a silent miss.
- One retry without backoff: the default of ten with backoff turns a refused port into seconds.
- RESP2 and no maintenance notifications: with them redis-py skips the check that a pooled connection has no unread
  reply, and one caller can receive another caller's reply.
- Replies stay bytes: decoding is the codec's work.
- A connection sets its name if it may. It does not tell the server which library it is.
"""

from __future__ import annotations

import contextlib
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from ..exceptions import CacheConfigError
from ..settings import CacheSettings
from .endpoint import CLIENT_NAME

_BAD_OPTION = "REDIS_URL has an option after '?' that redis-py does not know, or with a value it cannot use."


def open_client(settings: CacheSettings) -> Redis:
    """Return a client for one server, with the documented settings. It has not connected yet.

    Raises:
        CacheConfigError: the URL's query holds an option redis-py does not know.
    """
    options = _options(settings) | {
        "timeout": settings.socket_timeout,
        "retry_on_timeout": True,
        "redis_connect_func": _set_name,
    }
    try:
        pool: Any = BlockingConnectionPool.from_url(settings.url, **options)
        pool.make_connection()  # only here does an unknown option in the URL's query raise
    except (TypeError, ValueError):
        raise CacheConfigError(_BAD_OPTION) from None
    return Redis.from_pool(pool)  # the client owns its pool: closing one closes the other


def open_cluster(settings: CacheSettings) -> RedisCluster:
    """Return a client for the cluster that the URL's server belongs to. It has not connected yet.

    Its pools raise instead of waiting: the caller must not use more than ``max_connections`` at a time.

    Raises:
        CacheConfigError: the URL's query holds an option redis-py does not know for a cluster.
        redis.exceptions.RedisClusterException: the URL names a database other than 0.
    """
    try:
        return RedisCluster.from_url(settings.url, client_name=CLIENT_NAME, **_options(settings))
    except (TypeError, ValueError):
        raise CacheConfigError(_BAD_OPTION) from None


def _options(settings: CacheSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "max_connections": settings.max_connections,
        "socket_connect_timeout": settings.socket_connect_timeout,
        "socket_timeout": settings.socket_timeout,
        "retry": Retry(NoBackoff(), 1),
        "health_check_interval": settings.health_check_interval,
        "protocol": 2,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "driver_info": None,
    }
    if settings.url.startswith("rediss://"):
        # redis-py's defaults, stated so that they stay so.
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    return options


async def _set_name(connection: AbstractConnection) -> None:
    await connection.on_connect_check_health(check_health=False)
    with contextlib.suppress(ResponseError):
        await connection.send_command("CLIENT", "SETNAME", CLIENT_NAME, check_health=False)
        await connection.read_response()


async def execute(client: Any, command: tuple[Any, ...]) -> Any:
    """Run one command on a redis-py client."""
    if command[0] == "SCRIPT":  # redis-py routes it in a cluster by both words
        command = (f"{command[0]} {command[1]}", *command[2:])
    return await client.execute_command(*command)


async def pipeline(client: Any, commands: tuple[tuple[Any, ...], ...]) -> list[Any]:
    """Run commands on a redis-py client in one round trip (in a cluster: one per node)."""
    pipe = client.pipeline(transaction=False)
    for command in commands:
        pipe.execute_command(*command)
    return list(await pipe.execute())
