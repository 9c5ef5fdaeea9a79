"""Tests of the redis-server fixture."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.real.redis import redis_server
from tests.real.redis.redis_server import RedisReplyError, RedisServer, TlsFiles, find_redis_server, supports_tls
from tests.wait import until

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.real.redis.redis_server import RedisServer
print(RedisServer(Path(sys.argv[1])).start().pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_starts_answers_and_is_gone(tmp_path: Path) -> None:
    with RedisServer(tmp_path, password="s:/@", args=["--maxmemory", "2mb"]) as server:
        process = psutil.Process(server.pid)
        assert server.cli("SET", "a", b"\xff\x00") == "OK"
        assert server.cli("GET", "a").encode(errors="surrogateescape") == b"\xff\x00"
        assert server.cli("CONFIG", "GET", "maxmemory") == ["maxmemory", str(2 << 20)]
        assert server.cli("GET", "b") is None
        assert server.cli("DEL", "a", "b") == 1
        with pytest.raises(RedisReplyError, match="WRONGPASS"):
            server.cli("AUTH", "guessed")
    assert not process.is_running()
    assert not server.running


def test_a_unix_socket_alone(tmp_path: Path) -> None:
    with RedisServer(tmp_path, port=0, unix_socket=True) as server:
        assert server.url == f"unix://{tmp_path}/redis.sock"
        assert server.cli("PING") == "PONG"


def test_a_restart_keeps_the_port_and_the_data_or_not(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        url = server.url
        server.cli("SET", "a", 1)
        assert server.restart().cli("GET", "a") == "1"
        assert server.restart(empty=True).cli("GET", "a") is None
        assert server.url == url
        server.kill()
        with pytest.raises(ConnectionRefusedError):
            server.cli("PING")
        assert server.start().cli("PING") == "PONG"


def test_a_paused_server_is_silent_until_resumed_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer(tmp_path) as server:
        server.pause()
        with monkeypatch.context() as patch:
            patch.setattr(redis_server, "REPLY_SECONDS", 0.05)
            with pytest.raises(TimeoutError):
                server.cli("PING")
        server.resume()
        assert server.cli("PING") == "PONG"
        server.pause()


def test_a_setting_it_does_not_know_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)did not start.*bogus"):
        RedisServer(tmp_path, args=["--bogus", "1"]).start()


def test_tls_works_or_says_that_this_build_cannot(tmp_path: Path) -> None:
    pem = Path(__file__).parents[1] / "localhost.pem"
    files = TlsFiles(certificate=pem, key=pem, authority=pem)
    binary = find_redis_server()
    assert binary
    if supports_tls(binary):
        with RedisServer(tmp_path, tls=files) as server:
            assert server.url.startswith("rediss://")
            assert server.cli("PING") == "PONG"
    else:
        with pytest.raises(RuntimeError, match="built without TLS"):
            RedisServer(tmp_path, tls=files)


async def test_a_killed_test_run_leaves_no_server(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)  # noqa: ASYNC221 it kills itself
    assert run.returncode == -signal.SIGKILL, run.stderr
    pid = int(run.stdout)
    if not shutil.which("setpriv"):  # no guarantee in that case, only cleanup
        psutil.Process(pid).kill()

    def gone() -> bool:
        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

    await until(gone)
