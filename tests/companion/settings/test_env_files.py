"""``.env.local`` and ``.env`` become the environment, whatever editor wrote them; what cannot be read is named."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from companion.settings import Settings, SettingsError

pytestmark = pytest.mark.unit
NAMES = ("COMPANION_LANGUAGE", "COMPANION_USER_ID", "COMPANION_TIMEZONE", "OPENAI_API_KEY", "LIVEKIT_URL")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an environment that is restored."""
    for name in NAMES:
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded() -> tuple[str, str]:
    settings = Settings.load()
    return settings.language, settings.console_user


def test_the_local_file_wins_and_the_environment_over_both(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env.local").write_text("COMPANION_LANGUAGE=de\nCOMPANION_USER_ID=\n")
    (folder / ".env").write_text("COMPANION_LANGUAGE=fr\nCOMPANION_USER_ID=ada\nCOMPANION_TIMEZONE=Europe/Oslo\n")
    monkeypatch.setenv("COMPANION_TIMEZONE", "Europe/Rome")
    assert loaded() == ("de", "ada")
    assert str(Settings.load().timezone) == "Europe/Rome"


@pytest.mark.parametrize("empty", ["", " ", "\t\n"])
def test_an_empty_variable_hides_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    (folder / ".env").write_text("COMPANION_LANGUAGE=de\nLIVEKIT_URL=wss://a.livekit.cloud\n")
    monkeypatch.setenv("COMPANION_LANGUAGE", empty)
    monkeypatch.setenv("LIVEKIT_URL", empty)
    assert loaded()[0] == "de"
    assert os.environ["LIVEKIT_URL"] == "wss://a.livekit.cloud", "LiveKit reads it itself"


def test_reading_files_can_be_turned_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("COMPANION_LANGUAGE=de\n")
    monkeypatch.setenv("PYTHON_DOTENV_DISABLED", "1")
    assert loaded()[0] == "en"


def test_the_nearest_of_each_file_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    (folder / ".env").write_text("COMPANION_LANGUAGE=de\n")
    (folder / "a" / ".env.local").write_text("COMPANION_USER_ID=ada\n")
    (inner / ".env").mkdir()  # as a virtual environment may be called
    monkeypatch.chdir(inner)
    assert loaded() == ("de", "ada")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_what_editors_write(folder: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for end in ("\n", "\r\n", "\r"):
        for mark in ("", '"', "'"):
            lines = (
                f"COMPANION_LANGUAGE={mark}de{mark}",
                "# a comment",
                f"export COMPANION_USER_ID = {mark}Zoë{mark} ",
            )
            (folder / ".env").write_bytes("".join(f"{line}{end}" for line in lines).encode(encoding))
            assert loaded() == ("de", "~=Zo=c3=ab")
            for name in NAMES:
                monkeypatch.delenv(name, raising=False)


def test_a_pipe_as_a_secrets_manager_serves_it(folder: Path) -> None:
    os.mkfifo(folder / ".env")
    writer = threading.Thread(target=(folder / ".env").write_text, args=("COMPANION_LANGUAGE=de\n",))
    writer.start()
    assert loaded()[0] == "de"
    writer.join()


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"COMPANION_LANGUAGE=de\nCOMPANION_USER_ID=\xff\xe9\n", r"\.env, line 2: this is not UTF-8"),
        (b'OPENAI_API_KEY="s3cret\n', r"\.env, line 1: .* quotation mark"),
        (b"A=b\nOPENAI_API_KEY='s3cret\n", r"\.env, line 2: .* quotation mark"),
        (b'A="\nCOMPANION_LANGUAGE=de', r"^$"),  # a line about another program's variable
        (b"COMPANION_LANGUAGE=de\n\0\0", "null character"),
        (b"COMPANION_LANGUAGE=d\0e", "null character"),
        (b"#" * (1 << 20) + b"\nCOMPANION_LANGUAGE=de\n", "a megabyte"),
        (b"OPENAI_API_KEY=\xe2\x80\x9cs3cret\xe2\x80\x9d\n", "OPENAI_API_KEY .* quotation mark"),
        ("OPENAI_API_KEY=s3cr\u200bet\n".encode(), r"OPENAI_API_KEY .* U\+200B \(ZERO WIDTH SPACE\) at position 5"),
    ],
)
def test_what_cannot_be_read_is_named(folder: Path, content: bytes, names: str) -> None:
    (folder / ".env").write_bytes(content)
    if names == "^$":
        assert loaded()[0] == "de"
        return
    with pytest.raises(SettingsError, match=names) as problem:
        Settings.load()
    assert "\n" not in str(problem.value)
    assert "s3c" not in str(problem.value)


def test_a_file_that_may_not_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("COMPANION_LANGUAGE=de\n")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)  # root may read everything
    with pytest.raises(SettingsError, match=r"\.env cannot be read: Permission denied"):
        Settings.load()
