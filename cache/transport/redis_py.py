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
import ssl
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from ..exceptions import CommandRejected, code_inside_script
from ..settings import CacheSettings
from .handshake import CLIENT_NAME


class _TlsConnection(SSLConnection):
    """A connection with the TLS context that was checked at start."""

    def __init__(self, *, tls: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = tls


def open_client(settings: CacheSettings, *, named: bool = True) -> Redis:
    """Return a client for one server, with the documented settings. It has not connected yet."""
    endpoint = settings.endpoint
    where: dict[str, Any] = {"host": endpoint.host, "port": endpoint.port, "connection_class": Connection}
    if endpoint.unix_path is not None:
        where = {"path": endpoint.unix_path, "connection_class": UnixDomainSocketConnection}
    pool = BlockingConnectionPool(
        **where | _options(settings),
        db=endpoint.db,
        timeout=settings.socket_timeout,
        redis_connect_func=_set_name if named else _connect,
    )
    return Redis.from_pool(pool)  # the client owns its pool: closing one closes the other


def open_cluster(settings: CacheSettings) -> RedisCluster:
    """Return a client for the cluster that the URL's server belongs to. It has not connected yet.

    Its pools raise instead of waiting: the caller must not use more than ``max_connections`` at a time.

    Raises:
        redis.exceptions.RedisClusterException: the URL names a database other than 0, or a unix socket.
    """
    endpoint, options = settings.endpoint, _options(settings)
    tls: dict[str, Any] = {name: options.pop(name) for name in ("connection_class", "tls") if name in options}
    cluster = RedisCluster(
        endpoint.host, endpoint.port, path=endpoint.unix_path, db=endpoint.db, client_name=CLIENT_NAME, **options
    )
    cluster.connection_kwargs.update(tls)  # of the nodes that it finds; RedisCluster takes no context
    for node in cluster.startup_nodes if tls else ():
        node.connection_class, node.connection_kwargs["tls"] = _TlsConnection, endpoint.ssl_context
    return cluster


def _options(settings: CacheSettings) -> dict[str, Any]:
    endpoint = settings.endpoint
    tls = {"connection_class": _TlsConnection, "tls": endpoint.ssl_context} if endpoint.ssl_context else {}
    return tls | {
        "username": endpoint.username,
        "password": endpoint.password,
        "max_connections": settings.max_connections,
        "socket_connect_timeout": settings.socket_connect_timeout,
        "socket_timeout": settings.socket_timeout,
        "retry": Retry(NoBackoff(), int(settings.retry_on_timeout)),
        "health_check_interval": settings.health_check_interval,
        "protocol": 2,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "driver_info": None,
    }


async def _connect(connection: AbstractConnection) -> None:
    await connection.on_connect_check_health(check_health=False)


async def _set_name(connection: AbstractConnection) -> None:
    await _connect(connection)
    with contextlib.suppress(ResponseError):
        await connection.send_command("CLIENT", "SETNAME", CLIENT_NAME, check_health=False)
        await connection.read_response()


async def execute(client: Any, command: tuple[Any, ...]) -> Any:
    """Run one command on a redis-py client."""
    if command[0] == "SCRIPT":  # redis-py routes it in a cluster by both words
        command = (f"{command[0]} {command[1]}", *command[2:])
    return await client.execute_command(*command)


async def pipeline(client: Any, commands: tuple[tuple[Any, ...], ...], *, each: bool = False) -> list[Any]:
    """Run commands on a redis-py client in one round trip (in a cluster: one per node).

    Args:
        client: the client.
        commands: what to run.
        each: return rejections among the replies, instead of raising the first.
    """
    pipe = client.pipeline(transaction=False)
    for command in commands:
        pipe.execute_command(*command)
    replies = await pipe.execute(raise_on_error=not each)
    return [rejection(reply) if isinstance(reply, ResponseError) else reply for reply in replies]


def rejection(problem: ResponseError) -> CommandRejected:
    """The error of Redis, with its code: redis-py takes that out of some texts, NOSCRIPT among them."""
    text = str(problem)
    code = code_inside_script(text) or problem.status_code or text.partition(" ")[0]
    return CommandRejected(f"{code[:40]} {text}")
