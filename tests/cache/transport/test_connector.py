"""Connecting: addresses, passwords, TLS, and servers that do not support a multiplexer, or not yet."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from cache.exceptions import CacheUnavailable, CommandRejected
from cache.redis_url import Endpoint
from cache.transport import attempts
from cache.transport.handshake import REJECTED
from tests.cache.conftest import Clients
from tests.cache.loading.clock import seconds_until
from tests.real.proxy import Proxy
from tests.real.redis.redis_server import RedisServer
from tests.wait import until

pytestmark = pytest.mark.integration
PEM = Path(__file__).parents[2] / "real" / "localhost.pem"


async def test_select_setname_and_password(own_redis: RedisServer, clients: Clients) -> None:
    own_redis.cli("CONFIG", "SET", "requirepass", "s3cret")
    own_redis.password = "s3cret"
    own_redis.cli("ACL", "SETUSER", "ann", "on", ">pässwörd", "~*", "&*", "+@all")
    for username, password in ((None, "s3cret"), ("default", "s3cret"), ("ann", "pässwörd")):
        endpoint = Endpoint("127.0.0.1", own_redis.port, None, username, password, db=3)
        assert str(password) not in repr(endpoint)
        client = await clients(endpoint=endpoint)
        info = await client.call("CLIENT", "LIST", "ID", await client.call("CLIENT", "ID"))
        text = info.decode() if isinstance(info, bytes) else info[1]
        assert "name=companion-cache " in text
        assert " db=3 " in text
        assert f"user={username or 'default'}" in text
        await client.call("SET", f"of {username}", 1)
    own_redis.cli("CONFIG", "SET", "requirepass", "")


async def test_unix_socket(clients: Clients, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "r", port=0, unix_socket=True) as server:
        client = await clients(endpoint=Endpoint(unix_path=str(server.socket_path)))
        assert await client.call("SET", "k", "v") == b"OK"
        await client.close()


async def test_localhost_by_name_and_name_that_does_not_exist(own_redis: RedisServer, clients: Clients) -> None:
    client = await clients(endpoint=Endpoint("localhost", own_redis.port))
    assert await client.call("PING") == b"PONG"
    lost = await clients(endpoint=Endpoint("no-such-host.invalid", 1), wait=False)
    await until(lambda: lost.reason == "name lookup failed", 10)


async def test_wrong_password_says_so_without_saying_it_and_heals(own_redis: RedisServer, clients: Clients) -> None:
    reasons: list[str] = []
    own_redis.cli("CONFIG", "SET", "requirepass", "right")
    own_redis.password = "right"
    endpoint = Endpoint("127.0.0.1", own_redis.port, password="hush-hush")
    client = await clients(endpoint=endpoint, wait=False, on_disconnected=reasons.append)
    await until(lambda: reasons)
    await asyncio.sleep(0.3)
    assert reasons == ["refused (WRONGPASS)"]
    with pytest.raises(CacheUnavailable, match="WRONGPASS") as caught:
        await client.call("GET", "k")
    assert "hush" not in str(caught.value)
    own_redis.cli("CONFIG", "SET", "requirepass", "hush-hush")
    own_redis.password = "hush-hush"
    assert await seconds_until(lambda: client.up) < 1.5
    own_redis.cli("CONFIG", "SET", "requirepass", "")


@pytest.mark.timed
async def test_a_client_that_is_refused_attempts_less_and_less_often(
    own_redis: RedisServer, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    for failing_for in (0.0, 6.0, 3_600.0, 1e9):
        pauses = [attempts.backoff(REJECTED, failing_for) for _ in range(100)]
        expected = min(max(REJECTED, failing_for * attempts.BACKOFF_SHARE), 30.0)
        assert 0.79 * expected < min(pauses) < max(pauses) <= expected
    monkeypatch.setattr(attempts, "BACKOFF_SHARE", 2.0)

    def connections() -> int:
        return int(own_redis.cli("INFO", "stats").split("total_connections_received:")[1].split()[0])

    before = connections()
    await clients(endpoint=Endpoint("127.0.0.1", own_redis.port, username="missing", password="pw"), wait=False)
    await asyncio.sleep(1.2)
    assert 1 < connections() - before <= 5  # one of this test's own; without a backoff there were seven


async def test_a_user_who_may_not_ping(own_redis: RedisServer, clients: Clients) -> None:
    own_redis.cli("ACL", "SETUSER", "ben", "on", ">pw", "~*", "+get", "+hello")
    client = await clients(endpoint=Endpoint("127.0.0.1", own_redis.port, username="ben", password="pw"))
    assert await client.call("GET", "k") is None
    with pytest.raises(CommandRejected) as caught:
        await client.call("SET", "k", 1)
    assert caught.value.code == "NOPERM"
    proven = client.proven_at
    await until(lambda: client.proven_at > proven)


async def scripted(replies: list[bytes]) -> tuple[asyncio.Server, int, list[int]]:
    """A server that answers every connection's first bytes with the next of `replies` (the last one repeats)."""
    seen: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(replies[min(len(seen), len(replies) - 1)])
        seen.append(1)
        while data := await reader.read(65536):
            number = data.split(b"\r\n")[-2]  # PING n
            writer.write(b"$%d\r\n%b\r\n" % (len(number), number))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1], seen


HELLO = b"%2\r\n$5\r\nproto\r\n:3\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n+PONG\r\n"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"-ERR unknown command `HELLO`, with args beginning with: `3` `AUTH` `default` `hush`\r\n", "no RESP3"),
        (b"-NOPROTO unsupported protocol version\r\n", "no RESP3"),
        (b"-unsupported command 'hello'\r\n", "no RESP3"),
        (b"-ERR unsupported command `hello`\r\n", "no RESP3"),
        (b"-invalid request\r\n", "no RESP3"),
        (b"-ERR nope\r\n", "no RESP3"),
        (b"-ERR syntax error in HELLO option 'SETNAME'\r\n", "no RESP3"),
        (b"-ERR command disabled for user with password hush\r\n", "no RESP3"),
        (b"-NOTSUPPORTED\r\n", "no RESP3"),
        (b"*2\r\n$5\r\nproto\r\n:2\r\n", "no RESP3"),
        (HELLO.replace(b"$10\r\nstandalone", b"$7\r\ncluster"), "a cluster"),
    ],
)
async def test_servers_without_support_for_the_multiplexer(clients: Clients, reply: bytes, reason: str) -> None:
    server, port, _ = await scripted([reply])
    async with server:
        reasons: list[str] = []
        endpoint = Endpoint("127.0.0.1", port, password="hush")
        client = await clients(endpoint=endpoint, wait=False, on_disconnected=reasons.append)
        await until(lambda: clients.listeners[client].found)
        (found,) = clients.listeners[client].found
        assert (reasons, str(found), client.reason, client.up) == ([], reason, reason, False)
        assert (found.resp3, found.slots) == ((True, []) if reason == "a cluster" else (False, None))
        await client.close()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"-WRONGPASS invalid username-password pair or user is disabled.\r\n", "WRONGPASS"),
        (b"-NOAUTH HELLO must be called with the client already authenticated\r\n", "NOAUTH"),
        (b"-NOPERM this user has no permissions to run the 'hello' command\r\n", "NOPERM"),
        (b"-DENIED Redis is running in protected mode\r\n", "DENIED"),
        (b"-ERR invalid password hush\r\n", "ERR: password"),
        (b"-ERR Client sent AUTH, but no password is set\r\n", "ERR: password"),
        (b"-ERR max number of clients reached\r\n", "ERR: max number of clients"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "LOADING"),
        (b"-BUSY Redis is busy running a script\r\n", "BUSY"),
        (HELLO.replace(b"+PONG", b"-ERR DB index is out of range\r\n+PONG"), "ERR: SELECT of the database"),
    ],
)
async def test_an_error_that_is_about_us_is_no_lack_of_resp3(clients: Clients, reply: bytes, reason: str) -> None:
    server, port, _ = await scripted([reply])
    async with server:
        reasons: list[str] = []
        endpoint = Endpoint("127.0.0.1", port, password="hush", db=9 if "SELECT" in reason else 0)
        client = await clients(endpoint=endpoint, wait=False, on_disconnected=reasons.append)
        await until(lambda: reasons)
        assert (reasons, clients.listeners[client].found) == ([f"refused ({reason})"], [])
        await client.close()


@pytest.mark.timed
async def test_loading_is_asked_again_soon(clients: Clients) -> None:
    loading = HELLO.replace(b"+PONG", b"-LOADING Redis is loading the dataset in memory")
    server, port, seen = await scripted([loading, loading, HELLO])
    async with server:
        reasons: list[str] = []
        client = await clients(port, wait=False, on_disconnected=reasons.append)
        assert await seconds_until(lambda: client.up) < 0.5
        assert (reasons, len(seen), clients.listeners[client].found) == (["refused (LOADING)"], 3, [])
        await client.close()


@pytest.mark.timed
async def test_a_server_that_hangs_up_at_once_is_not_hammered(clients: Clients) -> None:
    accepted = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await reader.read(65536)
        writer.write(HELLO)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = await clients(server.sockets[0].getsockname()[1], wait=False)
        await asyncio.sleep(1.0)
        assert 5 < accepted < 30
        await client.close()


async def test_tls(own_redis: RedisServer, clients: Clients) -> None:
    inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inside.load_cert_chain(PEM)
    trusting = ssl.create_default_context(cafile=PEM)
    async with Proxy(own_redis.port, ssl_context=inside) as proxy:
        client = await clients(endpoint=Endpoint("127.0.0.1", proxy.port, ssl_context=trusting), deadline=1.0)
        await client.call("SET", "k", b"x" * 300_000)
        assert await asyncio.gather(*(client.call("STRLEN", "k") for _ in range(50))) == [300_000] * 50
        assert len(await client.call("GET", "k")) == 300_000
        doubting = Endpoint("127.0.0.1", proxy.port, ssl_context=ssl.create_default_context())
        doubter = await clients(endpoint=doubting, wait=False)
        await until(lambda: doubter.reason == "TLS certificate not accepted")
        clients.complaints.clear()  # the proxy's side of the failed handshake
        plain = await clients(proxy.port, wait=False)
        await until(lambda: plain.reason != "not connected yet")
        assert not plain.up
        await asyncio.gather(client.close(), doubter.close(), plain.close())


@pytest.mark.timed
async def test_a_slow_handshake_gets_through(own_redis: RedisServer, clients: Clients) -> None:
    async with Proxy(own_redis.port, delay_to_server=0.7) as proxy:
        client = await clients(proxy.port, wait=False)
        await until(lambda: proxy.bytes_to_server)  # the reply of the oldest attempt was awaited
        proxy.delay_to_server = 0.0
        assert await seconds_until(lambda: client.up) < 0.3
        assert proxy.connections_total <= 6
        await client.close()
    async with Proxy(own_redis.port, delay_to_server=30) as proxy:
        client = await clients(proxy.port, wait=False, socket_connect_timeout=0.5)
        await until(lambda: client.reason == "no answer while connecting")
        await client.close()


@pytest.mark.timed
async def test_a_host_that_does_not_even_answer_a_connect(clients: Clients, tmp_path: Path) -> None:
    """A listening socket with a full queue: the kernel drops every further SYN, and retries only after a second."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        port = hole.getsockname()[1]
        fillers = [_filler(port) for _ in range(3)]
        client = await clients(port, wait=False)
        await asyncio.sleep(1.3)
        assert not client.up
        for filler in fillers:
            filler.close()
    late = RedisServer(tmp_path / "late", port=port)
    try:
        await asyncio.to_thread(late.start)
        assert await seconds_until(lambda: client.up) < 0.3
        await client.close()
    finally:
        late.stop()


@pytest.mark.timed
async def test_a_name_with_a_dead_address_first(
    own_redis: RedisServer, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    lookups = 0
    hang = False

    async def lookup(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        nonlocal lookups
        lookups += 1
        if hang:
            await loop.create_future()
        return [(socket.AF_INET, 1, 6, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(loop, "getaddrinfo", lookup)
    with socket.socket() as hole:
        hole.bind(("127.0.0.2", own_redis.port))
        hole.listen(0)
        fillers = [_filler(own_redis.port, "127.0.0.2") for _ in range(3)]
        client = await clients(endpoint=Endpoint("redis.example", own_redis.port), wait=False)
        assert await seconds_until(lambda: client.up) < 0.4
        hang = True
        await asyncio.sleep(1.1)  # the cached answer has expired: resolve again
        own_redis.cli("CLIENT", "KILL", "TYPE", "normal")
        await until(lambda: not client.up)
        assert await seconds_until(lambda: client.up) < 0.3  # with the old answer, first the address that worked
        assert lookups == 2
        own_redis.kill()
        await asyncio.sleep(1.2)
        assert lookups == 2  # a hanging resolution is not joined
        await client.close()
        for filler in fillers:
            filler.close()


def _filler(port: int, host: str = "127.0.0.1") -> socket.socket:
    """One more connection in the queue of a listener that accepts none."""
    filler = socket.socket()
    filler.setblocking(False)
    filler.connect_ex((host, port))
    return filler
