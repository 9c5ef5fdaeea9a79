"""Every documented form of REDIS_URL reaches the server it names."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from cache import CacheSettings, RedisCache
from cache.transport.fallback.redis_py import open_client
from tests.real.proxy import Proxy
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.resp2_server import without_resp3
from tests.wait import until

pytestmark = [pytest.mark.integration, pytest.mark.every_server]
PEM = Path(__file__).parents[2] / "real" / "localhost.pem"


async def works(cache: RedisCache) -> bool:
    await cache.initialize()
    return await cache.set("k", {"n": 1}) and await cache.get("k") == {"n": 1}


async def test_database_number(redis_server: RedisServer, make_cache: Any) -> None:
    cache = make_cache(redis_server.url.replace("/0", "/3"), deadline=2.0, connect_wait=5.0)
    assert await works(cache)
    assert redis_server.cli("EXISTS", "k") == 0


async def test_user_and_password(tmp_path: Path, make_cache: Any) -> None:
    acl = ["--user", "ada", "on", ">p@ss/w#rd", "~*", "&*", "+@all"]
    with RedisServer(tmp_path / "r", args=acl) as server:
        cache = make_cache(f"redis://ada:p%40ss%2Fw%23rd@127.0.0.1:{server.port}/0", deadline=2.0, connect_wait=5.0)
        assert await works(cache)
        assert "user=ada" in server.cli("CLIENT", "LIST")


async def test_password_alone(tmp_path: Path, make_cache: Any) -> None:
    with RedisServer(tmp_path / "r", password="s3cret") as server:
        assert await works(make_cache(server.url, deadline=2.0, connect_wait=5.0))


async def test_unix_socket(tmp_path: Path, make_cache: Any) -> None:
    with RedisServer(tmp_path / "r", port=0, unix_socket=True) as server:
        assert await works(make_cache(server.unix_url, deadline=2.0, connect_wait=5.0))


def tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    return context


async def test_tls_with_certificate_checks(redis_server: RedisServer, make_cache: Any) -> None:
    async with Proxy(redis_server.port, ssl_context=tls()) as proxy:
        trusted = f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={PEM}"
        assert await works(make_cache(trusted, deadline=2.0, connect_wait=5.0))


async def test_tls_refuses_what_it_does_not_trust(
    redis_server: RedisServer, make_cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with Proxy(redis_server.port, ssl_context=tls()) as proxy:
        cache = make_cache(f"rediss://127.0.0.1:{proxy.port}/0", connect_wait=5.0)
        assert await cache.initialize() is False
        assert "TLS certificate not accepted" in caplog.text


@pytest.mark.parametrize("resp3", [True, False])
async def test_options_hold_for_every_connection(redis_server: RedisServer, make_cache: Any, resp3: bool) -> None:
    async with AsyncExitStack() as stack:
        port = redis_server.port if resp3 else await stack.enter_async_context(without_resp3(redis_server.port))
        proxy = await stack.enter_async_context(Proxy(port, ssl_context=tls()))
        url = f"rediss://127.0.0.1:{proxy.port}/3?ssl_cert_reqs=CERT_NONE&max_connections=4&socket_timeout=3"
        cache = make_cache(url, deadline=2.0, connect_wait=5.0)
        assert await works(cache)
        stats = await cache.get_stats()  # over the pool
        assert (stats["connected"], stats["redis_keys"], stats["connection_errors"]) == (True, 2 if resp3 else 1, 0)


async def test_valkeys_own_schemes(redis_server: RedisServer, make_cache: Any) -> None:
    assert await works(make_cache(redis_server.url.replace("redis:", "valkey:"), deadline=2.0, connect_wait=5.0))
    async with Proxy(redis_server.port, ssl_context=tls()) as proxy:
        url = f"valkeys://127.0.0.1:{proxy.port}/0?ssl_ca_certs={PEM}"
        assert await works(make_cache(url, deadline=2.0, connect_wait=5.0))


@pytest.mark.one_server
async def test_a_file_that_vanishes_later_raises_in_no_call(
    redis_server: RedisServer, make_cache: Any, tmp_path: Path
) -> None:
    authority = Path(shutil.copy(PEM, tmp_path / "ca.pem"))
    async with Proxy(redis_server.port, ssl_context=tls()) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={authority}"
        cache = make_cache(url, deadline=2.0, connect_wait=5.0)
        await asyncio.to_thread(authority.unlink)
        assert await works(cache)
        assert (await cache.get_stats())["connection_errors"] == 0, "the pool connects only now"
        cache.disable()
        cache.enable()
        await until(lambda: cache.connected)
        assert await works(make_cache(url, deadline=2.0, connect_wait=5.0))


def test_options_hold_for_every_client_of_redis_py() -> None:
    options = "max_connections=4&socket_timeout=3&socket_connect_timeout=2&health_check_interval=9"
    settings = CacheSettings(url=f"rediss://u:p%40@127.0.0.1:7?ssl_ca_certs={PEM}&{options}")
    pool: Any = open_client(settings, settings.endpoint, settings.endpoint.host).connection_pool
    for connection in [pool.make_connection()]:
        assert connection.ssl_context.get() is settings.endpoint.ssl_context
        assert (connection.username, connection.password, connection.port) == ("u", "p@", 7)
        assert (connection.socket_timeout, connection.socket_connect_timeout) == (3, 2)
        assert (connection.health_check_interval, connection.encoder.decode_responses) == (9, False)
    assert pool.max_connections == 4


@pytest.mark.parametrize(("flag", "times"), [("yes", 2), ("no", 1)])
async def test_retry_on_timeout_means_what_it_says(flag: str, times: int) -> None:
    asked = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.read(65536)  # its name
        writer.write(b"+OK\r\n")
        asked += b"GET" in await reader.read(65536)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = CacheSettings(url=f"redis://127.0.0.1:{port}?retry_on_timeout={flag}")
        client = open_client(settings, settings.endpoint, settings.endpoint.host)
        with pytest.raises(ConnectionError):
            await client.get("k")
        await client.aclose()
    assert asked == times


def test_the_safe_url_has_no_credentials() -> None:
    for url in ("redis://u:s3cret@h:1/2", "rediss://:s3cret@h", "unix://u:s3cret@/x.sock?password=s3cret"):
        settings = CacheSettings(url=url)
        assert "s3cret" not in settings.safe_url + repr(settings)


def test_an_explicit_argument_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://from-env:1/0")
    monkeypatch.setenv("REDIS_ENABLED", "no")
    assert RedisCache().settings.safe_url == "redis://from-env:1/0"
    assert RedisCache().enabled is False
    assert RedisCache("redis://given:2/0", enabled=True).settings.safe_url == "redis://given:2/0"
    assert RedisCache("redis://given:2/0", enabled=True).enabled is True
