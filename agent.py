"""The worker: one AgentServer, its entrypoint, and the command line. Wiring only.

python agent.py console --text    talk in this terminal
python agent.py dev               a worker for your LiveKit project, for development
python agent.py start             the same, for production
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from multiprocessing import parent_process

from livekit.agents import NOT_GIVEN, AgentServer, AgentSession, JobContext, NotGivenOr, cli
from livekit.agents.cli import AgentsConsole
from livekit.agents.utils import is_dev_mode
from livekit.agents.voice.room_io import RoomOptions

from companion import Caller, use_caller
from companion import __name__ as companion_package
from companion.conversation.briefing import Prefetch
from companion.conversation.participant import wait_for_participant
from companion.conversation.turn_log import TurnLog
from companion.conversation.wrap_up import end_conversation
from companion.identity import caller_from_metadata
from companion.runtime import acquire_runtime, get_runtime, release_runtime
from companion.settings import Settings, SettingsError, check_worker
from companion.voice.agent import CompanionAgent
from companion.voice.console import allow_text_without_portaudio, quiet_by_default, show, text_console
from companion.voice.failure import FailureHandler, end_call
from companion.voice.log_redaction import redact_logs
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
    runtime = get_runtime()
    runtime.write_behind.check_spool()
    if not AgentsConsole.get_instance().enabled:  # a console's only conversation starts them itself
        runtime.start_worker_services(local=runs_locally())


@dataclass(frozen=True, slots=True)
class Userdata:
    """The session's userdata, which the tools read."""

    caller: Caller | None


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """Hold one conversation."""
    runtime = acquire_runtime()
    settings = runtime.settings
    trace = StartTrace()
    log: TurnLog | None = None
    model = runtime.acquire_model()
    prefetch: Prefetch | None = None

    async def end() -> None:
        trace.end()
        if prefetch is not None:
            prefetch.cancel()
        try:
            await end_conversation(log)
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
    prefetch = Prefetch(caller, trace) if named else None  # it runs while the room is being connected
    with use_caller(caller), trace.phase("connect"):
        await ctx.connect()
    trace.mark("connected")
    identity: NotGivenOr[str] = NOT_GIVEN
    if prefetch is None:
        identity, caller, prefetch = await wait_for_participant(ctx, settings.operators, trace)

    log = TurnLog(caller, runtime.write_behind)
    speech = make_speech_models(settings)
    session = AgentSession(
        llm=model,
        stt=speech.stt or NOT_GIVEN,
        tts=speech.tts or NOT_GIVEN,
        userdata=Userdata(caller),
        **speech.session_options,
    )
    # Without speech models the conversation is in text; an enabled audio output would swallow the greeting.
    hears, speaks = speech.stt is not None, speech.tts is not None
    if not hears:
        session.input.set_audio_enabled(False)
    if not speaks:
        session.output.set_audio_enabled(False)
    # A caller identified by the participant: no other participant may be linked and given this caller's briefing.
    options = RoomOptions(audio_input=hears, audio_output=speaks, participant_identity=identity)
    session.on("conversation_item_added", log.on_item)
    if (terminal := text_console()) is not None:
        show(session, terminal)
    briefing = await prefetch.result()
    with use_caller(caller):
        agent = CompanionAgent(
            profile=briefing.profile,
            earlier=briefing.earlier,
            greeting=briefing.greeting,
            language=settings.language,
            timezone=settings.timezone,
            tools=[CacheTools(), ProfileTools()],
            trace=trace,
            failure=FailureHandler(session, settings.language, partial(end_call, ctx)),
        )
        await session.start(agent=agent, room=ctx.room, room_options=options)
    prefetch.deliver_late_profile(agent)


def main() -> None:
    """Run LiveKit's command line with this worker."""
    allow_text_without_portaudio()
    cli.run_app(server)


if __name__ == "__main__":
    main()
