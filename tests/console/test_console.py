"""The text console in a real terminal, without configuration."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from cache.embedded import redis_answers
from companion.console.start import GOODBYE, TITLE
from companion.console.talk import KEEPING
from companion.offline.replies import NOTICE
from companion.phrases import goodbye
from companion.store import SqliteStore
from companion.voice.failure import apology
from tests.console.conftest import Open
from tests.console.leftovers import working_in
from tests.console.terminal import AGENT, CTRL_C, CTRL_D, READY, Terminal
from tests.real.models.openai_server import OpenAIServer, Reply

pytestmark = pytest.mark.console
NO_LIVEKIT = """
import sys, time
print("modules", sorted({"rich", "prompt_toolkit", "typer", "redis"} & set(sys.modules)), flush=True)
time.sleep(60)
"""
COLOUR = re.compile(rb"\x1b\[[\d;]*?(?:3[0-7]|4[0-7]|9[0-7]|38|48)[\d;]*m")


def turns(home: Path, user: str) -> list[tuple[str, str]]:
    async def read() -> list[tuple[str, str]]:
        store = SqliteStore(home / "companion.db")
        try:
            return [(turn.role, turn.text) for turn in await store.recent_turns(user, 100)]
        finally:
            await store.close()

    return asyncio.run(read())


def last_words(console: Terminal) -> str:
    """The last line, but for what a slow machine's console waits for."""
    return console.screen.rstrip().removesuffix(f"\n  {KEEPING}").splitlines()[-1]


def said_by_user(home: Path, user: str) -> list[str]:
    return [text for role, text in turns(home, user) if role == "user"]


@pytest.fixture
def slow_livekit(tmp_path: Path) -> str:
    """A PYTHONPATH on which LiveKit says what was imported before it, and takes for ever."""
    (tmp_path / "slow" / "livekit").mkdir(parents=True)
    (tmp_path / "slow" / "livekit" / "__init__.py").write_text(NO_LIVEKIT)
    return str(tmp_path / "slow")


def test_a_line_is_on_the_screen_before_anything_is_imported(terminal: Open, slow_livekit: str) -> None:
    console = terminal(PYTHONPATH=slow_livekit)
    console.wait_for("modules []")
    assert console.words.startswith(TITLE)
    console.press(CTRL_C)
    assert console.end() == 0
    assert console.screen.strip().endswith(GOODBYE)
    assert console.modes == console.usual
    assert b"Traceback" not in console.everything


def test_a_first_and_a_second_conversation(terminal: Open, user: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = terminal()
    first.wait_for(TITLE)
    # Typed ahead: whole lines, a byte of Latin-1, and a line that is not finished yet.
    first.press(b"My name is Ada\rI live in Orl\xe9ans\rcache st")
    first.wait_for("What is your name?")
    assert NOTICE in first.screen
    first.wait_for("Nice to meet you, Ada.")
    first.wait_for(f"{READY}cache st\n")
    assert first.screen.index(f"{READY}My name is Ada") < first.screen.index(f"{READY}I live in Orléans")
    if not asyncio.run(redis_answers()):
        assert len(working_in(home)) >= 2, "a private redis-server and its supervisor"
    first.press("ats\r")
    first.wait_for("The cache is healthy")
    (call,) = [line for line in first.screen.splitlines() if "getRedisCacheStats" in line]
    assert re.search(r"⚙ getRedisCacheStats .*→ enabled: true, connected: true", call)
    assert re.search(r"\n  knew nothing of you yet: asked the store in \d+(\.\d)? ms\n", first.screen)

    first.press("\x1b[A")  # arrow up: the last line again
    first.wait_for(f"{READY}cache stats\n  ⚙")  # in the conversation
    first.wait_for(f"\n{READY}cache stats\n\n\n")  # and at the prompt
    first.press(CTRL_C)  # clears it
    first.press("\x1b[200~My sister\nvisits on Friday\x1b[201~\r" + CTRL_C)  # one message, and no answer
    first.wait_for("❯ My sister\n  visits on Friday\n")
    first.press(CTRL_D)
    assert first.end() == 0, first.screen
    assert last_words(first) == f"● {goodbye('en')}"
    assert not re.search(rb"DEBUG|INFO|WARN|ERROR|Traceback|Exception|Deprecated", first.everything)
    assert first.modes == first.usual
    assert working_in(home) == []
    assert said_by_user(home, user) == [
        "My name is Ada",
        "I live in Orléans",
        "cache stats",
        "My sister\nvisits on Friday",
    ]

    # In a small window, then in a larger one, of an old terminal without colour.
    second = terminal(columns=40, lines=30, NO_COLOR="1", LANG="C", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    second.wait_for("Welcome back, Ada!")
    assert "cut off" not in second.words
    second.wait_for("knew you in")
    assert re.search(r"knew you in [\d.,]+ ms from the (cache|store)", second.words)
    second.wait_for("\n>\n")
    second.press("\x1b[A")  # arrow up: what was said in the conversation before
    second.wait_for("\n> My sister\n  visits on Friday\n")
    second.press(CTRL_C + "/help\r")
    second.wait_for("Ctrl-C stops an answer, or leaves.")
    assert "  /export FILE  the same, into a file\n" in second.screen, "nothing wraps in 40 columns"
    second.press("/forget\r")
    second.wait_for("Type yes to erase it. >")
    second.press(CTRL_C)  # is no
    second.wait_for("Nothing was erased.")
    second.press("/trace\r")
    second.wait_for("ms  context ready")
    second.press("a line that is longer than the small window was, which had forty columns")
    second.wait_for("ich had forty columns")
    second.resize(100, 50)
    second.wait_for("\n> a line that is longer than the small window was, which had forty columns\n")
    second.press(CTRL_C + CTRL_C)  # the line; the console
    assert second.end() == 0, second.screen
    assert last_words(second) == f"* {goodbye('en')}"
    assert not COLOUR.search(second.everything)
    assert working_in(home) == []


def test_a_model_that_fails_is_apologised_for_and_the_console_stays(terminal: Open, user: str) -> None:
    down: list[bool] = []

    def answer(body: dict[str, Any]) -> Reply | str:
        if body["messages"][-1].get("content") == "Tell me a long story":
            return Reply.silent()
        return Reply.error(401) if down else "Hello."

    server = OpenAIServer(answer).start_in_thread()
    try:
        console = terminal(OPENAI_API_KEY="test", OPENAI_BASE_URL=server.base_url)
        console.wait_for("● Hello.")
        console.say("Tell me a long story")
        console.press("Are you there?\r")
        console.wait_for("… +1")
        console.press(CTRL_C)  # stops the answer; what waits is answered
        console.wait_for("Are you there? ● Hello.")
        down.append(True)
        console.say("Still there?")
        console.wait_for(apology("en"))
        assert console.screen.count(apology("en")) == 1
        assert "the model failed (APIStatusError: status 401" in console.screen
        console.wait_for("The next line begins another")
        down.clear()
        console.say("And now?")  # which does not go to a shell
        console.wait_for("● Hello.", times=4)  # it is greeted anew, and answered
        console.press(CTRL_D)
        assert console.end() == 0, console.screen
    finally:
        server.stop()
    assert b"Traceback" not in console.everything


def test_what_was_typed_ahead_of_a_failed_start_goes_to_no_shell(terminal: Open, slow_livekit: str) -> None:
    """Neither is it executed there, nor is the terminal left without an echo."""
    Path(slow_livekit, "livekit", "__init__.py").write_text(
        "import sys\nprint('reading', file=sys.stderr)\ninput()\n1 / 0"
    )
    shell = f'{sys.executable} {AGENT} console --text; echo ended with $?; read line; echo "[$line]"'
    console = terminal("-c", f"import os; os.execv('/bin/sh', ['sh', '-c', {shell!r}])", PYTHONPATH=slow_livekit)
    console.wait_for("reading")
    console.press("first\rrm -rf everything\r")
    console.wait_for("ended with 1")
    console.press("safe\r")
    console.wait_for("[safe]")
    assert console.end() == 0


def test_an_option_of_another_console_is_named(terminal: Open) -> None:
    console = terminal(str(AGENT), "console", "--text", "--record")
    assert console.end() == 1
    assert console.screen.strip() == "companion: a console in text has the option --log-level, and not '--record'"
