"""The behaviour of redis-py's connections that the cache depends on. See docs/upgrading.md."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.contract.redis.redis_stand_in import Command, bulk, connected, failure, make_pool, stored
from tests.lag import within

pytestmark = pytest.mark.integration


# -- making a client -----------------------------------------------------------------------------------------------


def test_a_pool_takes_our_options_and_connects_to_nothing() -> None:
    """``cache.transport.fallback``: the pool is constructed without a loop and sends nothing before its first use.

    A refused option would be reported as a mistake in REDIS_URL, and the pool would stay unusable.
    """
    assert make_pool("redis://127.0.0.1:1/0").make_connection().is_connected is False


@pytest.mark.parametrize("query", ["nonsense=1", "socket_timeout=soon"])
def test_a_bad_option_in_the_url_raises_type_or_value_error(query: str) -> None:
    """``cache.transport.fallback`` converts exactly these two types into the error that names REDIS_URL."""
    with pytest.raises((TypeError, ValueError)):
        make_pool(f"redis://127.0.0.1:1/0?{query}").make_connection()


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("redis://h:7000/3", {"host": "h", "port": 7000, "db": 3}),
        ("redis://us%40er:p%2Fw@h", {"host": "h", "username": "us@er", "password": "p/w"}),
        ("unix:///run/redis%20x.sock?db=2", {"path": "/run/redis x.sock", "db": 2}),
        ("rediss://h?ssl_cert_reqs=none&ssl_ca_certs=/ca.pem", {"ssl_cert_reqs": "none", "ssl_ca_certs": "/ca.pem"}),
    ],
)
def test_parse_url_gives_the_parts_under_these_names(url: str, parts: dict[str, Any]) -> None:
    """``cache.transport.fallback`` (``endpoint``): the multiplexer connects to the address redis-py would use.

    A renamed part would mean the default host, or no password.
    """
    assert parse_url(url).items() >= parts.items()


async def test_our_introduction_replaces_redis_pys() -> None:
    """``cache.transport.fallback`` (``redis_connect_func``): AUTH, CLIENT SETNAME, and no other command.

    Otherwise redis-py sends CLIENT SETINFO, which an ACL may forbid.
    """
    async with connected(stored({}), username="u", password="p") as (client, server):
        await client.get("key")
    assert server.received[0][:3] == [[b"AUTH", b"u", b"p"], [b"CLIENT", b"SETNAME", b"contract"], [b"GET", b"key"]]


async def test_a_client_from_a_pool_owns_it() -> None:
    """``cache.transport.fallback``: closing the client closes the pool's connections."""
    async with connected(stored({})) as (client, server):
        await client.get("key")
        await client.aclose()
        await server.ended.wait()


# -- no reply for another caller ------------------------------------------------------------------------------------


async def test_a_connection_with_an_unread_reply_is_not_used() -> None:
    """``cache.transport.fallback`` (RESP2, no maintenance notifications): redis-py checks a connection at check-out.

    Without the check the next caller receives another caller's value.
    """

    def extra(command: Command) -> bytes:
        return bulk(b"mine") + bulk(b"unread") if command[1] == b"1" else bulk(b"right")

    async with connected(extra, max_connections=1) as (client, server):
        assert await client.get("1") == b"mine"
        await asyncio.sleep(0.02)
        assert await client.get("2") == b"right"
        assert len(server.received) == 2


async def test_a_cancelled_call_takes_its_connection_with_it() -> None:
    """``cache.transport.fallback`` cancels an operation that misses its deadline.

    If the connection returned to the pool, its late reply would reach the next caller.
    """
    replies: dict[bytes, bytes | None] = {b"slow": None, b"quick": bulk(b"right")}
    async with connected(lambda command: replies[command[1]], max_connections=1) as (client, server):
        slow = asyncio.ensure_future(client.get("slow"))
        while not server.all(b"GET"):
            server.asked.clear()
            await server.asked.wait()
        slow.cancel()
        await asyncio.wait({slow})
        assert await client.get("quick") == b"right"
        assert [len(connection) for connection in server.received] == [2, 2]


# -- waiting and trying again --------------------------------------------------------------------------------------


async def test_a_full_pool_is_waited_for() -> None:
    """``cache.transport.fallback`` (``BlockingConnectionPool``): a caller waits for a free connection.

    The plain pool raises, which the cache would report as a miss.
    """
    async with connected(stored({b"k": b"v"})) as (client, server):
        assert await asyncio.gather(*(client.get("k") for _ in range(20))) == [b"v"] * 20
        assert len(server.received) == 2


async def test_one_retry_without_a_pause() -> None:
    """``cache.transport.fallback`` (``Retry(NoBackoff(), 1)``): a refused connection fails within milliseconds.

    redis-py's default of ten retries with back-off takes seconds.
    """
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{closed.getsockname()[1]}"
        client = Redis.from_pool(make_pool(url))
        async with within(0.5):
            problem = await failure(client.get("key"))
            await client.aclose()
    assert isinstance(problem, RedisConnectionError)


async def test_a_lost_connection_is_asked_again_once_over_another() -> None:
    """``cache.locks``: redis-py may send SET NX twice, so the holder found by the second may be this process."""
    asked: list[Command] = []

    def hang_up_once(command: Command) -> bytes:
        asked.append(command)
        if len(asked) == 1:
            raise ConnectionResetError  # the stand-in closes the connection
        return bulk(b"v")

    async with connected(hang_up_once) as (client, server):
        assert await client.get("key") == b"v"
        assert len(server.received) == 2
    assert asked == [[b"GET", b"key"]] * 2
