"""What a worker process does before and beside its conversations."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from multiprocessing import parent_process
from typing import Any

from livekit.agents import AgentSession, CloseEvent, CloseReason, JobContext
from livekit.agents.cli import AgentsConsole
from livekit.agents.log import logger
from livekit.agents.utils import log_exceptions

from cache import BackgroundTasks

from .identity import load_library
from .runtime import Runtime, get_runtime
from .settings import Settings, SettingsError, check_worker, holds_conversations
from .voice.closed_room import quiet_closed_rooms
from .voice.console import quiet_by_default, runs_locally
from .voice.log_redaction import redact_handlers, redact_logs
from .voice.models import import_models
from .voice.prepared_speech import speak_phrases
from .voice.start_check.check import check_at_start


def load_settings() -> Settings:
    """Load the settings, and prepare models and logs for them. To be called at program start, on the main thread.

    Raises:
        SystemExit: a setting is missing or unusable, or a provider refuses a model; the line says which.
    """
    starting = parent_process() is None and holds_conversations(sys.argv)
    try:
        settings = Settings.load_with_home() if starting else Settings.load()
        if starting:
            check_worker(sys.argv)
    except SettingsError as problem:
        raise SystemExit(f"companion: {problem}") from None
    import_models(settings)
    if starting:
        check_at_start(settings, sys.argv)
    if settings.phone_identity:
        load_library()
    quiet_by_default(sys.argv)
    redact_logs()
    quiet_closed_rooms()
    return settings


def hold_next(session: AgentSession[Any], ctx: JobContext, entrypoint: Callable[[JobContext], Awaitable[None]]) -> None:
    """Call ``entrypoint`` again when the caller has left the room, and a participant has joined it after that."""
    others, without_caller = BackgroundTasks(), copy_context()
    ctx.add_shutdown_callback(lambda: others.cancel())

    @log_exceptions(logger=logger)
    async def wait_and_hold() -> None:
        try:
            await ctx.wait_for_participant()
        except RuntimeError:  # the room has closed
            if ctx.room.isconnected():
                raise
            return
        await session.aclose()  # returns when it has closed: the room has handlers for one session at a time
        ctx._primary_agent_session = None  # the next one is the job's session; LiveKit has no public way to say so
        await entrypoint(ctx)

    def on_close(event: CloseEvent) -> None:
        if event.reason is CloseReason.PARTICIPANT_DISCONNECTED:
            others.spawn(wait_and_hold(), name="next-caller", context=without_caller.copy())

    session.on("close", on_close)


def start_worker_services() -> None:
    """Start, once per worker and in its main process, what all conversations share."""
    redact_handlers()
    runtime = get_runtime()
    runtime.in_background(asyncio.to_thread(runtime.spool.check), name="spool-check")
    if not AgentsConsole.get_instance().enabled:  # a console's only conversation starts them itself
        opened = runtime.start_worker_services(local=runs_locally())
        runtime.in_background(_speak_phrases(runtime, opened), name="speak-phrases")


async def _speak_phrases(runtime: Runtime, opened: asyncio.Task[None] | None) -> None:
    """Speak what everybody may hear first, as soon as there is a cache that keeps it."""
    if opened is not None:
        await asyncio.wait({opened})
    await speak_phrases(runtime.settings)
