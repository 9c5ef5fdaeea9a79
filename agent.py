"""The worker: one AgentServer, its entrypoint, and the command line. Wiring only.

python agent.py console --text    talk in this terminal
python agent.py dev               a worker for your LiveKit project, for development
python agent.py start             the same, for production
"""

from __future__ import annotations

import sys
from functools import partial

from companion.console.start import begin, wants_text

if __name__ == "__main__":
    begin(sys.argv)  # something is on the screen before LiveKit is imported

from livekit.agents import AgentServer, JobContext, cli

from companion import __name__ as companion_package
from companion import attach, use_caller
from companion.prompts import GREETING
from companion.runtime import get_runtime
from companion.voice.agent import CompanionAgent
from companion.voice.closed_room import connect
from companion.voice.console import check_audio, log_level
from companion.voice.failure import FailureHandler, end_call
from companion.voice.models import close_models, make_session, speak
from companion.voice.native_client import make_native_client
from companion.voice.tracing import StartTrace
from companion.worker import hold_next, load_settings, start_worker_services
from tools import CacheTools, MemoryTools
from tools import __name__ as tools_package

settings = load_settings()
server = AgentServer(
    setup_fnc=make_native_client,
    log_level="INFO",
    # The names of this installation (in a wheel they begin with livekit_companion): names of modules that do not exist
    # are ignored without a word.
    preload_modules=[
        f"{companion_package}.conversation.attach",
        f"{companion_package}.store.supabase.store",
        tools_package,
    ],
)
server.once("worker_started")(start_worker_services)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """Hold one conversation, and another if the caller leaves the room and a participant joins."""
    trace, runtime = StartTrace(), get_runtime()
    settings, model = runtime.settings, runtime.acquire_model()
    session, options = make_session(settings, model)
    memory = session.userdata = await attach(session, ctx, link=True, trace=trace)  # tools find userdata.caller

    async def release() -> None:
        await memory.aclose()  # the end of a conversation speaks the next greeting
        await close_models(session.stt, session.tts)
        await runtime.release_model(model)

    ctx.add_shutdown_callback(release)
    memory.on_language(partial(speak, session, settings))
    hold_next(session, ctx, entrypoint)
    with use_caller(lambda: memory.caller):
        with trace.phase("connect"):
            if not await connect(ctx):
                return
        trace.mark("connected")
        agent = CompanionAgent(
            language=lambda: memory.language,
            timezone=settings.timezone,
            tools=[CacheTools(), MemoryTools()],
            trace=trace,
            failure=FailureHandler(session, lambda: memory.language, partial(end_call, ctx)),
        )
        await session.start(agent=agent, room=ctx.room, room_options=options)
    await memory.greet(GREETING)


def main() -> None:
    """Run the text console, or LiveKit's command line, with this worker."""
    if wants_text(sys.argv):
        from companion.console.talk import talk

        raise SystemExit(talk(entrypoint, log_level=log_level(sys.argv)))
    check_audio(sys.argv, settings)
    cli.run_app(server)


if __name__ == "__main__":
    main()
