"""``mypy --strict`` over what a user writes, and over the wheel itself."""

from __future__ import annotations

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


@pytest.fixture(scope="module")
def said(thin: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What mypy says of which file: one run over everything, because knowing the libraries takes 5 s each time.

    All of it by name: of the wheel's packages mypy reports nothing where a user's file imports them.
    """
    folder = tmp_path_factory.mktemp("types")
    (folder / "mine.py").write_text(USERS_FILE)
    for name, code in PYTHON:
        # docs/agents.md: with the wheel, `from cache import ...` is `from livekit_companion.cache import ...`.
        (folder / f"{name}.py").write_text(re.sub(r"(?m)^from (cache|tools)\b", r"from livekit_companion.\1", code))
    for example in (ROOT / "examples").glob("*.py"):
        (folder / example.name).symlink_to(example)
    modules = [f"--module={path.stem}" for path in sorted(folder.glob("*.py"))]
    packages = [f"--package={name}" for name in ("livekit_companion", "livekit.plugins.companion")]
    # The cache of "make lint" knows the libraries: 5 s instead of 13.
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        ROOT / "pyproject.toml",
        "--cache-dir",
        ROOT / ".mypy_cache",
    ]
    command += ["--python-executable", thin / "bin" / "python", "--show-absolute-path", *modules, *packages]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    *lines, summary = ran.stdout.splitlines()
    checked = int(re.search(r"(\d+) source files", summary)[1])  # type: ignore[index]  # fails loudly
    (wheel,) = thin.glob("lib/python*/site-packages")
    assert checked >= len(modules) + len([*wheel.rglob("*.py")])
    said: dict[str, list[str]] = {"wheel": [], "user": []}
    for line in lines:
        said["wheel" if str(wheel) in line else "user"].append(line)
    return said


def test_a_users_file_the_examples_and_the_documentation(said: dict[str, list[str]]) -> None:
    assert said["user"] == []


def test_the_wheel(said: dict[str, list[str]]) -> None:
    assert said["wheel"] == []
