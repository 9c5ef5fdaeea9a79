"""Replicas, Sentinels, clusters and the wrong protocol: recognised, and named in the log with what to write instead."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cache import RedisCache
from cache.exceptions import ConnectionLost
from cache.transport import connection, dial
from cache.transport.fallback import pool
from cache.transport.roles import REPLICA
from tests.cache.conftest import Clients
from tests.real.proxy import Proxy
from tests.real.redis.redis_server import NOWHERE, RedisServer, find_redis_server, unused_port
from tests.real.redis.resp2_server import UNKNOWN, refusing, without_resp3
from tests.wait import initialised, until

pytestmark = pytest.mark.integration
PEM = Path(__file__).parents[2] / "real" / "localhost.pem"


@asynccontextmanager
async def door(server_port: int, resp3: bool) -> AsyncIterator[int]:
    """The port of a server, or of one that rejects RESP3."""
    async with AsyncExitStack() as stack:
        yield server_port if resp3 else await stack.enter_async_context(without_resp3(server_port))


def demote(server: RedisServer) -> None:
    """Make it a replica of a primary that does not answer; its data stay."""
    server.cli("REPLICAOF", "127.0.0.1", NOWHERE)


async def stays_away(cache: RedisCache) -> bool:
    """Whether the cache is neither connected nor used, nor says that it is."""
    await asyncio.sleep(0.1)
    answers = (await cache.get("k"), await cache.set("k", 1), await cache.health_check(), cache.connected)
    return answers == (None, False, False, False)


@pytest.mark.every_server
@pytest.mark.parametrize("resp3", [True, False])
async def test_a_replica_is_refused_and_named(
    own_redis: RedisServer, make_cache: Any, resp3: bool, caplog: pytest.LogCaptureFixture
) -> None:
    own_redis.cli("SET", "k", '"old"')
    demote(own_redis)
    async with door(own_redis.port, resp3) as port:
        cache = make_cache(f"redis://127.0.0.1:{port}/0", connect_wait=2.0)
        assert await cache.initialize() is False
        assert await stays_away(cache)
        assert caplog.text.count(REPLICA) == 1
        assert "of that node" not in caplog.text, "there is one server"
        own_redis.cli("REPLICAOF", "NO", "ONE")
        await until(lambda: cache.connected)
        await cache.close()


@pytest.fixture
def sentinel(redis_binary: Path | None, tmp_path: Path) -> Iterator[int]:
    """The port of a Sentinel."""
    port, file, binary = unused_port(), tmp_path / "sentinel.conf", redis_binary or find_redis_server()
    assert binary is not None
    file.write_text(f"port {port}\nbind 127.0.0.1\n")
    with subprocess.Popen([binary, file, "--sentinel"], stdout=subprocess.DEVNULL) as process:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None
        yield port
        process.kill()


@pytest.mark.every_server
@pytest.mark.parametrize("resp3", [True, False])
async def test_a_sentinel_is_refused_and_named(
    sentinel: int, make_cache: Any, resp3: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncExitStack() as stack:
        port = sentinel if resp3 else await stack.enter_async_context(_rejecting_hello(sentinel))
        cache = make_cache(f"redis://127.0.0.1:{port}/0", connect_wait=2.0)
        assert await cache.initialize() is False
        assert await stays_away(cache)
        assert caplog.text.count("a Sentinel, which holds no data: write redis+sentinel://") == 1
        await cache.close()


@asynccontextmanager
async def _rejecting_hello(target: int) -> AsyncIterator[int]:
    """A relay as in ``resp2_server``, for a server without scripts."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (first := await reader.read(65536)).startswith(b"*2\r\n$5\r\nHELLO") or b"HELLO" in first:
            writer.write(f"-{UNKNOWN}\r\n".encode())
        else:
            upstream, up = await asyncio.open_connection("127.0.0.1", target)
            while first:
                up.write(first)
                writer.write(await upstream.read(1 << 20))
                first = await reader.read(65536)
            up.close()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_after_a_second_a_command_is_answered_only_by_a_primary(
    own_redis: RedisServer, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ROLE_SECONDS", 0.05)
    async with Proxy(own_redis.port) as proxy:
        reasons: list[str] = []
        client = await clients(proxy.port, heartbeat=100.0, deadline=2.0, on_disconnected=reasons.append)
        await client.call("SET", "k", "old")
        asked, sent = own_redis.calls("hello"), proxy.bytes_to_server
        await asyncio.sleep(0.06)
        first, second = client.call("GET", "k"), client.call("GET", "k")
        assert [await first, await second] == [b"old", b"old"]
        assert own_redis.calls("hello") == asked + 1, "once for a second, with the first command"
        assert proxy.bytes_to_server > sent
        demote(own_redis)
        await asyncio.sleep(0.06)
        late = [client.call("GET", "k"), *client.call_many([("GET", "k"), ("PING",)])]
        outcomes = await asyncio.gather(*late, return_exceptions=True)
        assert [str(outcome) for outcome in outcomes if isinstance(outcome, ConnectionLost)] == [REPLICA] * 3
        assert reasons[0] == REPLICA
        await client.close()


async def test_readonly_ends_the_connection(
    own_redis: RedisServer, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ROLE_SECONDS", 100.0)
    client = await clients(own_redis.port, heartbeat=100.0)
    await client.call("SET", "k", "old")
    demote(own_redis)
    assert await client.call("GET", "k") == b"old"
    script = "return redis.call('SET', KEYS[1], 'x')"
    for command in (("EVAL", script, 1, "k"), ("SET", "k", "new")):
        lost = client.call(*command)
        with pytest.raises(ConnectionLost, match="a replica"):
            await lost
        own_redis.cli("REPLICAOF", "NO", "ONE")
        await until(lambda: client.up)
        demote(own_redis)


@pytest.mark.parametrize("resp3", [True, False])
async def test_a_demotion_under_an_open_connection_is_noticed(
    own_redis: RedisServer,
    make_cache: Any,
    resp3: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "ROLE_SECONDS", 0.1)
    monkeypatch.setattr(pool, "ROLE_SECONDS", 0.1)
    async with door(own_redis.port, resp3) as port:
        near = frozenset({"profile"})  # which needs pings, and finds out so
        cache = make_cache(f"redis://127.0.0.1:{port}/0", deadline=2.0, connect_wait=5.0, near=near)
        await initialised(cache)
        await cache.set("k", "old")
        demote(own_redis)
        if not resp3:  # the pool, of which no near cache relies: the first command after a while finds out
            await asyncio.sleep(0.1)
            assert await cache.get("k") is None
        await until(lambda: not cache.connected)  # nothing is written, and nothing is read
        assert await stays_away(cache)
        assert caplog.text.count(REPLICA) == 1
        assert "of that node" not in caplog.text, "there is one server"
        own_redis.cli("REPLICAOF", "NO", "ONE")
        await until(lambda: cache.connected)
        await cache.close()


@pytest.mark.parametrize("how", ["another address", "another answer"])
async def test_a_failover_by_dns_is_followed(
    own_redis: RedisServer, tmp_path: Path, make_cache: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The name stands for two addresses, of which one is a replica; or the address behind it changes."""
    monkeypatch.setattr(dial, "LOOKUP_EVERY", 0.1)
    with RedisServer(tmp_path / "second") as second:
        async with refusing(second.port, {}, host="127.0.0.2", at=own_redis.port) as port:
            found = ["127.0.0.1"] if how == "another answer" else ["127.0.0.1", "127.0.0.2"]

            async def lookup(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
                return [(socket.AF_INET, 1, 6, "", (address, port)) for address in found]

            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
            cache = make_cache(f"redis://redis.example:{port}/0", deadline=2.0, connect_wait=5.0)
            await initialised(cache)
            assert await cache.set("k", "first")
            demote(own_redis)
            if how == "another answer":
                found[:] = ["127.0.0.2"]
            assert await cache.set("k", "lost") is False  # READONLY
            await until(lambda: cache.connected and not cache.invalidations.undelivered)
            assert await cache.set("k", "second")
            assert (second.cli("GET", "k"), own_redis.cli("GET", "k")) == ("second", "first")
            await cache.close()


async def test_the_pool_never_has_connections_to_two_servers(
    own_redis: RedisServer, redis_server: RedisServer, make_cache: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address behind a name changes while the connections to the old primary, now a replica, stay open."""
    found = ["127.0.0.1"]

    async def lookup(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, 1, 6, "", (found[-1], port))]

    async with (
        without_resp3(own_redis.port) as port,
        refusing(redis_server.port, {"HELLO": UNKNOWN}, host="127.0.0.2", at=port),
    ):
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
        cache = make_cache(f"redis://redis.example:{port}/0", deadline=2.0, connect_wait=5.0)
        await initialised(cache)
        assert await cache.set("k", "old")
        redis_server.cli("SET", "k", "old")

        async def read(callers: int) -> set[str | None]:
            return set(await asyncio.gather(*(cache.get("k") for _ in range(callers))))

        assert await read(5) == {"old"}
        demote(own_redis)
        found.append("127.0.0.2")
        await read(12)
        await cache.delete("k")
        for _ in range(20):
            assert await read(12) == {None}
        await until(lambda: cache.set("k", "new"))
        assert redis_server.cli("GET", "k") == "new"
        await cache.close()


@pytest.mark.parametrize("words", ["-unsupported command 'hello'", "ERR nope", "invalid request"])
async def test_a_proxy_that_refuses_hello_in_any_words_is_used(
    redis_server: RedisServer, make_cache: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with without_resp3(redis_server.port, words) as port:
        cache = make_cache(f"redis://127.0.0.1:{port}/0", deadline=2.0, connect_wait=5.0)
        await initialised(cache)
        assert await cache.get_or_load("user:1:profile", _ada, ttl=60) == "Ada"
        assert redis_server.cli("GET", "user:1:profile") == "Ada"
        assert "no RESP3: over the pool, without the near cache" in caplog.text
        await cache.close()


async def _ada() -> str:
    return "Ada"


def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    return context


async def test_tls_and_no_tls_are_not_mixed_up_silently(
    redis_server: RedisServer, make_cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with Proxy(redis_server.port, ssl_context=_tls()) as proxy:
        needs = make_cache(f"redis://127.0.0.1:{proxy.port}/0", connect_wait=0.01)
        lacks = make_cache(f"rediss://127.0.0.1:{redis_server.port}/0", connect_wait=0.01)
        for cache in (needs, lacks):
            assert await cache.initialize() is False
        await until(lambda: "the server speaks TLS: write rediss:// in place of redis://" in caplog.text)
        await until(lambda: "the server speaks no TLS: write redis:// in place of rediss://" in caplog.text)
        for cache in (needs, lacks):
            await cache.close()
    assert caplog.text.count("in place of") == 2
