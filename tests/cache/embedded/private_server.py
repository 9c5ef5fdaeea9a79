"""Helpers for tests of the private redis-server: its processes, its socket, its binary."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import psutil
import pytest
from redis.asyncio import Redis

from tests.wait import until

ROOT = Path(__file__).parents[3]

# As a console does: start the server, print its URL, stop it when the input ends.
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

Console = Callable[[Path], subprocess.Popen[str]]


def start_console(home: Path) -> subprocess.Popen[str]:
    """A process that owns the server of ``home`` or joins it; see :func:`url_of`, :func:`close` and :func:`kill`."""
    command = [sys.executable, "-c", CONSOLE, str(home)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)


async def url_of(console: subprocess.Popen[str]) -> str:
    assert console.stdout
    return (await asyncio.to_thread(console.stdout.readline)).strip()


async def close(console: subprocess.Popen[str]) -> None:
    assert console.stdin
    console.stdin.close()
    await asyncio.to_thread(console.wait)


async def kill(console: subprocess.Popen[str]) -> None:
    console.kill()
    await asyncio.to_thread(console.wait)


def processes(home: Path) -> list[psutil.Process]:
    """Every process that works in this home: the server and its supervisor."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(home / "redis") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def servers(home: Path) -> list[psutil.Process]:
    return [process for process in processes(home) if process.name().endswith("-server")]


def supervisors(home: Path) -> list[psutil.Process]:
    return [process for process in processes(home) if not process.name().endswith("-server")]


async def without_owner(home: Path) -> None:
    """Wait until the supervisor has ended, all threads of it: a zombie may still hold the lock."""

    def unlocked() -> bool:
        with (home / "redis" / "owner.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    await until(unlocked)


def socket_path(url: str) -> Path:
    return Path(unquote(url.removeprefix("unix://")))


async def ask(url: str, *command: str | int) -> object:
    """Run one command on a server, by redis-py, on a connection of its own."""
    async with Redis.from_url(url, decode_responses=True) as client:
        return await client.execute_command(*command)


def fake_server(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a redis-server that runs ``script`` first on PATH."""
    directory.mkdir()
    binary = directory / "redis-server"
    binary.write_text(f"#!/bin/sh\n{script}\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")


def choose_server(binary: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put this server first on PATH."""
    directory.mkdir(exist_ok=True)
    link = directory / "redis-server"
    link.unlink(missing_ok=True)
    link.symlink_to(binary)
    if not os.environ["PATH"].startswith(f"{directory}{os.pathsep}"):
        monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
