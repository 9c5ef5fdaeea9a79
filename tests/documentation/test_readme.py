"""Statements and examples of the README, of docs/agents.md and of docs/cache.md are true."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from livekit.agents import AgentSession

from cache import close_redis_cache
from tests.real.redis.redis_server import RedisServer

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [README, *((ROOT / "docs" / name).read_text() for name in ("agents.md", "cache.md"))]
BLOCKS = [block for page in PAGES for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)]


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    named = {one or other for one, other in re.findall(r"`make ([a-z-]+)`|\$ make ([a-z-]+)", README)}
    assert {"console", "test"} <= named <= targets


def test_make_help_lists_the_two_commands() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "console" in shown
    assert "test" in shown


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_python_block_is_python(number: int) -> None:
    ast.parse(BLOCKS[number])


async def test_the_agent_in_ten_lines_can_call_the_tools() -> None:
    names: dict[str, object] = {}
    block = next(block for block in BLOCKS if "CacheTools()" in block)
    exec(block.replace("AgentSession(", "AgentSession(vad=None, "), names)
    session = names["session"]
    assert isinstance(session, AgentSession)
    assert session.userdata.caller.user_id == "123"
    tools = names["agent"].tools  # type: ignore[attr-defined]  # what the block made
    assert {tool.info.name for toolset in tools for tool in toolset.tools} == {
        "getRedisCacheStats",
        "clearUserCache",
        "invalidateCache",
    }


def test_what_is_copied_into_another_project_is_all_it_needs(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "cache", tmp_path / "cache")
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "cache_tools.py", tmp_path / "tools")
    (tmp_path / "mine.py").write_text(next(block for block in BLOCKS if "CacheTools()" in block))
    script = "import asyncio, sys, runpy\nasync def main(): runpy.run_path('mine.py')\n"
    script += "sys.path.insert(0, '')\nasyncio.run(main())\nassert 'companion' not in sys.modules"
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


async def test_the_cache_by_itself(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("CACHE_DEADLINE_MS", "2000")
    names: dict[str, object] = {}
    exec(next(block for block in BLOCKS if "get_or_load" in block), names)
    for _ in range(2):
        assert await names["preferences"]("7") == {"voice": "warm"}  # type: ignore[operator]  # as above
    assert 3420 <= redis_server.cli("TTL", "user:7:settings") <= 3600
    await close_redis_cache()


def test_the_table_of_pages_is_complete() -> None:
    named = set(re.findall(r"(?m)^\| `(docs/\w+\.md)` \|", README))
    assert named == {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
