"""The behaviour of LiveKit's console and command line that the companion depends on. See docs/upgrading.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import termios
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import livekit.agents.__main__
import pexpect
import pytest
import typer
from livekit.agents import AgentServer
from livekit.agents.cli import AgentsConsole, _legacy
from livekit.agents.cli.discover import get_import_data
from livekit.agents.utils import is_dev_mode
from pexpect.fdpexpect import fdspawn

pytestmark = pytest.mark.console
ROOT = Path(__file__).parents[3]
SOON = 30
"""Seconds after which a test gives up."""
# The terminal must become the session's own, or Ctrl-C would not reach it.
ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@dataclass
class Conversation:
    """What the probe found in the console, and all that the terminal showed."""

    found: dict[str, Any]
    shown: str
    code: int


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Conversation:
    """One conversation with ``console_probe`` in a real terminal: it greets, we say something, it answers."""
    found = tmp_path_factory.mktemp("console") / "found.json"
    keyboard, inside = os.openpty()
    termios.tcsetwinsize(inside, (50, 100))
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, "-m", "tests.contract.livekit.console_probe", "console", "--text"],
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm-256color", "CONTRACT_FOUND": str(found), "LIVEKIT_LOG_LEVEL": "WARN"},
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
    )
    os.close(inside)
    terminal = fdspawn(keyboard, timeout=SOON, encoding="utf-8")
    shown = terminal.logfile_read = StringIO()
    try:
        terminal.expect("Type to talk to your agent")
        terminal.expect(pexpect.TIMEOUT, timeout=0.5)  # what would be shown of the greeting
        terminal.send("hello\r")
        terminal.expect("THE-ANSWER")
        terminal.expect("Type to talk to your agent")
        for _ in range(5):  # one that comes before the console reads keys again is lost
            terminal.send("\x03")
            if terminal.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=SOON / 5) == 0:
                break
        return Conversation(json.loads(found.read_text()), shown.getvalue(), process.wait(SOON))
    finally:
        process.kill()
        process.wait()
        terminal.close()


def test_a_text_console_has_a_mode_and_a_rich_terminal(talk: Conversation) -> None:
    """``companion.voice.console`` (``text_console``): reads ``enabled``, ``console_mode`` and ``console``.

    Without one of them the greeting and the tools' results would not be shown.
    """
    assert (talk.found["enabled"], talk.found["mode"], talk.found["terminal"]) == (True, "text", True)


def test_the_console_runs_a_fake_job_in_dev_mode(talk: Conversation) -> None:
    """``companion.conversation.attach`` (``is_fake_job``): a console may start a private Redis."""
    assert (talk.found["fake"], talk.found["dev"]) == (True, True)


def test_the_console_does_not_show_the_greeting(talk: Conversation) -> None:
    """``companion.voice.console`` (``show``) prints the greeting; otherwise it would appear twice."""
    assert "THE-GREETING" in str(talk.found["said"])
    assert "THE-ANSWER" in talk.shown
    assert "THE-GREETING" not in talk.shown


def test_a_text_console_does_not_use_sounddevice(talk: Conversation) -> None:
    """``companion.voice.console`` (``allow_text_without_portaudio``): the module is imported, not used.

    The probe's stand-in raises on use, as on a machine without PortAudio.
    """
    assert "sounddevice was used" not in talk.shown
    assert "PortAudio" not in talk.shown


def test_the_log_level_of_the_environment_wins(talk: Conversation) -> None:
    """``companion.voice.console`` (``quiet_by_default``) hides the log by this variable."""
    assert talk.found["level"] == "WARNING"


def test_the_console_ends_by_ctrl_c(talk: Conversation) -> None:
    """``companion.voice.console``: shutdown callbacks run on the way out."""
    assert talk.code == 0


def test_a_program_that_is_no_console_has_none_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """``companion.voice.console`` (``runs_locally``) calls ``get_instance()`` in every worker: none is enabled."""
    monkeypatch.setattr(AgentsConsole, "_instance", None)  # other tests of this process may have made one
    console = AgentsConsole.get_instance()
    assert console.enabled is False
    assert console.console_mode == "audio"
    assert not is_dev_mode()


def test_the_command_line_has_these_commands_and_options() -> None:
    """``companion.settings`` (``check_worker``) and ``companion.voice.console`` search ``sys.argv`` for these.

    A renamed option would not be recognised.
    """
    command: Any = typer.main.get_command(_legacy._build_cli(AgentServer()))
    options = {name: {word for one in sub.params for word in one.opts} for name, sub in command.commands.items()}
    server_options = {"--url", "--api-key", "--api-secret", "--log-level"}
    for name in ("start", "dev", "connect"):
        assert server_options <= options[name]
    assert {"--text", "--log-level", "--record", "--list-devices"} <= options["console"]


def test_the_module_has_a_start_with_dev(capsys: pytest.CaptureFixture[str]) -> None:
    """``companion.voice.console`` (``runs_locally``): development mode is known by this option in ``sys.argv``."""
    with pytest.raises(SystemExit, match="0"):
        livekit.agents.__main__.main(["start", "--help"])
    assert "--dev" in capsys.readouterr().out


def test_a_server_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``agent`` (``server``): ``python -m livekit.agents start agent.py`` finds the module's ``server``."""
    program = tmp_path / "contract_program.py"
    program.write_text("from livekit.agents import AgentServer\nserver = AgentServer()\n")
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    found = get_import_data(path=program)
    assert found.app_name == "server"
