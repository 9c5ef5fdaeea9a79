"""The multiplexer under faults of server, network and event loop: deadlines hold, and it reconnects."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import time
from contextlib import suppress
from typing import Any

import pytest

from cache.exceptions import CacheUnavailable, CommandTimeout
from cache.transport.multiplexer import MultiplexedClient
from tests.cache.conftest import Clients
from tests.cache.loading.clock import seconds_until
from tests.lag import LoopLag, within
from tests.real.proxy import Proxy
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration
LATE = 0.07  # deadline 50 ms + 20 ms
AT_ONCE = 0.02


async def ask(client: MultiplexedClient, *command: Any) -> tuple[float, Any]:
    """Seconds from call to answer, and the answer."""
    began = time.perf_counter()
    try:
        answer = await client.call(*command)
    except CacheUnavailable as error:
        answer = error
    return time.perf_counter() - began, answer


async def refused(client: MultiplexedClient) -> bool:
    """Whether a command is refused at once, by how late the loop was aside."""
    async with LoopLag() as lag:
        took, answer = await ask(client, "GET", "k")
    return isinstance(answer, CacheUnavailable) and took < AT_ONCE + lag.seconds


async def test_100k_cancellations_through_a_bad_network(own_redis: RedisServer, clients: Clients) -> None:
    async with Proxy(own_redis.port) as proxy:
        # None may be late, or all were refused, asked again at once, and took the time that the late answers need.
        client = await clients(proxy.port, deadline=60.0)
        client.active.capacity = 200_000
        proxy.split_replies, proxy.delay_to_client = True, (0.0, 0.004)
        draw = random.Random(3)
        wrong, right, cancelled = 0, 0, 0

        async def caller(name: int) -> None:
            nonlocal wrong, right, cancelled
            for turn in itertools.count():
                if turn >= 45 and cancelled > 100_000:  # more, as far as some are answered before they are cancelled
                    return
                call = asyncio.ensure_future(client.call("ECHO", f"{name}.{turn}"))
                if draw.random() < 0.9:
                    for _ in range(draw.randrange(4)):
                        await asyncio.sleep(0)
                    cancelled += call.cancel()
                try:
                    reply = await call
                except asyncio.CancelledError:
                    continue
                right += reply == f"{name}.{turn}".encode()
                wrong += reply != f"{name}.{turn}".encode()

        await asyncio.gather(*(caller(name) for name in range(2500)))
        proxy.split_replies, proxy.delay_to_client = False, 0.0
        await until(lambda: client.up and not client.active.in_flight, 30)
        assert await client.call("ECHO", "still in step") == b"still in step"
        assert wrong == 0
        assert cancelled > 100_000
        assert right > 500
        await client.close()


@pytest.mark.timed
async def test_stopped_server(own_redis: RedisServer, clients: Clients) -> None:
    client = await clients(own_redis.port)
    own_redis.pause()
    async with LoopLag() as lag:
        answers = await asyncio.gather(*(ask(client, "GET", "k") for _ in range(200)))
    assert all(isinstance(answer, CommandTimeout) for _, answer in answers)
    assert min(took for took, _ in answers) > 0.045
    assert max(took for took, _ in answers) < LATE + lag.seconds
    await until(lambda: not client.up)
    for _ in range(100):
        assert await refused(client)
        await asyncio.sleep(0.01)  # across the loss of the connection and several attempts
    own_redis.resume()
    assert await seconds_until(lambda: client.up) < 0.3
    assert await client.call("PING") == b"PONG"


@pytest.mark.timed
async def test_no_step_is_sent_after_one_that_was_late(own_redis: RedisServer, clients: Clients) -> None:
    """A call of many steps, of which each takes a moment until it is written."""
    client = await clients(own_redis.port)
    own_redis.pause()
    step = client.call("GET", "k")
    time.sleep(0.015)  # noqa: ASYNC251 - our own work before the loop writes
    with pytest.raises(CommandTimeout):
        await step
    assert not client.up


@pytest.mark.timed
async def test_a_short_pause_does_not_cost_the_connection(own_redis: RedisServer, clients: Clients) -> None:
    lost: list[str] = []
    client = await clients(own_redis.port, on_disconnected=lost.append, heartbeat=0.05)
    me = await client.call("CLIENT", "ID")
    for _ in range(3):
        own_redis.pause()
        await until(lambda: not client.up)
        own_redis.resume()
        assert await seconds_until(lambda: client.up) < 0.05
    assert await client.call("CLIENT", "ID") == me
    assert lost == []


@pytest.mark.timed
async def test_killed_and_restarted(own_redis: RedisServer, clients: Clients) -> None:
    reasons: list[str] = []
    client = await clients(own_redis.port, on_disconnected=reasons.append)
    flying = [client.call("GET", "k") for _ in range(10)]
    own_redis.kill()
    answers = await asyncio.gather(*flying, return_exceptions=True)
    assert all(isinstance(answer, CacheUnavailable) for answer in answers)
    await until(lambda: not client.up)
    for _ in range(50):
        assert await refused(client)
        await asyncio.sleep(0.01)
    await asyncio.to_thread(own_redis.start)
    assert await seconds_until(lambda: client.up) < 0.3
    assert reasons == ["connection lost", "cannot connect (ECONNREFUSED)"]


@pytest.mark.timed
async def test_black_hole(own_redis: RedisServer, clients: Clients) -> None:
    async def one(seconds: float) -> None:
        async with Proxy(own_redis.port) as proxy:
            client = await clients(proxy.port)
            proxy.blackhole()
            async with LoopLag() as lag:
                took, answer = await ask(client, "GET", "k")
            assert isinstance(answer, CommandTimeout)
            assert took < LATE + lag.seconds
            await asyncio.sleep(seconds)
            assert await refused(client)
            await proxy.heal()
            assert await seconds_until(lambda: client.up) < 0.3
            await client.close()

    await asyncio.gather(*map(one, (0.13, 0.6, 1.5)))


@pytest.mark.timed
async def test_an_outage_does_not_make_the_next_one_longer(own_redis: RedisServer, clients: Clients) -> None:
    async with Proxy(own_redis.port) as proxy:
        client = await clients(proxy.port)
        own_redis.pause()
        await asyncio.sleep(1.2)
        own_redis.resume()
        assert await seconds_until(lambda: client.up) < 0.3
        proxy.blackhole()
        await asyncio.sleep(0.8)
        await proxy.heal()
        assert await seconds_until(lambda: client.up) < 0.3
        await client.close()


async def test_a_network_that_loses_bytes_is_found_out(own_redis: RedisServer, clients: Clients) -> None:
    """TCP excludes this, a faulty middlebox does not. Every later reply would be misattributed."""
    lost: list[str] = []
    losing = False

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal losing
        while data := await reader.read(65536):
            if losing:
                losing = False
            else:
                writer.write(data)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", own_redis.port)
        down = asyncio.create_task(pump(server_reader, writer))
        with suppress(ConnectionResetError):
            await pump(reader, server_writer)
        down.cancel()
        server_writer.close()
        writer.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as box:
        client = await clients(box.sockets[0].getsockname()[1], on_disconnected=lost.append, heartbeat=0.1)
        losing = True
        call = client.call("ECHO", "swallowed")
        await until(lambda: not losing)
        for _ in range(200):
            client.call("ECHO", "later").cancel()
            await asyncio.sleep(0.001)
        await until(lambda: lost == ["out of step"] and client.up)
        assert call.done()
        assert await client.call("ECHO", "right") == b"right"
        await client.close()


async def test_what_was_given_up_does_not_arrive_later(clients: Clients) -> None:
    """Otherwise an unanswered SET could execute after a later SET on the next connection."""
    loop = asyncio.get_running_loop()
    hello = b"%2\r\n$5\r\nproto\r\n:3\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n+PONG\r\n"
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        client = await clients(listener.getsockname()[1], wait=False)
        taken, _ = await loop.sock_accept(listener)
        with taken:
            await loop.sock_recv(taken, 65536)
            await loop.sock_sendall(taken, hello)
            await until(lambda: client.up)
            assert client.connection is not None
            size = 100_000
            client.call("SET", "k", bytes(size))
            await until(lambda: client.connection.transport.get_write_buffer_size() == 0)  # in the kernel's buffer
            await until(lambda: client.connection is None)  # silent beyond the limit
            arrived = 0
            with suppress(ConnectionResetError):
                while data := await loop.sock_recv(taken, 1 << 20):
                    arrived += len(data)
        assert arrived < size
        await client.close()


@pytest.mark.timed
async def test_stalled_loop_keeps_deadlines_with_a_dead_server(own_redis: RedisServer, clients: Clients) -> None:
    client = await clients(own_redis.port)
    own_redis.pause()
    asks = [asyncio.ensure_future(ask(client, "GET", "k")) for _ in range(200)]
    await asyncio.sleep(0.001)
    time.sleep(0.06)  # noqa: ASYNC251  the point of the test
    async with within(0.02):
        answers = await asyncio.gather(*asks)
    assert all(isinstance(answer, CommandTimeout) for _, answer in answers)
    own_redis.resume()


@pytest.mark.timed
async def test_a_stalled_loop_does_not_count_as_silence(own_redis: RedisServer, clients: Clients) -> None:
    lost: list[str] = []
    client = await clients(own_redis.port, on_disconnected=lost.append, heartbeat=0.02)
    me = await client.call("CLIENT", "ID")
    for turn in range(6):
        asks = [asyncio.ensure_future(ask(client, "ECHO", i)) for i in range(100)]
        await asyncio.sleep(0.0 if turn % 2 else 0.001)
        time.sleep(0.3)  # noqa: ASYNC251  the point of the test
        answers = await asyncio.gather(*asks)
        assert all(answer == b"%d" % i or isinstance(answer, CommandTimeout) for i, (_, answer) in enumerate(answers))
        assert client.up
    assert await client.call("CLIENT", "ID") == me
    assert lost == []


@pytest.mark.timed
async def test_replies_that_arrived_during_a_stall_are_delivered(own_redis: RedisServer, clients: Clients) -> None:
    client = await clients(own_redis.port)
    calls = [client.call("ECHO", i) for i in range(200)]
    await asyncio.sleep(0)  # written
    await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251  the point of the test
    assert [await call for call in calls] == [b"%d" % i for i in range(200)]


async def test_a_loop_that_stalls_all_the_time_still_notices_a_dead_server(
    own_redis: RedisServer, clients: Clients
) -> None:
    client = await clients(own_redis.port)
    own_redis.pause()
    began = time.perf_counter()
    while client.reason != "silent" or client.connection is not None:
        time.sleep(0.05)  # noqa: ASYNC251  the point of the test
        await asyncio.sleep(0.001)
        assert time.perf_counter() - began < 10
    own_redis.resume()


@pytest.mark.timed
async def test_a_server_slower_than_the_deadline_is_not_waited_for(own_redis: RedisServer, clients: Clients) -> None:
    async with Proxy(own_redis.port) as proxy:
        client = await clients(proxy.port)
        proxy.delay_to_client = 0.09
        stop = asyncio.get_running_loop().time() + 1.5
        waits = []
        while asyncio.get_running_loop().time() < stop:
            async with LoopLag() as lag:
                took, _ = await ask(client, "GET", "k")
            waits.append(took - lag.seconds)
            await asyncio.sleep(0.01)
        assert max(waits) < LATE
        assert sum(wait > 0.01 for wait in waits) < 10
        assert not client.up
        proxy.delay_to_client = 0.0
        assert await seconds_until(lambda: client.up) < 0.3
        await client.close()


@pytest.mark.timed
async def test_dead_from_the_start_and_alive_later(own_redis: RedisServer, clients: Clients) -> None:
    own_redis.stop()
    client = await clients(own_redis.port, wait=False)
    assert await refused(client)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(own_redis.start)
    assert await seconds_until(lambda: client.up) < 0.3


@pytest.mark.timed
async def test_deadlines_hold_under_load_while_the_server_comes_and_goes(
    own_redis: RedisServer, clients: Clients
) -> None:
    client = await clients(own_redis.port)
    waits: list[float] = []
    wrong = 0
    running = True

    async def caller(name: int) -> None:
        nonlocal wrong
        while running:
            late = lag.seconds
            took, answer = await ask(client, "ECHO", name)
            waits.append(took - (lag.seconds - late))
            if not isinstance(answer, CacheUnavailable):
                wrong += answer != b"%d" % name
            await asyncio.sleep(0.002)

    async with LoopLag() as lag:
        callers = [asyncio.ensure_future(caller(name)) for name in range(50)]
        for _ in range(4):
            await asyncio.sleep(0.2)
            own_redis.pause()
            await asyncio.sleep(0.3)
            own_redis.resume()
            await until(lambda: client.up)
        running = False
        await asyncio.gather(*callers)
    assert wrong == 0
    assert max(waits) < LATE
