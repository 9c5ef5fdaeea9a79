"""The worker: one AgentServer, its entrypoint, and the command line. Wiring only.

python agent.py console --text    talk in this terminal
python agent.py dev               a worker for your LiveKit project, for development
python agent.py start             the same, for production
"""

from __future__ import annotations

import asyncio
import sys
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from multiprocessing import parent_process
from typing import Any

from livekit.agents import (
    NOT_GIVEN,
    AgentServer,
    AgentSession,
    CloseEvent,
    CloseReason,
    ConversationItemAddedEvent,
    FunctionToolsExecutedEvent,
    JobContext,
    cli,
    llm,
)
from livekit.agents.cli import AgentsConsole
from livekit.agents.log import logger as livekit_logger
from livekit.agents.utils import is_dev_mode, log_exceptions
from livekit.agents.voice.room_io import RoomOptions

from cache import BackgroundTasks
from companion import Caller, use_caller
from companion import __name__ as companion_package
from companion.conversation.participant import CallerSearch, Link
from companion.conversation.turn_log import TurnLog
from companion.conversation.wrap_up import TIMEOUT as WRAP_UP_TIMEOUT
from companion.conversation.wrap_up import end_conversation
from companion.identity import caller_from_metadata
from companion.runtime import acquire_runtime, get_runtime, release_runtime
from companion.settings import Settings, SettingsError, check_worker
from companion.voice.agent import CompanionAgent
from companion.voice.console import allow_text_without_portaudio, quiet_by_default, show, text_console
from companion.voice.failure import FailureHandler, end_call
from companion.voice.log_redaction import redact_handlers, redact_logs
from companion.voice.models import import_models, make_speech_models
from companion.voice.native_client import make_native_client
from companion.voice.tracing import StartTrace
from tools import CacheTools, ProfileTools
from tools import __name__ as tools_package

try:
    settings = Settings.load()
    if parent_process() is None:
        check_worker(sys.argv)
except SettingsError as problem:
    raise SystemExit(f"companion: {problem}") from None

import_models(settings)
quiet_by_default(sys.argv)
redact_logs()
START_TIMEOUT = 5.0
"""Seconds that the entrypoint waits until the first conversation has begun."""
server = AgentServer(
    setup_fnc=make_native_client,
    log_level="INFO",
    # The names of this installation (in a wheel they begin with livekit_companion): names of modules that do not exist
    # are ignored without a word.
    preload_modules=[
        f"{companion_package}.conversation.briefing",
        f"{companion_package}.conversation.wrap_up",
        f"{companion_package}.store.supabase.store",
        tools_package,
    ],
)


def runs_locally() -> bool:
    """Whether this is a console or a development worker: these may start a private Redis."""
    return AgentsConsole.get_instance().enabled or is_dev_mode() or "--dev" in sys.argv


@server.once("worker_started")
def start_worker_services() -> None:
    """Start, once per worker and in its main process, what all conversations share."""
    redact_handlers()
    runtime = get_runtime()
    runtime.write_behind.check_spool()
    if not AgentsConsole.get_instance().enabled:  # a console's only conversation starts them itself
        runtime.start_worker_services(local=runs_locally())


@dataclass(frozen=True, slots=True)
class Userdata:
    """The session's userdata, which the tools read."""

    link: Link

    @property
    def caller(self) -> Caller | None:
        """The caller; None if unknown, or if it is no longer who the conversation is with. Each tool call asks."""
        return self.link.known_caller


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """Hold the conversations of a room: one, and others if the caller leaves and another joins."""
    runtime = acquire_runtime()
    settings = runtime.settings
    trace = StartTrace()
    log: TurnLog | None = None
    model = runtime.acquire_model()
    search: CallerSearch | None = None
    conversing, wrap_ups, nobody = BackgroundTasks(), BackgroundTasks(), copy_context()

    async def converse(search: CallerSearch) -> None:
        """Begin the conversation with the participant who is there, or who joins next."""
        nonlocal log
        while (link := await (search.console() if console else search.next())) is not None:
            log = TurnLog(link.caller, runtime.write_behind)
            ctx._primary_agent_session = None  # this one is the job's session; LiveKit has no public way to say so
            session = await start_session(ctx, link, log, model, trace)
            if link.present and link.known_caller == link.caller:
                session.on("close", partial(on_close, search))
                return
            # The participant has left, or another has come, since they were looked at; no session waits for one who is
            # gone.
            await session.aclose()
            go_on()

    def begin(search: CallerSearch) -> asyncio.Task[None]:
        work = log_exceptions(logger=livekit_logger)(converse)(search)
        return conversing.spawn(work, name="conversation", context=nobody.copy())

    def on_close(search: CallerSearch, event: CloseEvent) -> None:
        if event.reason is CloseReason.PARTICIPANT_DISCONNECTED:
            go_on()
            begin(search)

    def go_on() -> None:
        nonlocal log
        wrap_ups.spawn(end_conversation(log), name="wrap-up")
        log = None

    async def end() -> None:
        trace.end()
        await conversing.cancel()
        if search is not None:
            search.cancel()
        try:
            await asyncio.gather(end_conversation(log), wrap_ups.ended(WRAP_UP_TIMEOUT))
        finally:
            await runtime.release_model(model)
            await release_runtime()

    ctx.add_shutdown_callback(end)
    console = ctx.is_fake_job()
    if console or runs_locally():
        await runtime.open_local_cache()
    if console:
        runtime.start_worker_services()
    runtime.outbox_relay.start()
    runtime.write_behind.spool_replay.start()

    named, caller = caller_from_metadata(ctx.job.metadata, settings.operators)
    if console and not named:
        named, caller = True, Caller(settings.console_user, operator=True)
    search = CallerSearch(ctx, settings, trace, named=named, caller=caller)
    with use_caller(caller), trace.phase("connect"):
        await ctx.connect()
    trace.mark("connected")
    # LiveKit waits for this function when it shuts a job down: it does not wait for a participant who may never come.
    begun = begin(search)
    await asyncio.wait({begun}, timeout=START_TIMEOUT)
    if begun.done():
        begun.result()


async def start_session(
    ctx: JobContext, link: Link, log: TurnLog, model: llm.LLM[Any], trace: StartTrace
) -> AgentSession[Userdata]:
    """Start the session of one conversation. It greets."""
    settings = get_runtime().settings
    speech = make_speech_models(settings)
    session = AgentSession(
        llm=model,
        stt=speech.stt or NOT_GIVEN,
        tts=speech.tts or NOT_GIVEN,
        userdata=Userdata(link),
        **speech.session_options,
    )
    # Without speech models the conversation is in text; an enabled audio output would swallow the greeting.
    hears, speaks = speech.stt is not None, speech.tts is not None
    if not hears:
        session.input.set_audio_enabled(False)
    if not speaks:
        session.output.set_audio_enabled(False)
    # No other participant may be linked and given this caller's briefing.
    options = RoomOptions(
        audio_input=hears, audio_output=speaks, participant_identity=link.identity if link.room else NOT_GIVEN
    )

    def keep(event: ConversationItemAddedEvent) -> None:
        if link.known_caller is not None:
            log.on_item(event)

    def mark(event: FunctionToolsExecutedEvent) -> None:
        if link.known_caller is not None:
            log.on_tools(event)

    session.on("conversation_item_added", keep)
    session.on("function_tools_executed", mark)
    if (terminal := text_console()) is not None:
        show(session, terminal)
    with use_caller(link.caller):
        agent = CompanionAgent(
            profile=link.briefing.profile,
            earlier=link.briefing.earlier,
            greeting=link.briefing.greeting,
            language=settings.language,
            timezone=settings.timezone,
            tools=[CacheTools(), ProfileTools()],
            knows=lambda: link.known_caller is not None,
            trace=trace,
            failure=FailureHandler(session, settings.language, partial(end_call, ctx)),
        )
        await session.start(agent=agent, room=ctx.room, room_options=options)
    link.prefetch.deliver_late_profile(agent)
    return session


def main() -> None:
    """Run LiveKit's command line with this worker."""
    allow_text_without_portaudio()
    cli.run_app(server)


if __name__ == "__main__":
    main()
