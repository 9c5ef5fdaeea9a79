"""The console with microphone and loudspeaker says why it cannot start; and what a console shows of the log."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from companion.settings import Settings
from companion.voice.console import NO_AUDIO, NO_VOICE, check_audio, log_level, quiet_by_default
from tests.console.terminal import AGENT

pytestmark = pytest.mark.console
OFFLINE = Settings(home=Path(), models="offline")
OPENAI = Settings(home=Path(), models="openai")


def sounddevice(*missing: str) -> ModuleType:
    """A machine without devices of these kinds."""

    def query_devices(*, kind: str) -> dict[str, str]:
        os.write(2, b"ALSA lib confmisc.c: cannot find card '0'\n")
        if kind in missing:
            raise ValueError("no device")
        return {"name": kind}

    module = ModuleType("sounddevice")
    module.__dict__["query_devices"] = query_devices
    return module


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    return lambda *missing: monkeypatch.setitem(sys.modules, "sounddevice", sounddevice(*missing))


def test_without_portaudio_it_ends_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text('raise OSError("PortAudio library not found")\n')
    ran = subprocess.run(
        [sys.executable, AGENT, "console"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", f"companion: {NO_AUDIO}\n")


def test_without_a_model_that_speaks(machine: Callable[..., None]) -> None:
    machine()
    with pytest.raises(SystemExit, match="OPENAI_API_KEY") as ended:
        check_audio(["agent.py", "console"], OFFLINE)
    assert str(ended.value) == f"companion: {NO_VOICE}"


@pytest.mark.parametrize(("kind", "name"), [("input", "microphone"), ("output", "loudspeaker")])
def test_without_a_device(
    machine: Callable[..., None], capfd: pytest.CaptureFixture[str], kind: str, name: str
) -> None:
    machine(kind)
    with pytest.raises(SystemExit, match=rf"^companion: Talking aloud needs a {name}, and none was found. To type"):
        check_audio(["agent.py", "console"], OPENAI)
    check_audio(["agent.py", "console", f"--{kind}-device=2"], OPENAI)  # LiveKit looks for that one
    assert capfd.readouterr().err == "", "the library's own lines would be more than one"


def test_what_needs_no_sound_is_not_checked(machine: Callable[..., None]) -> None:
    machine("input", "output")
    for arguments in ([], ["start"], ["dev"], ["console", "--help"], ["console", "--list-devices"]):
        check_audio(["agent.py", *arguments], OFFLINE)
    machine()
    check_audio(["agent.py", "console"], OPENAI)


@pytest.mark.parametrize(
    ("arguments", "level", "quiet"),
    [
        (["console", "--text"], None, True),
        (["console"], "", True),
        (["console"], "DEBUG", False),
        (["console", "--log-level", "INFO"], None, False),
        (["console", "--log-level=INFO"], None, False),
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


def test_the_option_comes_before_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert log_level(["agent.py", "console"]) == "WARNING"
    monkeypatch.setenv("LIVEKIT_LOG_LEVEL", "trace")
    assert log_level(["agent.py", "console"]) == "DEBUG"
    assert log_level(["agent.py", "console", "--log-level", "ERROR"]) == "ERROR"
    with pytest.raises(SystemExit, match=r"^companion: the log level must be one of TRACE, .*, not 'LOUD'"):
        log_level(["agent.py", "console", "--log-level=loud"])
