"""Error messages of the worker's commands for missing settings."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.console.leftovers import working_in
from tests.real.models.openai_server import OpenAIServer

pytestmark = pytest.mark.console
AGENT = str(Path(__file__).parents[2] / "agent.py")
SCRIPT = (AGENT, "start")
MODULE = ("-m", "livekit.agents", "start", AGENT)


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """An empty directory, so that no .env is found."""
    return tmp_path


async def run(cwd: Path, *arguments: str, **env: str) -> tuple[int, str]:
    """Run Python and return its exit code and output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=cwd,
        env={**os.environ, **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_what_is_half_set_is_named_in_one_line(nowhere: Path) -> None:
    commands = (SCRIPT, MODULE)
    for code, output in await asyncio.gather(
        *(run(nowhere, *command, SUPABASE_URL="https://abc.supabase.co") for command in commands)
    ):
        assert code == 1
        assert output.startswith("companion: SUPABASE_URL is set but SUPABASE_SECRET_KEY")
        assert output.count("\n") == 1, output


async def test_a_model_that_the_server_does_not_know_is_named_before_anything_starts(nowhere: Path) -> None:
    async with OpenAIServer([], models=["llama3.2"]) as server:
        code, output = await run(nowhere, AGENT, "console", "--text", OPENAI_BASE_URL=server.base_url)
    assert code == 1
    assert output.startswith(f"companion: COMPANION_LLM: {server.base_url} has no model 'gpt-4.1-mini' (HTTP 404: "), (
        output
    )
    assert output.endswith("It has: llama3.2. Set COMPANION_LLM to one of them.\n")
    assert output.count("\n") == 1


async def test_a_worker_without_livekit_says_what_it_needs(nowhere: Path) -> None:
    commands = (SCRIPT, (AGENT, "dev"))
    for _, output in await asyncio.gather(*(run(nowhere, *command) for command in commands)):
        assert "LIVEKIT_URL" in output
    assert working_in(nowhere / "home") == []
