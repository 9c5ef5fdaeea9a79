"""The proxy in front of a real redis-server, observed through plain sockets."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.harness.background_proxy import BackgroundProxy
from tests.real.proxy import Proxy, pieces
from tests.real.redis.redis_server import NOWHERE, RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration
PONG = b"+PONG\r\n"


class Client:
    """A plain connection, without a client library's retries."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, proxy: Proxy, context: ssl.SSLContext | None = None) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", proxy.port, ssl=context))

    async def ask(self, *lines: str) -> bytes:
        """Send inline commands in one write, and return the first line of what comes back."""
        self.writer.write("".join(f"{line}\r\n" for line in lines).encode())
        return await self.reader.readline()

    async def is_silent(self) -> bool:
        """No data arrives, not even EOF."""
        try:
            await asyncio.wait_for(self.reader.read(1), 0.05)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self.writer.close()


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncIterator[Proxy]:
    async with Proxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[Client]:
    client = await Client.to(proxy)
    yield client
    client.close()


async def test_it_passes_on_and_counts(proxy: Proxy) -> None:
    clients = [await Client.to(proxy) for _ in range(3)]
    for client in clients:
        assert await client.ask("PING") == PONG
    assert (proxy.connections_total, proxy.connections_open) == (3, 3)
    assert (proxy.bytes_to_server, proxy.bytes_to_client) == (3 * 6, 3 * 7)
    clients[0].close()
    await until(lambda: proxy.connections_open == 2)
    assert await clients[1].ask("QUIT") == b"+OK\r\n"
    assert await clients[1].reader.read() == b""  # the server's FIN is forwarded
    clients[1].close()
    clients[2].close()
    await until(lambda: proxy.connections_open == 0)
    assert proxy.connections_total == 3


async def test_delays_add_up_and_keep_the_order(proxy: Proxy, client: Client) -> None:
    now = asyncio.get_running_loop().time
    proxy.delay_to_server, proxy.delay_to_client = 0.03, (0.02, 0.04)
    begun = now()
    assert await client.ask("PING") == PONG
    assert 0.05 <= now() - begun < 0.5
    proxy.delay_to_server = proxy.delay_to_client = (0.0, 0.004)
    for number in range(100):
        client.writer.write(f"ECHO {number}\r\n".encode())
        if number % 3 == 0:
            await asyncio.sleep(0)
    for number in range(100):
        await client.reader.readline()
        assert await client.reader.readline() == f"{number}\r\n".encode()


async def test_replies_are_cut_and_still_whole(redis_server: RedisServer, proxy: Proxy, client: Client) -> None:
    value = "0123456789" * 2000
    redis_server.cli("SET", "long", value)
    proxy.split_replies = True
    reply = f"${len(value)}\r\n{value}\r\n".encode()
    received = []
    client.writer.write(b"GET long\r\n")
    while sum(map(len, received)) < len(reply):
        received.append(await client.reader.read(1 << 20))
    assert b"".join(received) == reply
    assert len(received) > 2
    assert proxy.bytes_to_client == len(reply)


def test_the_seed_decides_the_cuts() -> None:
    cuts = [[len(piece) for piece in pieces(bytes(1000), random.Random(seed))] for seed in ("1", "1", "2")]
    assert cuts[0] == cuts[1] != cuts[2]
    assert sum(cuts[2]) == 1000


async def test_a_black_hole_is_silent_and_old_connections_stay_in_it(proxy: Proxy, client: Client) -> None:
    untouched = await Client.to(proxy)
    assert await untouched.ask("PING") == PONG
    proxy.blackhole()
    client.writer.write(b"PING\r\n")
    inside = await Client.to(proxy)
    inside.writer.write(b"PING\r\n")
    assert await client.is_silent()
    assert await inside.is_silent()
    assert proxy.bytes_to_server == 6

    await proxy.heal()
    client.writer.write(b"PING\r\n")
    assert await client.is_silent()
    outside = await Client.to(proxy)
    assert await outside.ask("PING") == PONG
    assert await untouched.ask("PING") == PONG
    for each in (untouched, inside, outside):
        each.close()


@pytest.mark.parametrize("closed", ["before", "after"])
async def test_what_a_black_hole_cut_off_ends_with_its_client(
    proxy: Proxy, client: Client, redis_server: RedisServer, closed: str
) -> None:
    """Closed before the network is back, or after: else each would keep two files of this process open."""
    assert await client.ask("CLIENT SETNAME cut-off") == b"+OK\r\n"
    proxy.blackhole()
    client.writer.write(b"PING\r\n")
    assert await client.is_silent()
    if closed == "after":
        await proxy.heal()
    client.close()
    await until(lambda: proxy.connections_open == 0)
    if closed == "before":
        assert "cut-off" in redis_server.cli("CLIENT", "LIST"), "the server cannot know yet"
        await proxy.heal()
    await until(lambda: "cut-off" not in redis_server.cli("CLIENT", "LIST"))


async def test_a_stall_delivers_late(proxy: Proxy, client: Client) -> None:
    proxy.stall()
    client.writer.write(b"PING\r\n")
    assert await client.is_silent()
    await proxy.heal()
    assert await client.reader.readline() == PONG


async def test_reset_all_cuts_with_a_reset_and_welcomes_new_connections(proxy: Proxy, client: Client) -> None:
    assert await client.ask("PING") == PONG
    assert proxy.reset_all() == 1
    with pytest.raises(ConnectionResetError):
        await client.reader.read(1)
    assert proxy.connections_open == 0
    again = await Client.to(proxy)
    assert await again.ask("PING") == PONG
    again.close()


async def test_refuse_turns_newcomers_away_and_heal_takes_them_on_the_same_port(proxy: Proxy, client: Client) -> None:
    port = proxy.port
    for _ in range(2):
        proxy.refuse()
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await Client.to(proxy)
        assert await client.ask("PING") == PONG
        await proxy.heal()
        again = await Client.to(proxy)
        assert await again.ask("PING") == PONG
        again.close()
    assert proxy.port == port


async def test_a_server_that_dies_or_is_not_there_ends_the_connection(own_redis: RedisServer) -> None:
    async with Proxy(own_redis.port) as proxy:
        client = await Client.to(proxy)
        assert await client.ask("PING") == PONG
        own_redis.kill()
        assert await client.reader.read() == b""
        client.close()
    async with Proxy(NOWHERE) as proxy:
        client = await Client.to(proxy)
        with pytest.raises(ConnectionResetError):
            await client.reader.read()
        client.close()


async def test_it_leaves_nothing_behind(redis_server: RedisServer) -> None:
    before = asyncio.all_tasks()
    async with Proxy(redis_server.port, delay_to_client=60) as proxy:
        client = await Client.to(proxy)
        client.writer.write(b"PING\r\n")
        await until(lambda: proxy.bytes_to_server == 6)
    assert asyncio.all_tasks() == before
    with pytest.raises(ConnectionRefusedError):
        await Client.to(proxy)
    client.close()


def test_connections_that_it_has_only_just_accepted_end_with_it(redis_server: RedisServer) -> None:
    for milliseconds in (0, 0, 0, 1, 2, 4):
        with BackgroundProxy(redis_server.port) as proxy:
            clients = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(20)]
            time.sleep(milliseconds / 1000)
        for client in clients:
            with client, suppress(ConnectionError):
                client.settimeout(20)
                assert client.recv(1) == b""
    gc.collect()  # what was not awaited would be reported here


async def test_it_can_speak_tls_for_a_server_that_cannot(redis_server: RedisServer) -> None:
    pem = Path(__file__).with_name("localhost.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    trusting = ssl.create_default_context(cafile=pem)
    async with Proxy(redis_server.port, ssl_context=context) as proxy:
        client = await Client.to(proxy, trusting)
        assert await client.ask("PING") == PONG
        with pytest.raises(ssl.SSLCertVerificationError):
            await Client.to(proxy, ssl.create_default_context())
        client.close()
