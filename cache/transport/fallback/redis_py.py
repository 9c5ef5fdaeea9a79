"""Builds the redis-py client with bounded timeouts and retries, and finds one that Redis answers.

Differences from redis-py's defaults, and why:

- ``BlockingConnectionPool``: caller 51 waits. The plain pool raises instead, which a layer that answers neutrally
  would turn into a silent miss.
- One retry without backoff: the default of ten with backoff turns a refused port into seconds.
- RESP2 and no maintenance notifications: with them redis-py skips the check that a pooled connection has no unread
  reply, and one caller can receive another caller's reply.
- Replies stay as the server sent them: decoding is the codec's work.
- A connection sets its name if it may. It does not tell the server which library it is.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.maint_notifications import MaintNotificationsConfig

from ...exceptions import CommandRejected, HandshakeFailed, code_inside_script, rejected_with
from ...redis_url import Endpoint
from ...settings import CacheSettings
from ..capabilities import HUNG_UP, PROBE_EVAL, PROBES
from ..handshake import CLIENT_NAME, REJECTED, SENTINEL
from ..packing import info_of
from ..roles import REPLICA

ASK_ROLE: Final = ("INFO", "replication")
OLD_CLUSTER: Final = "a cluster that speaks no RESP3: Redis 6 or later is needed"


class Found(NamedTuple):
    """A client that Redis answers.

    Attributes:
        client: the redis-py client.
        reopen: makes another client with the same options.
        says_role: whether the server's INFO names its role.
        probed: the replies to the probes, rejections among them.
    """

    client: Redis
    reopen: Callable[[], Redis]
    says_role: bool
    probed: list[Any]


class _TlsConnection(SSLConnection):
    """A connection with the TLS context that was checked at start, to an address of the server ``name``."""

    def __init__(self, *, tls: ssl.SSLContext, name: str, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = tls
        self._name = name

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "server_hostname": self._name}


def open_client(settings: CacheSettings, endpoint: Endpoint, address: str, *, named: bool = True) -> Redis:
    """Return a client for the server of ``endpoint``, with the documented settings. It has not connected yet.

    ``address``: of all connections. A name may be that of another server after a failover, for new ones.
    """
    where: dict[str, Any] = {"host": address, "port": endpoint.port}
    if endpoint.unix_path is not None:
        where = {"path": endpoint.unix_path, "connection_class": UnixDomainSocketConnection}
    elif endpoint.ssl_context is not None:
        where |= {"connection_class": _TlsConnection, "tls": endpoint.ssl_context, "name": endpoint.host}
    pool = BlockingConnectionPool(
        **where,
        username=endpoint.username,
        password=endpoint.password,
        db=endpoint.db,
        max_connections=settings.max_connections,
        timeout=settings.socket_timeout,
        socket_timeout=settings.socket_timeout,
        socket_connect_timeout=settings.socket_connect_timeout,
        retry=Retry(NoBackoff(), int(settings.retry_on_timeout)),
        health_check_interval=settings.health_check_interval,
        protocol=2,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        driver_info=None,
        redis_connect_func=_set_name if named else None,
    )
    client = Redis.from_pool(pool)  # the client owns its pool: closing one closes the other
    client.response_callbacks.clear()  # replies as they are, as on a multiplexed connection
    return client


async def _set_name(connection: AbstractConnection) -> None:
    await connection.on_connect_check_health(check_health=False)
    with contextlib.suppress(ResponseError):
        await connection.send_command("CLIENT", "SETNAME", CLIENT_NAME, check_health=False)
        await connection.read_response()


async def pipeline(client: Redis, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Run commands in one round trip. Returns their replies, rejections among them."""
    pipe = client.pipeline(transaction=False)
    for command in commands:
        pipe.execute_command(*command)
    replies = await pipe.execute(raise_on_error=False)
    return [rejection(reply) if isinstance(reply, ResponseError) else reply for reply in replies]


def rejection(problem: ResponseError) -> CommandRejected:
    """The error of Redis, with its code: redis-py takes that out of some texts, NOSCRIPT among them."""
    text = str(problem)
    code = code_inside_script(text) or problem.status_code or text.partition(" ")[0]
    return CommandRejected(f"{code[:40]} {text}")


async def find_client(
    settings: CacheSettings, endpoint: Endpoint, address: str, retire: Callable[[Redis], None]
) -> Found:
    """Connect to ``endpoint`` with redis-py, and send the probes. ``retire`` closes a client that is not needed.

    Raises:
        HandshakeFailed: the server is a replica or a Sentinel.
        redis.exceptions.RedisError: it does not answer, or rejects us.
    """
    try:
        return await _find(partial(open_client, settings, endpoint, address), retire)
    except AuthenticationError:
        raise
    except RedisConnectionError:  # a proxy may end the connection over CLIENT SETNAME
        return await _find(partial(open_client, settings, endpoint, address, named=False), retire)


async def _find(reopen: Callable[[], Redis], retire: Callable[[Redis], None]) -> Found:
    client = reopen()
    try:
        info = await check_role(client, ("INFO", "default"))
        if info.get("cluster_enabled") == "1" and not isinstance(
            await _answer(client, "CLUSTER", "SLOTS"), CommandRejected
        ):
            raise HandshakeFailed(OLD_CLUSTER, REJECTED)  # a proxy in front of one knows no slots, and is one server
        return Found(client, reopen, "role" in info, await answers(client))
    except BaseException:
        retire(client)
        raise


async def answers(client: Redis) -> list[Any]:
    """The replies to ``PROBES``, rejections among them; to ``PROBE_EVAL`` too if a proxy hung up on a probe."""
    replies = [await _answer(client, *probe) for probe in PROBES]
    if any(rejected_with(reply, HUNG_UP) for reply in replies):
        replies.append(await _answer(client, *PROBE_EVAL))  # elsewhere it is tried once EVALSHA is refused
    return replies


async def check_role(client: Redis, question: Sequence[str] = ASK_ROLE) -> dict[str, str]:
    """Make sure that the server answers and is a primary. Returns what it says of itself, nothing if it refuses.

    Raises:
        HandshakeFailed: it is a replica or a Sentinel.
        redis.exceptions.RedisError: it does not answer, or rejects us.
    """
    await client.ping()
    return judge_role(await _answer(client, *question))


def judge_role(reply: Any) -> dict[str, str]:
    """What a server says of itself in reply to INFO, nothing if it refuses.

    Raises:
        HandshakeFailed: it is a replica or a Sentinel.
    """
    info = info_of(reply)
    if "sentinel" in (info.get("redis_mode"), info.get("server_mode")):  # Redis, Valkey
        raise HandshakeFailed(SENTINEL, REJECTED)
    if info.get("role") == "slave":
        raise HandshakeFailed(REPLICA, REJECTED)
    return info


async def _answer(client: Redis, *command: Any) -> Any:
    """The reply to a command, or its rejection. Ending the connection over it, and answering a PING, is one too."""
    try:
        return (await pipeline(client, (command,)))[0]
    except RedisConnectionError:
        await client.ping()
        return CommandRejected(HUNG_UP)
