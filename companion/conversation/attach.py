"""Gives any LiveKit session a memory of its caller.

::

    session = AgentSession(stt=..., llm=..., tts=..., tools=[MemoryTools()])
    memory = await attach(session, ctx)
    await session.start(agent=MyAgent(), room=ctx.room)
    await memory.greet("Greet the user.")  # instead of session.generate_reply

The session and its agents stay the program's own: ``userdata``, tools, ``llm_node`` and ``on_enter`` are not touched.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal
from weakref import ReferenceType, WeakKeyDictionary, ref

from livekit.agents import NOT_GIVEN, AgentSession, JobContext, NotGivenOr, llm
from livekit.agents.cli import AgentsConsole
from livekit.agents.utils import is_given

from ..identity import Beginning, Caller, caller_from_metadata, language_from_metadata, load_library
from ..runtime import Runtime, acquire_runtime, release_runtime
from ..settings import Settings
from ..speech import keep_private
from ..voice.console import runs_locally
from ..voice.native_client import make_native_client
from ..voice.tracing import StartTrace
from .participant import Partner
from .parts import Parts
from .session_memory import SessionMemory, memory_of

_EVENTS: Final[tuple[Literal["connection_state_changed", "participant_connected", "participant_disconnected"], ...]] = (
    "connection_state_changed",
    "participant_connected",
    "participant_disconnected",
)
_partners: WeakKeyDictionary[JobContext, ReferenceType[Partner]] = WeakKeyDictionary()  # a partner holds its job


async def attach(
    session: AgentSession[Any],
    ctx: JobContext | None = None,
    *,
    caller: NotGivenOr[Caller | None] = NOT_GIVEN,
    profile: bool = True,
    earlier: bool = True,
    turns: bool = True,
    opening: bool = True,
    wrap_up: bool = True,
    resume: bool = True,
    tasks: bool = False,
    link: bool = False,
    trace: StartTrace | None = None,
) -> SessionMemory:
    """Give a session a memory of its caller. To be called before ``session.start``; waits for no participant.

    Where a model may be a speech-to-speech one, it waits until it has read what is known of a caller who is named.

    The caller is whom the job's metadata names (``{"user_id": ...}``), else the participant to whom the session is
    linked; in the console, ``COMPANION_USER_ID``. The metadata may name their language too
    (``SessionMemory.language``). When another takes their place, nothing personal is read or written.

    Args:
        session: the session.
        ctx: the job. Without one, call ``SessionMemory.aclose`` when the session is closed.
        caller: the caller, where the program knows better than the metadata; None for a stranger.
        profile: give the model the caller's profile.
        earlier: give the model earlier conversations.
        turns: store what is said.
        opening: let ``greet`` open by what was said last: as a first meeting, a follow-up, after a dropped call.
        wrap_up: sum the conversation up when it has ended, count it, and prepare the next greeting.
        resume: go on with the conversation of a job in the same room that was killed: needs Redis.
        tasks: give both to an ``AgentTask`` as well.
        link: link the session to the participant whom the metadata names, if another came first.
        trace: the trace of the start.

    Returns:
        The memory.

    Raises:
        ValueError: the session has one already, and is not closed.
    """
    _refuse_second(session)
    runtime = acquire_runtime()
    try:
        if runtime.settings.phone_identity:
            await asyncio.to_thread(load_library)
        if ctx is not None:
            make_native_client(ctx.proc)  # a program's own server may run its jobs in threads
            await _open_services(runtime, ctx)
        _refuse_second(session)  # two calls at once
    except BaseException:  # also where the job ends meanwhile
        await release_runtime(runtime)
        raise
    runtime.outbox_relay.start()
    runtime.write_behind.spool_replay.start()
    language = "" if ctx is None else language_from_metadata(ctx.job.metadata)
    named, known = _named(ctx, runtime.settings) if not is_given(caller) else (True, caller)
    if known is not None:  # of one conversation: a program may give the same object for each
        known = replace(known, beginning=Beginning(), language=language or known.language)
    room = None if ctx is None or AgentsConsole.get_instance().enabled else ctx.room
    earlier_one = _partners.get(ctx) if ctx is not None and not is_given(caller) else None
    before = earlier_one() if earlier_one is not None else None
    find = partial(
        Partner,
        session,
        room,
        runtime.settings,
        caller=known,
        named=named,
        strict=before is not None and before.met,
        link=link,
        language=language,
    )
    parts = Parts(profile, earlier, turns, opening, wrap_up, resume and turns, tasks)
    place = "" if ctx is None or ctx.is_fake_job() else f"{ctx.job.room.sid or ctx.job.room.name}\0{ctx.job.agent_name}"
    memory = SessionMemory(
        session,
        runtime,
        parts,
        lambda on_change: find(on_change=on_change),
        place=place,
        caller=known,
        language="" if named else language,
        trace=trace,
    )
    its_memory = ref(memory)
    keep_private(session, lambda: "" if (found := its_memory()) is None else found.known.words)
    if ctx is not None:
        _partners[ctx] = ref(memory.partner)
        ctx.add_shutdown_callback(memory.aclose)
    if room is not None:
        for event in _EVENTS:
            room.on(event, memory.room_changed)
    if not isinstance(session.llm, llm.LLM):  # its own model, or an agent's, may be a realtime model:
        await memory.briefed()  # it receives the block when its agent starts, some once and for all
    return memory


def _refuse_second(session: AgentSession[Any]) -> None:
    memory = memory_of(session)
    if memory is not None and not memory.closed:
        raise ValueError("this session has a memory already")


def _named(ctx: JobContext | None, settings: Settings) -> tuple[bool, Caller | None]:
    """Whether the job names the caller, and the caller."""
    if ctx is None:
        return True, None
    named, caller = caller_from_metadata(ctx.job.metadata, settings.operators)
    if not named and ctx.is_fake_job():
        return True, Caller(settings.console_user, operator=True)
    return named, caller


async def _open_services(runtime: Runtime, ctx: JobContext) -> None:
    """Start what a worker has started elsewhere, where there is none."""
    if ctx.is_fake_job() or runs_locally():
        await runtime.open_local_cache()
    if ctx.is_fake_job():
        runtime.start_worker_services()
