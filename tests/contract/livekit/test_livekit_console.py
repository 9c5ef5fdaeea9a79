"""The behaviour of LiveKit's console and command line that the companion depends on. See docs/upgrading.md."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import Any

import livekit.agents.__main__
import pytest
import typer
from livekit.agents import Agent, AgentServer, AgentSession, SpeechCreatedEvent
from livekit.agents.cli import AgentsConsole, _legacy
from livekit.agents.cli.discover import get_import_data
from livekit.agents.utils import is_dev_mode
from livekit.agents.voice import SpeechHandle, io

from tests.contract.livekit.livekit_stand_in import SOON, PlayedLLM

pytestmark = pytest.mark.console


class Sink(io.TextOutput):
    """Keeps the texts that are complete."""

    def __init__(self) -> None:
        super().__init__(label="test", next_in_chain=None)
        self.pieces: list[str] = []
        self.texts: list[str] = []

    async def capture_text(self, text: str) -> None:
        self.pieces.append(text)

    def flush(self) -> None:
        self.texts.append("".join(self.pieces).strip())
        self.pieces.clear()


class Console(AgentsConsole):
    """Takes every session, as ``companion.console.conversation`` does."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self.enabled, self.console_mode, self.sink = True, "text", sink
        self.taken: list[AgentSession[Any]] = []

    @property
    def io_acquired(self) -> bool:
        return False

    def acquire_io(self, *, loop: asyncio.AbstractEventLoop, session: AgentSession[Any]) -> None:
        assert loop is asyncio.get_running_loop()
        session.input.audio = session.output.audio = None
        session.output.transcription = self.sink
        self.taken.append(session)


def _keep(speeches: list[SpeechHandle], event: SpeechCreatedEvent) -> None:
    speeches.append(event.speech_handle)


async def test_a_console_takes_each_session_and_gets_its_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """``companion.console.talk`` makes itself LiveKit's console, as LiveKit's own do.

    ``companion.console.conversation``: a session asks it for input and output before it starts, also a second one; a
    room that it is given is not used; each text comes in pieces, and is flushed when it is complete.
    """
    sink = Sink()
    console = Console(sink)
    monkeypatch.setattr(AgentsConsole, "_instance", console)  # private: how a console makes itself known
    for number in (1, 2):
        session: AgentSession[Any] = AgentSession(llm=PlayedLLM(), vad=None, turn_handling={"turn_detection": None})
        speeches: list[SpeechHandle] = []
        session.on("speech_created", partial(_keep, speeches))
        async with asyncio.timeout(SOON), session:
            await session.start(Agent(instructions="-"), room=object())  # type: ignore[arg-type] # is not touched
            await session.run(user_input=f"hello {number}")
            await session.say("Goodbye.", allow_interruptions=False).wait_for_playout()
            await session.interrupt(force=True)  # with nothing to interrupt
        assert console.taken[-1] is session
        assert [speech.done() for speech in speeches] == [True, True]
        with pytest.raises(RuntimeError):
            await session.run(user_input="are you there?")
    assert sink.texts == ["You said hello 1.", "Goodbye.", "You said hello 2.", "Goodbye."]


def test_a_program_that_is_no_console_has_none_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """``companion.voice.console`` (``runs_locally``) calls ``get_instance()`` in every worker: none is enabled."""
    monkeypatch.setattr(AgentsConsole, "_instance", None)  # private: other tests of this process may have made one
    assert AgentsConsole.get_instance().enabled is False
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
    audio = {"--text", "--log-level", "--list-devices", "--input-device", "--output-device"}
    assert audio <= options["console"]


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
