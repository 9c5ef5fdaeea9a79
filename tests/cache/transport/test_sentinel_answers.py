"""What Sentinels answer: they disagree, hang, conduct a failover, refuse, or have several addresses."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cache.transport import handshake, sentinel
from tests.inside import engine_of
from tests.real.proxy import Proxy
from tests.real.redis.redis_server import NOWHERE, RedisServer
from tests.real.redis.scripted_sentinel import array, scripted, url
from tests.wait import initialised, until

pytestmark = pytest.mark.integration
PEM = Path(__file__).parents[2] / "real" / "localhost.pem"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait no half a second for a Sentinel that hangs."""
    monkeypatch.setattr(sentinel, "ANSWER_TIMEOUT", 0.1)
    monkeypatch.setattr(sentinel, "LOOK_EVERY", 0.02)


@pytest.mark.usefixtures("hasty")
async def test_one_that_hangs_is_dead_or_behind_does_no_harm(
    redis_server: RedisServer, own_redis: RedisServer, make_cache: Any
) -> None:
    async with AsyncExitStack() as stack:
        right = await stack.enter_async_context(scripted(lambda: redis_server.port, epoch=2))
        behind = await stack.enter_async_context(scripted(lambda: own_redis.port, epoch=1))
        hanging = await stack.enter_async_context(scripted(lambda: None))
        for ports in ([hanging, NOWHERE, right], [behind, behind, right]):
            cache = make_cache(url(ports), deadline=2.0, connect_wait=5.0)
            await initialised(cache)
            assert await cache.set("k", ports[0])
            assert redis_server.cli("GET", "k") == str(ports[0])
            await cache.close()


@pytest.mark.usefixtures("hasty")
async def test_the_one_that_conducts_a_failover_is_not_believed(
    redis_server: RedisServer, own_redis: RedisServer, make_cache: Any
) -> None:
    """It has the new epoch and names the old primary, which may be back, until the last replica follows the new one."""
    async with AsyncExitStack() as stack:
        at_it = "master,failover_in_progress"
        leader = await stack.enter_async_context(scripted(lambda: own_redis.port, epoch=2, flags=at_it))
        known: list[int] = []
        other = await stack.enter_async_context(scripted(lambda: known[0] if known else None, epoch=2))
        behind = await stack.enter_async_context(scripted(lambda: own_redis.port, epoch=1))
        cache = make_cache(url([leader, other, behind]), deadline=2.0, connect_wait=0.1)
        assert await cache.initialize() is False
        known.append(redis_server.port)
        await until(lambda: cache.set("k", "new"))
        assert (redis_server.cli("GET", "k"), own_redis.cli("EXISTS", "k")) == ("new", 0)
        await cache.close()


async def test_whom_the_one_that_conducts_a_failover_has_promoted_is_used(
    redis_server: RedisServer, own_redis: RedisServer, make_cache: Any
) -> None:
    """It may be the only one that answers, and a failover takes minutes where another replica cannot follow."""
    promoted: list[int] = []
    async with scripted(
        lambda: own_redis.port,
        flags="master,failover_in_progress",
        promoted=lambda: promoted[0] if promoted else own_redis.port,
    ) as leader:
        cache = make_cache(url([leader]), deadline=2.0, connect_wait=5.0)
        await initialised(cache)
        assert await cache.set("k", "old")
        promoted.append(redis_server.port)
        own_redis.kill()
        await until(lambda: cache.set("k", "new"))
        assert redis_server.cli("GET", "k") == "new"
        await cache.close()


@pytest.mark.usefixtures("hasty")
async def test_a_majority_announces_failovers(
    redis_server: RedisServer, own_redis: RedisServer, make_cache: Any
) -> None:
    """One of those that should is stopped or cut off, and the old primary is in service for all who ask it."""
    named, stopped = [own_redis.port], set[int]()
    listeners: list[list[asyncio.StreamWriter]] = [[], [], []]

    def name(at: int) -> int | None:
        return None if at in stopped else named[0]

    async with AsyncExitStack() as stack:
        ports = [
            await stack.enter_async_context(scripted(partial(name, at), listeners=listeners[at])) for at in range(3)
        ]
        cache = make_cache(url([*ports, ports[0]]), deadline=2.0, connect_wait=5.0)
        await initialised(cache)

        def listened_to() -> list[int]:
            return [at for at in range(3) if listeners[at]]

        await until(lambda: len(listened_to()) == 2)
        assert await cache.set("k", "first")
        first, second = listened_to()
        stopped.add(first)
        named[0] = redis_server.port
        for listener in listeners[second]:
            listener.write(array("message", "+switch-master", "callers"))

        async def arrives() -> bool:
            return await cache.set("k", "second") and redis_server.cli("GET", "k") == "second"

        await until(arrives)
        await cache.close()


@pytest.mark.usefixtures("hasty")
async def test_a_primary_that_is_named_by_host_and_by_address_is_one(
    redis_server: RedisServer, make_cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    hosts, asked = ["localhost"], 0
    listeners: list[asyncio.StreamWriter] = []

    def name() -> bytes:
        nonlocal asked
        asked += 1
        return array("ip", hosts[-1], "port", redis_server.port, "flags", "master", "config-epoch", 1)

    async with scripted(name, listeners=listeners) as port:
        cache = make_cache(url([port]), deadline=2.0, connect_wait=5.0)
        await initialised(cache)
        await until(lambda: listeners and asked >= 3)  # asked, listened to, and asked again
        hosts.append("127.0.0.1")
        listeners[0].write(array("message", "+switch-master", "others"))
        await until(lambda: asked >= 5)
        assert await cache.set("k", 1)
        await asyncio.sleep(0.05)
        assert cache.connected
        assert "Connection failed" not in caplog.text
        await cache.close()


@pytest.mark.usefixtures("hasty")
async def test_a_name_that_stands_for_several_sentinels(
    redis_server: RedisServer, make_cache: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of them hangs, the second knows nothing new."""

    async def lookup(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, 1, 6, "", (f"127.0.0.{last}", port)) for last in (1, 2, 3)]

    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(scripted(lambda: None))
        await stack.enter_async_context(scripted(lambda: NOWHERE, host="127.0.0.2", at=port))
        await stack.enter_async_context(scripted(lambda: redis_server.port, epoch=2, host="127.0.0.3", at=port))
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
        cache = make_cache(f"redis+sentinel://sentinels.example:{port}/callers", deadline=2.0, connect_wait=5.0)
        await initialised(cache)
        assert await cache.set("k", 1)
        await cache.close()


@pytest.mark.parametrize("tls", [True, False])
async def test_sentinels_with_tls_and_without_are_not_mixed_up_silently(
    make_cache: Any, tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    async with scripted(lambda: NOWHERE, context if tls else None) as port:
        cache = make_cache(url([port], "redis" if tls else "rediss"), connect_wait=5.0)
        assert await cache.initialize() is False
        assert (handshake.NEEDS_TLS if tls else handshake.NO_TLS) in caplog.text
        await cache.close()


async def test_a_primary_that_cannot_be_reached_is_named(make_cache: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The Sentinels announce it by an address that means nothing where the worker is."""
    port = NOWHERE
    async with scripted(lambda: port) as asked:
        cache = make_cache(url([asked]), connect_wait=5.0)
        assert await cache.initialize() is False
        assert f"cannot connect (ECONNREFUSED) to 127.0.0.1:{port}, which the Sentinels name" in caplog.text
        await cache.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"-ERR No such master with that name\r\n", handshake.NO_MASTER),
        (b"-NOAUTH Authentication required.\r\n", handshake.SENTINEL_REFUSES),
        (b"-ERR unknown command 'SENTINEL', with args\r\n", handshake.NO_SENTINEL),
        (b"-LOADING wait\r\n", "a Sentinel refuses (LOADING)"),
        (b"+OK\r\n", handshake.NO_SENTINEL),
        (None, "no Sentinel answers: cannot connect (TimeoutError)"),
    ],
)
async def test_what_is_wrong_is_logged_in_one_line(
    make_cache: Any,
    answer: bytes | None,
    reason: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sentinel, "ANSWER_TIMEOUT", 0.05)
    async with scripted(lambda: answer) as port:
        cache = make_cache(url([port], options="?sentinel_password=s3cret"), connect_wait=0.5)
        assert await cache.initialize() is False
        await until(lambda: caplog.text.count("Connection failed") == 1)
        assert reason in caplog.text
        assert "s3cret" not in caplog.text
        await cache.close()


async def test_tls_holds_for_the_sentinels_and_the_server(redis_server: RedisServer, make_cache: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    async with Proxy(redis_server.port, ssl_context=context) as proxy, scripted(lambda: proxy.port, context) as port:
        cache = make_cache(url([port], "rediss", f"?ssl_ca_certs={PEM}"), deadline=2.0, connect_wait=5.0)
        await initialised(cache)
        assert await cache.set("k", 1)
        assert engine_of(cache).servers.tracks("")
        await cache.close()
