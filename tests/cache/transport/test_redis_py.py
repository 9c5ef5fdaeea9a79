"""Every documented form of REDIS_URL reaches the server it names."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from cache import CacheConfigError, CacheSettings, RedisCache
from cache.transport.redis_py import open_client
from tests.real.proxy import Proxy
from tests.real.redis_server import RedisServer

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


@pytest.mark.parametrize(
    "url", ["http://localhost", "localhost:6379", "redis://h:port/0", "redis://h/zero", "unix://", "redis://h/0?foo=1"]
)
def test_a_url_that_cannot_be_used_says_so_at_once(url: str) -> None:
    with pytest.raises(CacheConfigError, match="REDIS_URL"):
        open_client(RedisCache(url).settings)


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
