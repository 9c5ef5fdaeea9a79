"""One conversation of the console: a job with the worker's entrypoint, in a thread and an event loop of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
from collections.abc import Callable, Coroutine
from contextlib import suppress
from time import perf_counter
from typing import Any, Final, TypeVar

from livekit.agents import (
    AgentSession,
    FunctionToolsExecutedEvent,
    JobContext,
    RunResult,
    SpeechCreatedEvent,
    get_job_context,
)
from livekit.agents.cli import AgentsConsole
from livekit.agents.voice import SpeechHandle, io

from ..conversation.session_memory import SessionMemory, memory_of
from ..phrases import goodbye, is_farewell
from .screen import Screen

T = TypeVar("T")
_GOODBYE_TIMEOUT: Final = 2.0
_GREETING_TIMEOUT: Final = 30.0
_LEFT: Final = "the person has left"


class Ended(Exception):
    """The conversation has ended, and cannot do what it was asked."""


class NotSaid(Ended):
    """The conversation had ended before the person's line came."""


class Conversation:
    """What the console sees of one session. Its coroutines are the job's: :meth:`run` runs them there.

    Args:
        session: the session, which is about to start.
        screen: shows what is said.
        ended: called when the job ends, with whether it is because the person has left.
    """

    def __init__(self, session: AgentSession[Any], screen: Screen, ended: Callable[[Conversation, bool], None]) -> None:
        self.session = session
        self.ctx: JobContext = get_job_context()
        self.over = asyncio.Event()
        """Whether the job has ended; the console sets it, in its own loop."""
        self.answer_seconds = 0.0
        """How long the last answer took, to its end."""
        self.calls: list[tuple[str, str, str]] = []
        """Name, arguments and output of the tool calls of the last answer."""
        self._screen = screen
        self._speech: SpeechHandle | None = None
        self._loop, self._context = asyncio.get_running_loop(), contextvars.copy_context()
        session.input.audio = session.output.audio = None
        session.output.transcription = _Sink(screen)
        session.on("function_tools_executed", self._on_tools)
        session.on("speech_created", self._on_speech)

        async def on_end(reason: str) -> None:
            ended(self, reason == _LEFT)

        self.ctx.add_shutdown_callback(on_end)

    @property
    def memory(self) -> SessionMemory:
        """What the session knows of its caller."""
        memory = memory_of(self.session)
        if memory is None:
            raise Ended
        return memory

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``work`` in the job, from another loop.

        Raises:
            Ended: the job has ended meanwhile.
        """
        outcome: concurrent.futures.Future[T] = concurrent.futures.Future()

        def finish(task: asyncio.Task[T]) -> None:
            with suppress(concurrent.futures.InvalidStateError):  # it is awaited no more
                if task.cancelled():
                    outcome.set_exception(Ended())
                elif (problem := task.exception()) is not None:
                    outcome.set_exception(problem)
                else:
                    outcome.set_result(task.result())

        def begin() -> None:
            self._loop.create_task(work(), name="console", context=self._context).add_done_callback(finish)

        try:
            self._loop.call_soon_threadsafe(begin)
        except RuntimeError:  # it is closed
            raise Ended from None
        return await asyncio.wrap_future(outcome)

    async def greeted(self) -> None:
        """Wait until the greeting has been said, if there is one. In the job, after the entrypoint."""
        if (speech := self._speech) is not None:
            await asyncio.wait({asyncio.ensure_future(speech.wait_for_playout())}, timeout=_GREETING_TIMEOUT)

    async def answer(self, text: str) -> None:
        """Say ``text`` as the person, and wait for the answer. In the job.

        Raises:
            NotSaid: the session is closed, or is closing.
        """
        begun = perf_counter()
        try:
            answering: RunResult[Any] = self.session.run(user_input=text)
        except RuntimeError as problem:
            raise NotSaid from problem
        self.calls.clear()
        await answering
        self.answer_seconds = perf_counter() - begun

    async def interrupt(self) -> None:
        """Stop the present answer. In the job."""
        with suppress(RuntimeError):
            await self.session.interrupt(force=True)

    async def leave(self, *, farewell: bool) -> bool:
        """End the conversation because the person wants to, and say goodbye. In the job; the rest follows.

        The goodbye is a turn like any other, by which the next conversation knows that this one was not cut off. Where
        the person has said goodbye and was answered, the answer is one.

        Returns:
            Whether goodbye was said.
        """
        said = self._answered_farewell()
        await self.interrupt()
        if farewell and not said:
            with suppress(RuntimeError, Ended):
                speech = self.session.say(goodbye(self.memory.language), allow_interruptions=False)
                await asyncio.wait({asyncio.ensure_future(speech.wait_for_playout())}, timeout=_GOODBYE_TIMEOUT)
                said = True
        self.ctx.shutdown(_LEFT)
        return said

    def _answered_farewell(self) -> bool:
        turns = self.session.history.messages()
        last = next((turn for turn in reversed(turns) if turn.role == "user"), None)
        return last is not None and turns[-1] is not last and is_farewell(last.text_content or "")

    def _on_speech(self, event: SpeechCreatedEvent) -> None:
        self._speech = event.speech_handle

    def _on_tools(self, event: FunctionToolsExecutedEvent) -> None:
        for call, output in event.zipped():
            outcome = output.output if output is not None else ""
            self.calls.append((call.name, call.arguments, outcome))
            self._screen.tool(call.name, call.arguments, outcome)


class _Sink(io.TextOutput):
    """Where the session's texts go: shows each as it grows, and when it is complete."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(label="Companion console", next_in_chain=None)
        self._screen = screen
        self._text = ""

    async def capture_text(self, text: str) -> None:
        self._text += text
        self._screen.growing(self._text)

    def flush(self) -> None:
        text, self._text = self._text.strip(), ""
        self._screen.growing("")
        if text:
            self._screen.companion(text)


class TextConsole(AgentsConsole):
    """The console that LiveKit's sessions find in this process: takes each of them, for text alone.

    Args:
        take: is given each session before it starts, in its job.
    """

    def __init__(self, take: Callable[[AgentSession[Any]], None]) -> None:
        super().__init__()
        self.enabled, self.console_mode = True, "text"
        self._take = take

    @property
    def io_acquired(self) -> bool:
        """No session keeps the next one from being shown: it has ended by then."""
        return False

    def acquire_io(self, *, loop: asyncio.AbstractEventLoop, session: AgentSession[Any]) -> None:
        """See :class:`AgentsConsole`."""
        self._take(session)
