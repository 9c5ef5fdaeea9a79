"""What asyncio logs of tasks, futures and callbacks holds nothing that they hold."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel

from companion.voice.asyncio_lines import without_values
from companion.voice.log_redaction import redact_logs
from tests.tools.conversation import conversation

pytestmark = pytest.mark.unit
SAID = "Xanthippe"


class Answer(BaseModel):
    number: int


class Quoting:
    """Its repr has the form of asyncio's own lines."""

    def __repr__(self) -> str:
        return f"{SAID}> created at {SAID}\ntask: <{SAID} ({SAID})\n    {SAID}\nname='{SAID}'"


@pytest.fixture
async def slow(caplog: pytest.LogCaptureFixture) -> asyncio.AbstractEventLoop:
    """The loop in debug mode, where every step is slow."""
    redact_logs()
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    return loop


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The lines of asyncio so far, as a handler formats them. In the end none of them holds what was said."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Handler()
    logging.getLogger("asyncio").addHandler(handler)
    yield lines
    logging.getLogger("asyncio").removeHandler(handler)
    assert lines
    assert SAID not in "\n".join(lines)
    assert SAID not in caplog.text


async def says(value: Any) -> Any:
    time.sleep(0.002)  # noqa: ASYNC251  # the slow step
    return value


def hears(*_: Any) -> None:
    time.sleep(0.002)


VALUES = [
    f"{SAID} likes (tea)",
    {"profile": [f"Name: {SAID}"]},
    f"' created at {SAID}.py:3> took 0.1 seconds",
    Quoting(),
    ValueError(SAID),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
async def test_of_a_slow_step_the_coroutine_and_the_place(
    slow: asyncio.AbstractEventLoop, lines: list[str], value: Any
) -> None:
    assert await asyncio.create_task(says(value), name="what-was-said") is value
    line = next(line for line in lines if "what-was-said" in line)
    assert line.startswith("Executing <Task finished name='what-was-said' coro=<says() done, defined at ")
    assert f"{__file__}:" in line
    assert " ... created at /" in line
    assert line.endswith(" seconds")


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
async def test_of_a_slow_callback_its_name(slow: asyncio.AbstractEventLoop, lines: list[str], value: Any) -> None:
    future = slow.create_future()
    future.add_done_callback(hears)
    future.add_done_callback(partial(hears, value))
    slow.call_soon(future.set_result, value)
    slow.call_soon(hears, value)
    slow.call_soon(partial(hears, value, text=value))
    slow.call_later(0.001, hears, value)
    await future
    await asyncio.sleep(0.02)
    assert any("Executing <Handle hears ..." in line and line.endswith(" seconds") for line in lines)
    assert any("Executing <TimerHandle when=" in line for line in lines)


async def test_of_a_task_that_waits_what_it_is(slow: asyncio.AbstractEventLoop, lines: list[str]) -> None:
    inner = slow.create_future()
    waits = asyncio.create_task(asyncio.wait_for(inner, 5))
    waits.add_done_callback(partial(hears, SAID))
    await asyncio.sleep(0)
    slow.call_exception_handler({"message": "Task was destroyed but it is pending!", "task": waits, "said": SAID})
    inner.set_result(SAID)
    await waits
    (line,) = (line for line in lines if "destroyed" in line)
    assert "\nsaid: ...\ntask: <Task pending name=" in line


@pytest.mark.parametrize("debug", [False, True])
async def test_of_an_exception_that_is_never_retrieved_its_class(
    slow: asyncio.AbstractEventLoop, lines: list[str], debug: bool
) -> None:
    slow.set_debug(debug)

    async def fails() -> None:
        try:
            Answer.model_validate({"number": SAID})
        except ValueError as problem:
            raise RuntimeError(f"{SAID}\n{SAID}") from problem

    for failing in (fails(), _raises(KeyError(SAID)), _raises(ExceptionGroup(SAID, [ValueError(SAID)]))):
        task = asyncio.create_task(failing)
        await asyncio.wait({task})
        del task
    gc.collect()
    text = "\n".join(lines)
    assert text.count("Task exception was never retrieved") == 3
    assert "RuntimeError\n" in text
    assert "KeyError" in text
    assert "ValidationError: int_parsing" in text
    assert f'{__file__}", line ' in text
    assert "raise RuntimeError(" in text
    assert ("source_traceback: Object created at" in text) is debug


async def _raises(problem: BaseException) -> None:
    raise problem


async def test_of_a_callback_that_fails_its_name(slow: asyncio.AbstractEventLoop, lines: list[str]) -> None:
    def fails(said: str) -> None:
        raise ValueError(said)

    slow.call_soon(fails, SAID)
    await asyncio.sleep(0.01)
    (line,) = (line for line in lines if "Exception in callback" in line)
    assert "fails ..." in line
    assert "\nhandle: <Handle " in line
    assert line.endswith("ValueError")


async def test_a_conversation_in_debug_mode(slow: asyncio.AbstractEventLoop, lines: list[str]) -> None:
    async with conversation() as talk:
        await talk.session.run(user_input=f"I am {SAID}")
    assert sum("Executing <Task" in line for line in lines) > 10


def test_what_has_no_values_stays() -> None:
    for line in ("Using selector: EpollSelector", "poll 999.120 ms took 1.000 ms: 1 events"):
        assert without_values(line) == line
