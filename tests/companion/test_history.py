"""``companion history`` and ``companion restore``: the versions of a profile on the command line."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from companion.cli import make_app
from companion.profile_lines import text_of
from companion.store import SqliteStore
from tests.real.redis.redis_server import RedisServer

pytestmark = pytest.mark.integration
LINES = [f"Fact {number}: x" for number in range(20)]


@pytest.fixture
def home(home: Path) -> Path:
    """A profile of twenty lines that was then wiped."""

    async def fill() -> None:
        store = SqliteStore(home / "companion.db")
        await store.save_profile("ada", text_of(LINES), author="tool")
        await store.save_profile("ada", text_of([*LINES[:1], "Likes: tea"]))
        await store.acknowledge(await store.pending_changes_of("ada", ["profile"]))
        await store.close()

    asyncio.run(fill())
    return home


def companion(*arguments: str) -> Result:
    return CliRunner().invoke(make_app("0", lambda: None), arguments)


async def profile_and_pending(home: Path) -> tuple[str | None, int]:
    store = SqliteStore(home / "companion.db")
    try:
        return await store.get_profile("ada"), len(await store.pending_changes())
    finally:
        await store.close()


def test_a_wiped_profile_is_restored(home: Path, redis_server: RedisServer) -> None:
    shown = companion("history", "ada")
    assert shown.exit_code == 0
    newest, oldest = re.findall(r"(?m)^(\d+)  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  (\w+)$", shown.stdout)
    assert (newest[1], oldest[1]) == ("code", "tool")
    assert "\n    - Fact 19: x\n    + Likes: tea\n" in shown.stdout
    redis_server.cli("SET", "user:ada:profile", "Likes: tea")
    restored = companion("restore", "ada", oldest[0])
    assert restored.stdout == f"Version {oldest[0]} is the profile of ada again.\n"
    assert asyncio.run(profile_and_pending(home)) == (text_of(LINES), 0)
    assert redis_server.cli("EXISTS", "user:ada:profile") == 0
    assert "  restore\n" in companion("history", "ada").stdout


def test_without_the_cache_a_worker_is_left_to_invalidate(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("CACHE_CONNECT_WAIT_MS", "100")
    assert companion("restore", "ada", "1").exit_code == 0
    assert asyncio.run(profile_and_pending(home)) == (text_of(LINES), 1)


def test_what_cannot_be_restored_is_said_in_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = companion("restore", "bea", "1")
    assert (refused.exit_code, refused.stderr) == (1, "companion: there is no version 1 of bea\n")
    assert companion("history", "bea").stdout == "No version of bea is kept.\n"
    monkeypatch.setenv("SUPABASE_URL", "https://abc.supabase.co")
    refused = companion("history", "ada")
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert refused.stderr.startswith("companion: SUPABASE_URL is set but")


def test_a_store_that_cannot_be_read_is_said_in_one_line(home: Path) -> None:
    for file in home.iterdir():
        file.unlink()
    (home / "companion.db").mkdir()
    refused = companion("history", "ada")
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert refused.stderr.startswith("companion: profile_versions failed: ")


def test_a_profile_does_not_control_the_terminal(home: Path) -> None:
    async def fill() -> None:
        store = SqliteStore(home / "companion.db")
        await store.save_profile("eve", "Name: \x1b[2J\x1b]0;root\x07Eve\u202e\x9b\tü")
        await store.close()

    asyncio.run(fill())
    shown = companion("history", "eve").stdout
    assert "    + Name: \ufffd[2J\ufffd]0;root\ufffdEve\ufffd\ufffd\ufffdü\n" in shown
    assert all(char.isprintable() or char == "\n" for char in shown)
