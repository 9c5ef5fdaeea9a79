"""Imports everything and holds a conversation in the console where ``fcntl`` cannot be imported, as on Windows."""

from __future__ import annotations

import asyncio
import builtins
import importlib
import pkgutil
import sys
from datetime import UTC, datetime
from typing import Any

_import = builtins.__import__


def without_fcntl(name: str, *rest: Any, **more: Any) -> Any:
    if name == "fcntl":
        raise ImportError("No module named 'fcntl'", name=name)
    return _import(name, *rest, **more)


def import_everything() -> None:
    for package in ("cache", "companion", "tools", "agent"):
        top = importlib.import_module(package)
        for module in pkgutil.walk_packages(getattr(top, "__path__", []), f"{package}."):
            importlib.import_module(module.name)
    assert "fcntl" not in sys.modules, "something has loaded it all the same"


def spool() -> None:
    """What the store has not taken is kept, found again, and struck, without a lock as well."""
    from companion.settings import Settings
    from companion.store import Turn
    from companion.writes.spool import Spool

    kept = Spool(Settings.from_env().home / "other")
    file = kept.new_file()
    for lines in (["one"], ["one", "two"], ["two"]):
        file.hold(lines)
    assert [path.read_text() for path in kept.files()] == ["two\n"]
    file.hold([])
    assert kept.files() == []
    turn = Turn("user", "hello", datetime.now(UTC), "c")
    kept.remove(kept.add("ada", [turn]), "ada", turn)
    assert list(kept.folder.iterdir()) == []


async def private_server() -> str:
    """Why there is none."""
    from cache.embedded import EmbeddedRedis, EmbeddedRedisError
    from companion.settings import Settings

    try:
        await EmbeddedRedis(Settings.from_env().home).start()
    except EmbeddedRedisError as problem:
        return str(problem)
    return ""


if __name__ == "__main__":
    builtins.__import__ = without_fcntl
    sys.modules.pop("fcntl", None)
    import_everything()
    print("PRIVATE SERVER:", asyncio.run(private_server()))
    spool()
    sys.argv = ["agent.py", "console", "--text"]
    importlib.import_module("agent").main()
