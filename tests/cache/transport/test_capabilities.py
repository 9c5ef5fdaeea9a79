"""Servers and proxies that lack a command: found once, named once with what is lost, and replaced where possible."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from cache import RedisCache, keys
from cache.transport.fallback import pool
from cache.transport.fallback.pool import PooledClient
from tests.inside import engine_of
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.resp2_server import refusing
from tests.wait import initialised, until

pytestmark = pytest.mark.integration
KEY = keys.profile("1")
EVERYTHING = {"set", "get", "load stored", "delete", "pattern", "stats"}
# What is refused, what is lost, and what is logged.
MISSING = {
    "UNLINK": (set[str](), "DEL takes its place"),
    "DEL": (set[str](), "UNLINK takes its place"),
    "UNLINK DEL": ({"delete", "pattern"}, "nothing is deleted in Redis"),  # scripts do, behind a proxy
    "EVALSHA": (set[str](), "EVAL takes its place"),
    "SCRIPT": (set[str](), "EVAL takes the place of EVALSHA"),
    "EVALSHA EVAL": ({"load stored"}, "what is loaded is not stored"),
    "SCRIPT EVAL": ({"load stored"}, "what is loaded is not stored"),
    "SCAN": ({"pattern"}, "what a pattern matches is not deleted"),
    "INFO": ({"stats"}, "a restart, restore or failover"),
}


def allowed_again(log: str) -> set[str]:
    """What is said to be refused no longer: in several lines, if it began while the cache was looking."""
    return {name for line in re.findall(r"No longer refused: (.*)", log) for name in line.split(", ")}


async def _loaded() -> str:
    return "loaded"


async def what_works(cache: RedisCache, server: RedisServer) -> set[str]:
    """The operations that do what they should."""
    works = {
        "set": await cache.set("user:1:settings", {"n": 1}, ttl=60),
        "get": await cache.get("user:1:settings") == {"n": 1},
        "load stored": await cache.get_or_load(KEY, _loaded, ttl=60) == "loaded" and server.cli("GET", KEY) == "loaded",
        "delete": await cache.delete("user:1:settings") == 1 and not server.cli("EXISTS", "user:1:settings"),
    }
    await cache.set("user:2:settings", 1, ttl=60)
    works["pattern"] = (await cache.invalidate("user:*:settings")).complete
    stats = await cache.get_stats()
    works["stats"] = (stats["connected"], stats["redis_memory"] != "0B") == (True, True)
    return {name for name, worked in works.items() if worked}


@pytest.fixture(params=["a server", "a proxy", "a proxy without RESP3", "a proxy that hangs up"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Makes the port and the server of a place where these commands are refused."""
    async with AsyncExitStack() as stack:

        async def make(commands: str) -> tuple[int, RedisServer]:
            if request.param == "a server":
                args = [word for name in commands.split() for word in ("--rename-command", name, f"hidden-{name}")]
                server = stack.enter_context(RedisServer(tmp_path / "redis", args=args))
                return server.port, server
            server = stack.enter_context(RedisServer(tmp_path / "redis"))
            if request.param == "a proxy that hangs up":
                unknown = {"HELLO", "CLIENT", *commands.split()}
                return await stack.enter_async_context(refusing(server.port, {}, hang_up=unknown)), server
            errors = dict.fromkeys(commands.split(), "unsupported: not here")
            if request.param == "a proxy without RESP3":
                errors["HELLO"] = "invalid request"
            return await stack.enter_async_context(refusing(server.port, errors)), server

        yield make


@pytest.mark.parametrize("missing", MISSING)
async def test_what_is_missing_is_named_once_and_replaced(
    place: Any, make_cache: Any, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    lost, line = MISSING[missing]
    port, server = await place(missing)
    if missing == "UNLINK DEL" and port == server.port:
        lost = lost | {"set", "get"}
    cache = make_cache(f"redis://127.0.0.1:{port}/0", deadline=2.0, connect_wait=5.0)
    await initialised(cache)
    assert await what_works(cache, server) == EVERYTHING - lost
    named = re.findall(r"(\w+) is refused \(", caplog.text)
    assert sorted(named) == sorted(name for name in missing.split() if line), "each is named once"
    assert line in caplog.text
    await cache.close()


async def test_a_right_that_comes_back_is_noticed_and_none_is_named_twice(
    own_redis: RedisServer, make_cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    own_redis.cli("ACL", "SETUSER", "ann", "on", ">pw", "~*", "&*", "+@all", "-evalsha", "-eval", "-unlink")
    cache = make_cache(f"redis://ann:pw@127.0.0.1:{own_redis.port}/0", deadline=2.0, connect_wait=5.0)
    await initialised(cache)
    assert await cache.set(KEY, "one", ttl=60)
    assert await cache.get_or_load(keys.state("1"), _loaded, ttl=60) == "loaded"
    assert own_redis.cli("GET", keys.state("1")) is None
    own_redis.cli("CLIENT", "KILL", "USER", "ann")
    await until(lambda: cache.connected and not engine_of(cache).pending)
    await cache.get_or_load(keys.state("1"), _loaded, ttl=60)
    for name in ("UNLINK", "EVALSHA", "EVAL"):
        assert caplog.text.count(f" {name} is refused (NOPERM)") == 1
    own_redis.cli("ACL", "SETUSER", "ann", "+evalsha", "+unlink")
    await until(lambda: allowed_again(caplog.text) == {"EVAL", "EVALSHA", "UNLINK"})
    await cache.get_or_load(keys.state("1"), _loaded, ttl=60)
    assert own_redis.cli("GET", keys.state("1")) == "loaded"
    await cache.close()


@pytest.mark.usefixtures("maintained_often")
async def test_what_is_refused_stays_so_while_the_server_says_nothing(
    own_redis: RedisServer, make_cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "cache")
    own_redis.cli("ACL", "SETUSER", "companion", "on", ">pw", "~*", "&*", "+@all", "-unlink")
    cache = make_cache(f"redis://companion:pw@127.0.0.1:{own_redis.port}/0", deadline=0.2, connect_wait=5.0)
    await initialised(cache)
    await until(lambda: own_redis.calls("unlink") == 0 and own_redis.calls("evalsha") > 1)  # it looks again
    own_redis.pause()
    try:
        await until(lambda: not cache.connected)
    finally:
        own_redis.resume()
    await until(lambda: cache.connected)
    assert not allowed_again(caplog.text)


async def test_a_server_that_reports_no_changes_is_named(
    own_redis: RedisServer, make_cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    own_redis.cli("ACL", "SETUSER", "ann", "on", ">pw", "~*", "&*", "+@all", "-client|tracking")
    cache = make_cache(f"redis://ann:pw@127.0.0.1:{own_redis.port}/0", deadline=2.0, connect_wait=5.0)
    await initialised(cache)
    assert await what_works(cache, own_redis) == EVERYTHING
    for right, line in (
        ("-client|tracking", "CLIENT TRACKING is refused (NOPERM): there is no near cache"),
        ("+client|tracking", "No longer refused: CLIENT TRACKING"),
    ):
        own_redis.cli("ACL", "SETUSER", "ann", right)
        own_redis.cli("CLIENT", "KILL", "USER", "ann")
        await until(lambda line=line: line in caplog.text)
    assert caplog.text.count("refused") == 2, "each is said once, and in no other words"
    await cache.close()


class FirstTime:
    """HELLO, the first time it is sent."""

    def __init__(self) -> None:
        self.times = 0

    def __contains__(self, name: str) -> bool:
        self.times += name == "HELLO"
        return name == "HELLO" and self.times == 1


async def test_what_twemproxy_carries_is_cached_behind_it(
    redis_server: RedisServer, make_cache: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(pool, "ROLE_SECONDS", 0.0)  # the role would be asked for with each command
    unknown = {"HELLO", "CLIENT", "INFO", "SCAN", "SCRIPT", "CLUSTER", "DBSIZE", "SELECT", "ROLE"}
    async with refusing(redis_server.port, {}, hang_up=unknown) as port:
        url = f"redis://127.0.0.1:{port}/0?retry_on_timeout=no"
        cache = make_cache(url, deadline=2.0, connect_wait=5.0)
        await initialised(cache)
        redis_server.cli("SCRIPT", "FLUSH")
        assert await what_works(cache, redis_server) == EVERYTHING - {"pattern", "stats"}
        assert cache.connected
        unknown.clear()
        unknown.add("HELLO")
        await until(lambda: allowed_again(caplog.text) == {"INFO", "SCAN", "SCRIPT"})
        assert await what_works(cache, redis_server) == EVERYTHING
        await cache.close()


async def test_a_proxy_that_knows_hello_and_hangs_up_over_client(redis_server: RedisServer, make_cache: Any) -> None:
    async with refusing(redis_server.port, {}, hang_up={"CLIENT"}) as port:
        cache = make_cache(f"redis://127.0.0.1:{port}/0", deadline=2.0, connect_wait=5.0)
        await initialised(cache)
        assert await what_works(cache, redis_server) == EVERYTHING
        await cache.close()


@pytest.mark.parametrize("what", ["HELLO", "HELLO PING", "HELLO once"])
async def test_a_server_that_hung_up_once_is_not_taken_for_such_a_proxy(
    redis_server: RedisServer, make_cache: Any, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    unknown: Any = FirstTime() if "once" in what else set(what.split())
    async with refusing(redis_server.port, {}, hang_up=unknown) as port:
        cache = make_cache(f"redis://127.0.0.1:{port}/0", deadline=2.0, connect_wait=5.0)
        cache.enable()
        transport = engine_of(cache).transport
        if what == "HELLO":
            await until(lambda: isinstance(transport.client, PooledClient) and cache.connected)
            assert await cache.set(KEY, "one", ttl=60)
        else:
            await until(lambda: "connection lost while connecting" in caplog.text)
            assert not isinstance(transport.client, PooledClient)
        if isinstance(unknown, set):
            unknown.clear()
        await until(lambda: engine_of(cache).servers.tracks(""))
        assert not isinstance(transport.client, PooledClient)
        assert await cache.set(KEY, "two", ttl=60)
        await cache.close()


async def test_a_wrong_password_behind_such_a_proxy_is_named(
    own_redis: RedisServer, make_cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    own_redis.cli("ACL", "SETUSER", "ann", "on", ">right", "~*", "&*", "+@all")
    async with refusing(own_redis.port, {}, hang_up={"HELLO", "CLIENT"}) as port:
        wrong, right = (
            make_cache(f"redis://ann:{word}@127.0.0.1:{port}/0", deadline=2.0, connect_wait=5.0)
            for word in ("wrong", "right")
        )
        assert await wrong.initialize() is False
        assert "refused (WRONGPASS)" in caplog.text
        await initialised(right)
        assert await right.set(KEY, "one", ttl=60)
        await wrong.close()
        await right.close()
