"""What the console shows, and how it reads what is typed."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from io import BytesIO, TextIOWrapper

import pytest
from rich.text import Text

from companion.console import start
from companion.console.commands import command
from companion.console.log import hide_log, show_log
from companion.console.screen import Screen, render
from companion.console.start import HELP, begin, text_by_default, wants_text
from companion.console.typed import decode, encoding_of_input
from companion.console.value import Value, ms

pytestmark = pytest.mark.unit


class Output(TextIOWrapper):
    """Standard output of an encoding; a terminal where ``columns`` is set."""

    def __init__(self, encoding: str = "utf-8", *, terminal: bool = False) -> None:
        super().__init__(BytesIO(), encoding=encoding, errors="replace", write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def text(self) -> str:
        buffer = self.buffer
        assert isinstance(buffer, BytesIO)
        return buffer.getvalue().decode(self.encoding)


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Output]:
    """Replaces standard output, by that of a terminal of some columns where they are given."""

    def replace(encoding: str = "utf-8", columns: int = 0) -> Output:
        found = Output(encoding, terminal=columns > 0)
        monkeypatch.setattr(sys, "stdout", found)
        monkeypatch.setattr(start, "columns", lambda: columns or 80)
        monkeypatch.setenv("TERM", "xterm-256color")
        return found

    return replace


async def shown(show: Callable[[Screen], None]) -> None:
    screen = Screen(prompted=False)
    show(screen)
    await screen.close()


async def test_nothing_that_is_said_moves_the_cursor(output: Callable[..., Output]) -> None:
    found = output()
    await shown(lambda screen: screen.companion("a\x1b[2Jb\x07\x9bc\td\r\ne \ud83d f\x00"))
    assert found.text == "● a[2Jbc    d\n  e ? f\n"


async def test_blocks_hang_below_their_marks(output: Callable[..., Output]) -> None:
    found = output(columns=20)
    await shown(lambda screen: screen.companion("(An aside.)\nThis is what is said, and 漢字漢字漢字漢字漢字漢字 too."))
    plain = found.text.replace("\x1b[2m", "").replace("\x1b[32m", "").replace("\x1b[0m", "")
    assert plain.splitlines() == [
        "● (An aside.)",
        "  This is what is",
        "  said, and",
        "  漢字漢字漢字漢字",
        "  漢字漢字 too.",
    ]


async def test_what_is_not_complete_is_above_the_prompt(output: Callable[..., Output]) -> None:
    output(columns=20)
    screen = Screen(prompted=False)
    assert screen.unfinished() == []
    screen.growing("Once upon a time, there was \x1b[31m")
    assert screen.unfinished() == ["● Once upon a time,", "  there was [31m"]
    screen.growing(" ".join(["Once"] * 40))
    assert screen.unfinished() == ["  Once Once Once"] * 3 + ["  Once"], "not more than fits"
    screen.growing("")
    assert screen.unfinished() == []
    await screen.close()


async def test_a_tool_call_is_one_line(output: Callable[..., Output], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    found = output(columns=40)
    await shown(
        lambda screen: screen.tool("getStats", "{}", '{"status": "healthy", "keys": [1, 2], "more": "and more"}')
    )
    await shown(
        lambda screen: screen.tool("remember", '{"fact": "two\\nlines"}', '{"success": true, "message": "Yes."}')
    )
    await shown(lambda screen: screen.tool("broken", "{", "no JSON"))
    assert found.text.splitlines() == [
        "  ⚙ getStats → status: healthy, keys: …",
        "  ⚙ remember fact: two · lines → Yes.",
        "  ⚙ broken { → no JSON",
    ]


def test_an_encoding_without_the_signs_gets_others(output: Callable[..., Output]) -> None:
    output("ascii", columns=40)
    assert render(Text("● "), Text("“café” … it’s"), styled=False) == '* "café" ... it\'s\n'
    output("iso8859-1", columns=40)
    assert render(Text("● "), Text("café"), styled=False) == "* café\n"


async def test_a_log_line_is_one_line_without_a_traceback(output: Callable[..., Output]) -> None:
    found = output()
    screen = Screen(prompted=False)
    root = logging.getLogger()
    before = root.level
    log = show_log(screen, "WARNING")
    try:
        logger = logging.getLogger("companion")
        logger.info("not shown")
        for _ in range(2):  # by the caches of two loops
            logger.warning("Redis is away")
        try:
            raise ValueError("a secret")
        except ValueError:
            logger.exception("it failed")
    finally:
        hide_log(log)
        root.setLevel(before)
    await screen.close()
    assert found.text == "  Redis is away\n  it failed (ValueError)\n"


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("/help", ("help", "")),
        ("/who  Ada Lovelace ", ("who", "Ada Lovelace")),
        ("/?", ("?", "")),
        ("/etc/hosts is a file", None),
        ("/ what", None),
        ("what is /help", None),
        ("//", None),
    ],
)
def test_a_command_is_a_word_behind_a_slash(line: str, given: tuple[str, str] | None) -> None:
    assert command(line) == given


def test_what_is_no_utf_8_is_latin_1(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decode("naïve 漢字".encode()) == "naïve 漢字"
    assert decode("naïve".encode("latin-1") + "漢".encode()) == "naïve漢"
    assert decode(b"\xe6\xbc") == "æ¼"
    for encoding, used in (("ascii", "utf-8"), ("no-such", "utf-8"), ("cp1252", "cp1252"), (None, "utf-8")):
        monkeypatch.setattr(sys, "stdin", type("Input", (), {"encoding": encoding})())
        assert encoding_of_input() == used


@pytest.mark.parametrize("words", [["console", "--help"], ["console", "--text", "--help"]])
def test_its_help_is_its_own(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        begin(["agent.py", *words])
    assert ended.value.code == 0
    assert capsys.readouterr().out == HELP


def test_which_command_line_is_the_text_console() -> None:
    assert [
        wants_text(["agent.py", *words]) for words in (["console", "--text"], ["console"], ["dev", "--text"], [])
    ] == [
        True,
        False,
        False,
        False,
    ]
    assert not wants_text(["agent.py", "console", "--text", "--help"])
    assert not wants_text(["__main__.py", "console", "agent.py", "--connect-addr", "127.0.0.1:1"])  # lk agent console
    assert text_by_default(["companion", "console"]) == ["companion", "console", "--text"]
    assert text_by_default(["companion", "console", "--audio", "--record"]) == ["companion", "console", "--record"]
    for same in (
        ["companion"],
        ["companion", "console", "--text"],
        ["companion", "console", "--help"],
        ["companion", "dev"],
    ):
        assert text_by_default(same) == same
    begin(["companion", "console", "--record"])  # audio, in which that is an option
    with pytest.raises(SystemExit, match="not '--recrod'"):
        begin(["companion", "console", "--text", "--log-level", "--text", "--recrod"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Value(False, 0.83, 41.2, known=True), "knew you in 0.8 ms from the cache (the store: 41 ms)"),
        (Value(False, 0.83, None, known=True), "knew you in 0.8 ms from the cache: the store does not answer"),
        (Value(True, 0.83, 41.2, known=True), "knew you in 41 ms from the store (the cache: 0.8 ms now)"),
        (
            Value(True, None, 1041.2, known=True, connected=False),
            "knew you in 1,041 ms from the store: the cache does not answer",
        ),
        (Value(True, None, 0.3, known=True), "knew you in 0.3 ms from the store: the cache has no copy yet"),
        (Value(True, 0.8, 5, known=False), "knew nothing of you yet: asked the store in 5.0 ms"),
        (Value(False, None, None, known=False), "knew nothing of you yet: asked the cache"),
    ],
)
def test_the_value_says_what_came_from_where(value: Value, text: str) -> None:
    assert str(value) == text


def test_milliseconds_have_the_digits_that_mean_something() -> None:
    assert [ms(each) for each in (0.04, 9.94, 9.96, 1064.7)] == ["0.0 ms", "9.9 ms", "10 ms", "1,065 ms"]


async def test_a_screen_whose_loop_is_closed_shows_nothing_more(output: Callable[..., Output]) -> None:
    output()
    screens: list[Screen] = []

    async def make() -> None:
        screens.append(Screen(prompted=False))
        await screens[0].close()

    await asyncio.to_thread(asyncio.run, make())
    screens[0].warning("a line of the very end")
