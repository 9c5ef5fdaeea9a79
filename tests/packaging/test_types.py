"""``mypy --strict`` over what a user writes, and over the wheel itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documentation.pages import PYTHON
from tests.packaging.conftest import ROOT

pytestmark = [pytest.mark.console, pytest.mark.timeout(180)]

USERS_FILE = """
from livekit.agents import Agent
from livekit.plugins import companion
from livekit_companion import CacheTools, Caller, RedisCache, get_redis_cache, keys, use_caller
from livekit_companion.cache import LockUnavailable

agent = Agent(instructions="Be kind.", tools=[CacheTools(), companion.ProfileTools()])


async def profile(user_id: str) -> str:
    cache: RedisCache = await get_redis_cache()
    with use_caller(Caller(user_id)):
        found: str = await cache.get(keys.profile(user_id), default="")
    return found + companion.__version__


CacheTools(no_such_argument=1)  # type: ignore[call-arg]  # an error that mypy must see
companion.no_such_name  # type: ignore[attr-defined]  # likewise
use_caller("123")  # type: ignore[arg-type]  # likewise
raise LockUnavailable("taken")
"""
"""Each ``ignore`` is an error where the types are unknown: ``--strict`` reports those that nothing needs."""


def mypy(*arguments: str | Path, cwd: Path, **env: str) -> None:
    # The cache of "make lint" knows the libraries: 5 s each instead of 13.
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", ROOT / ".mypy_cache", *arguments]
    ran = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_users_file_the_examples_and_the_documentation(thin: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(USERS_FILE)
    for name, code in PYTHON:
        # docs/agents.md: with the wheel, `from cache import ...` is `from livekit_companion.cache import ...`.
        (tmp_path / f"{name}.py").write_text(re.sub(r"(?m)^from (cache|tools)\b", r"from livekit_companion.\1", code))
    examples = sorted((ROOT / "examples").glob("*.py"))
    own = ["mine.py", *(f"{name}.py" for name, _ in PYTHON)]
    mypy("--python-executable", thin / "bin" / "python", "--python-version", "3.11", *own, *examples, cwd=tmp_path)


def test_the_wheel(thin: Path, tmp_path: Path) -> None:
    (packages,) = thin.glob("lib/python*/site-packages")
    for name in ("livekit_companion", "livekit"):
        (tmp_path / name).symlink_to(packages / name)
    ours = ("-p", "livekit_companion", "-p", "livekit.plugins.companion")
    mypy("--config-file", ROOT / "pyproject.toml", *ours, cwd=tmp_path, MYPYPATH=str(tmp_path))
