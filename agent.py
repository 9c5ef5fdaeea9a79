"""The worker: one AgentServer, its entrypoint, and the command line. Wiring only; nothing is decided here.

python agent.py console --text    talk in this terminal
python agent.py dev               a worker for your LiveKit project, for development
python agent.py start             the same, for production
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from multiprocessing import parent_process

from livekit.agents import NOT_GIVEN, AgentServer, AgentSession, JobContext, NotGivenOr, cli
from livekit.agents.cli import AgentsConsole
from livekit.agents.utils import is_dev_mode
from livekit.agents.voice.room_io import RoomOptions

from companion import Caller, use_caller
from companion import __name__ as companion_package
from companion.caching.listening import start_listening
from companion.conversation.briefing import BriefingOrder
from companion.conversation.participant import whoever_comes
from companion.conversation.turn_log import TurnLog
from companion.conversation.wrap_up import say_goodbye
from companion.identity import caller_from_metadata
from companion.runtime import get_runtime, leave_runtime
from companion.settings import Settings, SettingsError, check_worker
from companion.voice.agent import CompanionAgent
from companion.voice.console import allow_text_without_portaudio, quiet_by_default, show, text_console
from companion.voice.log_redaction import keep_logs_private
from companion.voice.models import import_models, make_voice
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
keep_logs_private()
server = AgentServer(
    setup_fnc=make_native_client,
    log_level="INFO",
    # The names of this installation (in a wheel they begin with livekit_companion): names of modules that do not exist
    # are ignored without a word.
    preload_modules=[companion_package, f"{companion_package}.store.supabase.store", tools_package],
)


def runs_locally() -> bool:
    """Whether this is a console or a worker for development, which may have a private Redis."""
    return AgentsConsole.get_instance().enabled or is_dev_mode() or "--dev" in sys.argv


@server.once("worker_started")
def listen_for_changes() -> None:
    """Once a worker, in its main process: what others change in the database, the cache forgets."""
    start_listening(settings, local=runs_locally())


@dataclass(frozen=True, slots=True)
class Userdata:
    """What the tools find in a session's userdata."""

    caller: Caller | None


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """One conversation."""
    runtime = get_runtime()
    settings = runtime.settings
    runtime.conversations += 1
    trace = StartTrace()
    turns: TurnLog | None = None
    model = runtime.model_for_conversation()

    async def end() -> None:
        trace.end()
        try:
            await say_goodbye(turns)
        finally:
            await runtime.done_with(model)
            await leave_runtime()

    ctx.add_shutdown_callback(end)
    console = ctx.is_fake_job()
    if console or runs_locally():
        await runtime.open_local_cache()
    runtime.outbox_relay.start()
    runtime.write_behind.spool_replay.start()

    named, caller = caller_from_metadata(ctx.job.metadata, settings.operators)
    if console and not named:
        named, caller = True, Caller(settings.console_user, operator=True)
    order = BriefingOrder(caller, trace) if named else None  # before the room is connected: it costs nothing there
    with use_caller(caller), trace.phase("connect"):
        await ctx.connect()
    trace.mark("connected")
    whom: NotGivenOr[str] = NOT_GIVEN
    if order is None:
        whom, caller, order = await whoever_comes(ctx, settings.operators, trace)

    turns = TurnLog(caller)
    voice = make_voice(settings)
    session = AgentSession(
        llm=model,
        stt=voice.stt or NOT_GIVEN,
        tts=voice.tts or NOT_GIVEN,
        userdata=Userdata(caller),
        **voice.session,
    )
    # Without a voice the conversation is in text; audio that nobody can make would silence the greeting.
    hears, speaks = voice.stt is not None, voice.tts is not None
    if not hears:
        session.input.set_audio_enabled(False)
    if not speaks:
        session.output.set_audio_enabled(False)
    # Where we looked who is there, nobody else may be given what was fetched for them.
    options = RoomOptions(audio_input=hears, audio_output=speaks, participant_identity=whom)
    session.on("conversation_item_added", turns.on_item)
    if (terminal := text_console()) is not None:
        show(session, terminal)
    briefing = await order.ready()
    with use_caller(caller):
        agent = CompanionAgent(
            profile=briefing.profile,
            earlier=briefing.earlier,
            greeting=briefing.greeting,
            language=settings.language,
            tools=[CacheTools(), ProfileTools()],
            trace=trace,
        )
        await session.start(agent=agent, room=ctx.room, room_options=options)


def main() -> None:
    """Run LiveKit's command line with this worker."""
    allow_text_without_portaudio()
    cli.run_app(server)


if __name__ == "__main__":
    main()
