"""Statements and examples of the README and of other pages are true."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jwt
import pytest
from livekit.agents import AgentServer, AgentSession, JobContext

from cache import close_redis_cache
from tests.documentation.pages import ROOT, block_with, text_of
from tests.real.redis.redis_server import RedisServer

pytestmark = pytest.mark.integration
README = text_of(ROOT / "README.md")


def test_the_readme_sets_up_talks_and_tests() -> None:
    assert re.findall(r"(?m)^\$ (.*?) +#", README)[:4] == [
        "sudo apt install make python3-venv",
        "make setup",
        "make console",
        "make test",
    ]
    assert len(README.splitlines()) <= 120, "a page of its own says it better"


def test_make_help_lists_the_two_commands() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "console" in shown
    assert "test" in shown


async def test_the_agent_in_ten_lines_can_call_the_tools() -> None:
    names: dict[str, object] = {}
    block = block_with("CacheTools()")
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
    (tmp_path / "mine.py").write_text(block_with("CacheTools()"))
    script = "import asyncio, sys, runpy\nasync def main(): runpy.run_path('mine.py')\n"
    script += "sys.path.insert(0, '')\nasyncio.run(main())\nassert 'companion' not in sys.modules"
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


async def test_the_cache_by_itself(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("CACHE_CONNECT_WAIT_MS", "5000")
    monkeypatch.setenv("CACHE_DEADLINE_MS", "2000")
    names: dict[str, object] = {}
    exec(block_with("get_or_load"), names)
    for _ in range(2):
        assert await names["preferences"]("7") == {"voice": "warm"}  # type: ignore[operator]  # as above
    assert 3420 <= redis_server.cli("TTL", "user:7:settings") <= 3600
    await close_redis_cache()


def test_the_token_of_the_readme_dispatches_the_agent_with_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_API_KEY", "key")
    monkeypatch.setenv("LIVEKIT_API_SECRET", "a secret of thirty-two characters")
    names: dict[str, object] = {}
    exec(block_with("RoomAgentDispatch"), names)
    claims = jwt.decode(str(names["token"]), "a secret of thirty-two characters", algorithms=["HS256"])
    (agent,) = claims["roomConfig"]["agents"]
    assert agent["agentName"] == "companion"
    assert json.loads(agent["metadata"]) == {"user_id": "123"}
    assert (claims["sub"], claims["video"]["room"]) == ("ada", "my-room")


@pytest.mark.parametrize("name", ["companion", ""])
def test_a_variable_names_the_worker_that_is_dispatched(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_AGENT_NAME", name)
    server = AgentServer()

    @server.rtc_session()
    async def entrypoint(ctx: JobContext) -> None: ...

    assert server._agent_name == name  # LiveKit's, which has no public way to read it
