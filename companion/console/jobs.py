"""The jobs of the console: an ordinary server gives each conversation one, with the worker's entrypoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final, TypeVar

from livekit.agents import AgentServer, AgentSession, JobContext, JobExecutorType
from livekit.agents.cli import AgentsConsole

from ..runtime import Runtime, close_runtime, get_runtime, set_runtime
from ..settings import Settings
from ..store import StoreError
from ..voice.native_client import make_native_client
from ..worker import start_worker_services
from . import start
from .commands import said_before
from .conversation import Conversation, Ended, NotSaid, TextConsole
from .screen import Screen
from .value import value_of_start

T = TypeVar("T")
Entrypoint = Callable[[JobContext], Awaitable[None]]
_TIMEOUT: Final = 15.0
"""Seconds that the end of a job may take: LiveKit gives it ten, and then ends it."""
_POLL: Final = 0.02


class CannotStart(Exception):
    """The server of the console does not start; the text says why."""


class Jobs:
    """Holds one conversation after the other.

    Args:
        entrypoint: holds each conversation.
        screen: shows what is said.
        recall: is given what the person said in earlier conversations, the oldest first, when one has begun.
        failed: called with the reason where a conversation does not begin, or ends although the person has not left.

    Attributes:
        user: whose the next conversation is.
        left: whether the person has left: no greeting is waited for any more.
    """

    def __init__(
        self,
        entrypoint: Entrypoint,
        screen: Screen,
        failed: Callable[[str], None],
        recall: Callable[[Sequence[str]], None],
    ) -> None:
        self.user = Settings.from_env().console_user
        self.left = asyncio.Event()
        self._entrypoint, self._screen, self._failed, self._recall = entrypoint, screen, failed, recall
        self._loop = asyncio.get_running_loop()
        self._conversation: Conversation | None = None
        self._changed = asyncio.Event()  # a conversation has greeted, or ended
        self._greeted = False
        self._server = AgentServer(
            setup_fnc=make_native_client, job_executor_type=JobExecutorType.THREAD, host="127.0.0.1", port=0
        )
        self._server.rtc_session(self._hold)
        AgentsConsole._instance = TextConsole(self._take)  # as LiveKit's own consoles make themselves known

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The server runs in the ``with`` block.

        Raises:
            CannotStart: it does not.
        """
        started = asyncio.Event()
        self._server.once("worker_started")(started.set)
        set_runtime(Runtime())
        try:
            # Here, not in a job: the private Redis outlives each of the conversations.
            await get_runtime().open_local_cache()
            start_worker_services()
            run = asyncio.create_task(self._server.run(devmode=True, unregistered=True), name="console-server")
            try:
                await _first(started.wait(), run)
                if not started.is_set():
                    raise CannotStart(f"the console cannot start: {run.exception()}")
                yield
            finally:
                await self._server.aclose()
                with suppress(Exception):  # it has been said
                    await run
        finally:
            await close_runtime()

    async def begin(self) -> None:
        """Begin a conversation, and wait for its greeting and for what the cache was worth."""
        await self._gone()
        self._greeted = False
        self._changed.clear()
        await self._server.simulate_job("console", fake_job=True, agent_identity="companion")
        await _first(self._changed.wait(), self.left.wait())
        if self._greeted and (conversation := self._conversation) is not None:
            with suppress(Ended, StoreError):
                value = await self._do(conversation, value_of_start)
                self._recall(await self._do(conversation, said_before))
                if value is not None:
                    self._screen.note(str(value))

    async def do(self, work: Callable[[Conversation], Coroutine[Any, Any, T]]) -> T:
        """Do something in the conversation's job; in a new one, where the last has ended.

        Raises:
            Ended: the conversation has ended meanwhile, or none can begin.
        """
        if (conversation := self._conversation) is not None:
            with suppress(NotSaid):
                return await self._do(conversation, work)
        await self.begin()
        if self._conversation is None:
            raise Ended
        return await self._do(self._conversation, work)

    def interrupt(self) -> None:
        """Stop the present answer. Returns at once."""
        if (conversation := self._conversation) is not None:
            asyncio.ensure_future(conversation.run(conversation.interrupt)).add_done_callback(_retrieve)

    async def end(self, *, farewell: bool) -> None:
        """End the conversation, if there is one, and wait until what was said is kept."""
        said = False
        if (conversation := self._conversation) is not None:
            with suppress(Ended, TimeoutError):
                async with asyncio.timeout(_TIMEOUT):
                    said = await self._do(conversation, lambda one: one.leave(farewell=farewell))
        if farewell and not said:
            self._screen.companion(start.GOODBYE)
        await self._gone()

    async def _do(self, conversation: Conversation, work: Callable[[Conversation], Coroutine[Any, Any, T]]) -> T:
        doing = asyncio.ensure_future(conversation.run(lambda: work(conversation)))
        await _first(doing, conversation.over.wait())
        if not doing.done():
            doing.cancel()
            raise Ended
        return doing.result()

    async def _gone(self) -> None:
        """Wait until no job runs."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_TIMEOUT):
                while self._server.active_jobs:  # noqa: ASYNC110 - the server has no event for it
                    await asyncio.sleep(_POLL)
        self._conversation = None

    # -- in a job's thread, and what it reports ----------------------------------------------------------------------

    async def _hold(self, ctx: JobContext) -> None:
        set_runtime(Runtime(replace(Settings.from_env(), console_user=self.user)))
        try:
            await self._entrypoint(ctx)
            if (conversation := self._conversation) is not None:
                await conversation.greeted()
        except Exception as problem:
            self._loop.call_soon_threadsafe(self._on_failed, f"the conversation could not begin: {problem}.")
            ctx.shutdown("it could not begin")
            return
        self._loop.call_soon_threadsafe(self._on_greeted)

    def _take(self, session: AgentSession[Any]) -> None:
        def ended(conversation: Conversation, left: bool) -> None:
            self._loop.call_soon_threadsafe(self._on_ended, conversation, left)

        self._conversation = Conversation(session, self._screen, ended)

    def _on_greeted(self) -> None:
        self._greeted = True
        self._changed.set()

    def _on_failed(self, reason: str) -> None:
        if self._conversation is not None:
            self._conversation.over.set()
        self._failed(reason)
        self._changed.set()

    def _on_ended(self, conversation: Conversation, left: bool) -> None:
        said = conversation.over.is_set()
        conversation.over.set()
        if conversation is self._conversation:
            self._conversation = None
        self._changed.set()
        if not (left or said):
            self._failed("This conversation has ended.")


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


async def _first(*awaited: Awaitable[Any]) -> None:
    """Wait for the first of several; what is no task yet is cancelled with it."""
    tasks = [asyncio.ensure_future(each) for each in awaited]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each, task in zip(awaited, tasks, strict=True):
            if each is not task:
                task.cancel()
