"""A server that speaks just enough of Redis's protocol, and a redis-py client as the cache makes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import hiredis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.maint_notifications import MaintNotificationsConfig

SOON = 2.0
"""Seconds after which a test gives up."""

Command = list[bytes]
Answer = Callable[[Command], bytes | None]
"""From a command to what is sent back; None: nothing, so that the caller waits."""


@dataclass
class RedisStandIn:
    """A running stand-in.

    Attributes:
        port: where it listens, on 127.0.0.1.
        received: the commands, in one list per connection, in the order in which the connections were made.
        asked: set by each command.
        ended: set once the other side has closed a connection.
    """

    port: int = 0
    received: list[list[Command]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    def all(self, name: bytes) -> list[Command]:
        """The commands of that name, of all connections."""
        return [command for connection in self.received for command in connection if command[0] == name]


def bulk(value: bytes | None) -> bytes:
    """A bulk reply."""
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


@asynccontextmanager
async def redis_stand_in(answer: Answer) -> AsyncIterator[RedisStandIn]:
    """A stand-in that replies what ``answer`` says, +OK to CLIENT and +PONG to PING."""
    stand_in = RedisStandIn()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine: list[Command] = []
        stand_in.received.append(mine)
        writers.append(writer)
        parser = hiredis.Reader(notEnoughData=Ellipsis)
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                parser.feed(data)
                while (command := parser.gets()) is not Ellipsis:
                    mine.append(command)
                    stand_in.asked.set()
                    usual = {b"CLIENT": b"+OK\r\n", b"PING": b"+PONG\r\n"}.get(command[0])
                    if (reply := usual or answer(command)) is not None:
                        writer.write(reply)
        stand_in.ended.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    stand_in.port = server.sockets[0].getsockname()[1]
    try:
        yield stand_in
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.sleep(0)


async def introduce(connection: AbstractConnection) -> None:
    """As ``cache.transport.fallback`` does it: authenticate, and take a name if the server allows one."""
    await connection.on_connect_check_health(check_health=False)
    with suppress(ResponseError):
        await connection.send_command("CLIENT", "SETNAME", "contract", check_health=False)
        await connection.read_response()


def client_options() -> dict[str, Any]:
    """What ``cache.transport.fallback`` gives to redis-py."""
    return {
        "max_connections": 2,
        "socket_connect_timeout": 5.0,
        "socket_timeout": 5.0,
        "retry": Retry(NoBackoff(), 1),
        "health_check_interval": 30,
        "protocol": 2,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "driver_info": None,
    }


def make_pool(url: str, **other: Any) -> BlockingConnectionPool:
    """The pool that the cache makes, with ``other`` options."""
    options = {"timeout": 5.0, "retry_on_timeout": True, "redis_connect_func": introduce}
    return BlockingConnectionPool.from_url(url, **client_options() | options | other)


def stored(values: dict[bytes, bytes]) -> Answer:
    """GET out of a dict; +OK to everything else."""
    return lambda command: bulk(values.get(command[1])) if command[0] == b"GET" else b"+OK\r\n"


@asynccontextmanager
async def connected(answer: Answer, **options: Any) -> AsyncIterator[tuple[Redis, RedisStandIn]]:
    """A client as the cache makes it, and the server that it talks to."""
    async with redis_stand_in(answer) as server:
        client = Redis.from_pool(make_pool(server.url, **options))
        try:
            async with asyncio.timeout(SOON):
                yield client, server
        finally:
            await client.aclose()


async def failure(awaitable: Awaitable[Any]) -> BaseException:
    """What it raises."""
    try:
        result = await awaitable
    except BaseException as problem:
        return problem
    raise AssertionError(f"nothing was raised, but {result!r} returned")
