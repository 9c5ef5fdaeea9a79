"""Helpers for tests of the private redis-server: its processes, its consoles, its binary."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import psutil
import pytest
from redis.asyncio import Redis

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
    """A process that owns the server of ``home`` or joins it; see :func:`url_of` and :func:`end`."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", CONSOLE, str(home)], cwd=ROOT, stdin=pipe, stdout=pipe, text=True)


async def url_of(console: subprocess.Popen[str]) -> str:
    assert console.stdout
    return (await asyncio.to_thread(console.stdout.readline)).strip()


async def end(console: subprocess.Popen[str], *, killed: bool) -> None:
    assert console.stdin
    if killed:
        console.kill()
    console.stdin.close()
    await asyncio.to_thread(console.wait)


def processes(home: Path) -> list[psutil.Process]:
    """Every process that works in this home: the server and the shells that supervise it."""
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


def supervisor(home: Path) -> psutil.Process:
    """The one supervisor of the one server."""
    [group] = {os.getpgid(process.pid) for process in processes(home)}
    return psutil.Process(group)


def socket_path(url: str) -> Path:
    return Path(unquote(url.removeprefix("unix://")))


async def ask(url: str, *command: str | int) -> object:
    """Run one command on a server, by redis-py, on a connection of its own."""
    async with Redis.from_url(url, decode_responses=True) as client:
        return await client.execute_command(*command)


def put_on_path(
    directory: Path, monkeypatch: pytest.MonkeyPatch, server: Path | str, name: str = "redis-server"
) -> Path:
    """Make a server, or a shell script, the first on PATH."""
    directory.mkdir(exist_ok=True)
    binary = directory / name
    binary.unlink(missing_ok=True)
    if isinstance(server, Path):
        binary.symlink_to(server)
    else:
        binary.write_text(f"#!/bin/sh\n{server}\n")
        binary.chmod(0o755)
    if not os.environ["PATH"].startswith(f"{directory}{os.pathsep}"):
        monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
    return binary
