"""The multiplexer on a healthy server: matching of replies, batching of writes, pushes, and cleanup."""

from __future__ import annotations

import asyncio
import gc
from functools import partial
from typing import Any

import pytest

from cache import CacheSettings
from cache.exceptions import CacheUnavailable, CommandRejected, CommandTimeout, TooManyInFlight
from cache.redis_url import Endpoint
from cache.transport import connection, heartbeat
from cache.transport.multiplexer import MultiplexedClient
from cache.transport.packing import pack
from tests.cache.conftest import Clients, Listener
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration


async def test_replies_are_bytes_and_errors_have_a_code(own_redis: RedisServer, clients: Clients) -> None:
    client = await clients(own_redis.port)
    assert await client.call("SET", "k", b"\x00\xff") == b"OK"
    assert await client.call(b"GET", b"k") == b"\x00\xff"
    assert await client.call("GET", "absent") is None
    assert await client.call("INCRBY", "n", -5) == -5
    with pytest.raises(CommandRejected) as caught:
        await client.call("LPUSH", "k", "x")
    assert caught.value.code == "WRONGTYPE"
    assert await client.call("GET", "k") == b"\x00\xff"
    for bad in (None, True, 1.5j, object()):
        with pytest.raises(TypeError):
            client.call("SET", "k", bad)
    assert await client.call("PING") == b"PONG"


async def test_500_callers_get_their_own_replies_with_two_writes_a_tick_at_most(
    own_redis: RedisServer, clients: Clients
) -> None:
    client = await clients(own_redis.port, deadline=2.0)
    await client.call_many([("SET", f"k{i}", f"v{i}") for i in range(500)])[-1]
    writes: list[int] = []
    wire = client.active
    write = wire.write
    wire.write = lambda data: (writes.append(len(data)), write(data))

    async def caller(i: int) -> None:
        for _ in range(20):
            assert await client.call("GET", f"k{i}") == b"v%d" % i

    await asyncio.gather(*(caller(i) for i in range(500)))
    # The first 32 are written while the rest is queued, so that the server can start; the rest in one write.
    sizes = [len(pack(("GET", f"k{i}"))) for i in range(500)]
    assert writes[:2] == [sum(sizes[:32]), sum(sizes[32:])]
    assert len(writes) < 500


async def test_a_lone_caller_is_written_at_once_and_a_crowd_together(own_redis: RedisServer, clients: Clients) -> None:
    client = await clients(own_redis.port, heartbeat=60)
    for _ in range(8):
        await client.call("PING")
    writes: list[bytes] = []
    write = client.active.write
    client.active.write = lambda data: (writes.append(data), write(data))
    lone = client.call("PING")
    assert len(writes) == 1
    others = [client.call("ECHO", i) for i in range(10)]
    assert await lone == b"PONG"
    assert [await other for other in others] == [b"%d" % i for i in range(10)]
    assert len(writes) == 2
    await asyncio.gather(*(client.call("ECHO", i) for i in range(10)))
    assert len(writes) == 3


async def test_call_many_is_not_interleaved(own_redis: RedisServer, clients: Clients) -> None:
    client = await clients(own_redis.port, deadline=2.0)

    async def transaction(i: int) -> None:
        for _ in range(10):
            *_, result = client.call_many([("MULTI",), ("INCR", f"n{i}"), ("INCR", f"n{i}"), ("EXEC",)])
            first, second = await result
            assert second == first + 1

    await asyncio.gather(*(transaction(i) for i in range(50)))
    small = await clients(own_redis.port)
    small.active.capacity = 3
    refused = small.call_many([("MULTI",), ("SET", "x", 1), ("SET", "y", 1), ("EXEC",)])
    for future in refused:
        with pytest.raises(TooManyInFlight):
            await future
    assert await small.call("EXISTS", "x") == 0


async def test_bounded_in_flight(own_redis: RedisServer, clients: Clients) -> None:
    client = await clients(own_redis.port)
    client.active.capacity = 100
    futures = [client.call("PING") for _ in range(150)]
    replies = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(reply) for reply in replies] == [bytes] * 100 + [TooManyInFlight] * 50
    assert await client.call("PING") == b"PONG"


async def test_a_socket_that_takes_nothing_refuses_instead_of_growing(own_redis: RedisServer, clients: Clients) -> None:
    client = await clients(own_redis.port, deadline=30.0)
    own_redis.pause()
    value = bytes(1 << 20)
    futures = []
    for _ in range(64):
        futures.append(client.call("SET", "big", value))
        await asyncio.sleep(0)
    assert client.active.transport.get_write_buffer_size() < 16 << 20
    own_redis.resume()
    replies = await asyncio.gather(*futures, return_exceptions=True)
    assert {type(reply) for reply in replies} == {bytes, TooManyInFlight}
    assert await client.call("STRLEN", "big") == 1 << 20


async def test_pushes_are_not_taken_for_replies(own_redis: RedisServer, clients: Clients) -> None:
    pushes: list[Any] = []
    tracking = ("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "user:")
    client = await clients(own_redis.port, handshake=[tracking], on_push=pushes.append, deadline=1.0)
    other = await clients(own_redis.port, deadline=1.0)

    async def write(i: int) -> None:
        await other.call("SET", f"user:{i}", i)

    async def read(i: int) -> None:
        for _ in range(20):
            assert await client.call("ECHO", f"{i}") == b"%d" % i

    await asyncio.gather(*(write(i) for i in range(100)), *(read(i) for i in range(100)))
    await until(lambda: len({key for push in pushes for key in push[1]}) == 100)
    assert pushes[0][0] == b"invalidate"
    pushes.clear()
    await other.call("FLUSHALL")
    await until(lambda: pushes)
    assert pushes == [[b"invalidate", None]]


async def test_a_push_handler_that_raises_costs_the_connection(own_redis: RedisServer, clients: Clients) -> None:
    reasons: list[str] = []

    def refuse(_: list[Any]) -> None:
        raise ValueError("cannot")

    client = await clients(
        own_redis.port,
        handshake=[("CLIENT", "TRACKING", "ON", "BCAST")],
        on_push=refuse,
        on_disconnected=reasons.append,
    )
    own_redis.cli("SET", "k", 1)
    await until(lambda: reasons == ["push handler failed"])
    assert [complaint["message"] for complaint in clients.complaints] == ["push handler failed"]
    clients.complaints.clear()
    await until(lambda: client.up)


async def test_up_and_down_are_reported_once_each(own_redis: RedisServer, clients: Clients) -> None:
    events: list[Any] = []
    client: MultiplexedClient

    def up() -> None:
        events.append(client.call("PING"))

    client = await clients(own_redis.port, wait=False, on_connected=up, on_disconnected=events.append)
    await until(lambda: len(events) == 1)
    assert await events[0] == b"PONG"
    own_redis.cli("CLIENT", "KILL", "TYPE", "normal")
    await until(lambda: len(events) == 3)
    assert events[1] == "connection lost"
    assert await events[2] == b"PONG"
    assert client.reason == ""


async def test_an_unused_connection_is_left_alone(
    own_redis: RedisServer, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is pinged only while a near cache needs the proof, whatever else is sent: the layer asks by itself, too."""
    monkeypatch.setattr(heartbeat, "NEEDED_FOR", 0.3)
    monkeypatch.setattr(connection, "ROLE_SECONDS", 0.05)
    client = await clients(own_redis.port, heartbeat=0.02, health_check_interval=100.0, deadline=2.0)

    async def quiet() -> bool:
        before = own_redis.calls("ping")
        await asyncio.sleep(0.2)
        return own_redis.calls("ping") == before

    async def pinged_while_needed(before: int) -> bool:
        client.needed_at = asyncio.get_running_loop().time()
        await client.call("GET", "k")
        return own_redis.calls("ping") > before + 3

    for _ in range(2):
        await until(partial(pinged_while_needed, own_redis.calls("ping")))
        await until(quiet)
        before = own_redis.calls("ping")
        await client.call("GET", "k")
        await asyncio.sleep(0.1)
        assert own_redis.calls("ping") == before


async def test_only_silence_is_pinged_where_no_near_cache_needs_it(own_redis: RedisServer, clients: Clients) -> None:
    client = await clients(own_redis.port, heartbeat=None, health_check_interval=1.0, deadline=2.0)

    async def left_alone() -> bool:
        """Whether four calls keep the pings away; on a busy machine the next may be late, and the silence too long."""
        before = own_redis.calls("ping")
        for _ in range(4):
            await asyncio.sleep(0.4)
            await client.call("GET", "k")
        return own_redis.calls("ping") == before

    await until(left_alone, 30)
    before = own_redis.calls("ping")
    await until(lambda: own_redis.calls("ping") > before)


async def test_proven_at_follows_the_heartbeat(own_redis: RedisServer, clients: Clients) -> None:
    client = await clients(own_redis.port, heartbeat=0.05)
    loop = asyncio.get_running_loop()
    proofs: set[float] = set()
    await until(lambda: proofs.add(client.proven_at) or len(proofs) > 5)
    own_redis.pause()
    await asyncio.sleep(0.3)
    assert loop.time() - client.proven_at > 0.2
    own_redis.resume()


async def test_100k_calls_leave_nothing(own_redis: RedisServer, clients: Clients) -> None:
    client = await clients(own_redis.port, deadline=2.0)
    await client.call("SET", "k", "v" * 200)

    async def caller() -> None:
        for _ in range(500):
            await client.call(b"GET", "k")

    await asyncio.gather(*(caller() for _ in range(200)))
    gc.collect()
    before = len(gc.get_objects())
    await asyncio.gather(*(caller() for _ in range(200)))
    gc.collect()
    assert len(gc.get_objects()) - before < 200
    assert len(client.active.in_flight) == 0


async def test_close_fails_what_is_in_flight_and_writes_what_is_queued(
    own_redis: RedisServer, clients: Clients
) -> None:
    client = await clients(own_redis.port)
    own_redis.pause()
    sent = [client.call("GET", "k") for _ in range(10)]
    await asyncio.sleep(0.01)
    queued = client.call("SET", "last", "words")
    await client.close()
    for future in (*sent, queued, client.call("GET", "k")):
        with pytest.raises(CacheUnavailable, match="closed"):
            await future
    await client.close()
    own_redis.resume()
    await asyncio.to_thread(lambda: own_redis.cli("PING"))
    assert own_redis.cli("GET", "last") == "words"


async def test_not_connected_yet(clients: Clients) -> None:
    client = MultiplexedClient(Endpoint(), Listener(), CacheSettings(), handshake=lambda _: ())
    with pytest.raises(CacheUnavailable, match="not connected yet"):
        await client.call("PING")
    await client.close()


async def test_futures_that_are_not_awaited(own_redis: RedisServer, clients: Clients) -> None:
    client = await clients(own_redis.port)
    client.call("LPUSH", "s", 1)
    client.call("GET", "s")  # an error that is never awaited
    own_redis.pause()
    await asyncio.sleep(0.05)
    client.call("GET", "s")
    await until(lambda: not client.up)
    own_redis.resume()
    assert isinstance(client.call("GET", "s").exception(), CacheUnavailable)
    await until(lambda: client.up)
    assert CommandTimeout is not TooManyInFlight
