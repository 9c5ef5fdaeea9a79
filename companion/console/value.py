"""What the cache was worth in this run: how long it took to know the person, and from where, as measured."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

from cache import get_redis_cache

from ..conversation.opening.greeting import read_plan
from ..conversation.session_memory import SessionMemory
from ..identity import Caller, use_caller
from ..memory.context import get_conversation_summary_async, get_user_state_async
from ..memory.profile import get_user_profile_async
from ..runtime import get_runtime
from ..store import StoreError
from .conversation import Conversation


@dataclass(frozen=True, slots=True)
class Value:
    """What was measured.

    Attributes:
        lookup_ms: from the first question to the last answer about the person, at the start of the conversation or now.
        asked_store: whether the store had to be asked in that time.
        other_ms: what the other way takes: the store if the cache knew, the cache if the store was asked. None if that
            way is closed.
        known: whether anything is known of the person.
        cached: whether there is a cache.
    """

    lookup_ms: float
    asked_store: bool
    other_ms: float | None
    known: bool
    cached: bool

    def __str__(self) -> str:
        took = ms(self.lookup_ms)
        if not self.known:
            return f"knew nothing of you yet: asked in {took}"
        if not self.asked_store:
            other = "" if self.other_ms is None else f" (the store: {ms(self.other_ms)})"
            return f"knew you in {took} from the cache{other}"
        if not self.cached:
            return f"knew you in {took} from the store: there is no cache"
        other = "" if self.other_ms is None else f" (from the cache it is {ms(self.other_ms)} now)"
        return f"knew you in {took} from the store{other}"


async def value_of_start(conversation: Conversation) -> Value | None:
    """What the start of a conversation took, and beside it the other way, measured now. To be called in its job.

    Returns:
        None where the caller is unknown, or the lookup has not ended.
    """
    memory = conversation.memory
    caller, moments = memory.caller, memory.moments
    begun, ended = moments.get("lookup started"), moments.get("context ready")
    if caller is None or begun is None or ended is None:
        return None
    # The runtime is the conversation's own: what it has read, it has read for this start.
    return await _beside(memory, caller, (ended - begun) * 1000, asked_store=get_runtime().contexts.reads > 0)


async def value_now(conversation: Conversation) -> Value | None:
    """What the lookup of a start takes now, and beside it the other way. To be called in the conversation's job."""
    memory = conversation.memory
    if (caller := memory.caller) is None:
        return None
    lookup_ms, asked_store = await _lookup(caller)
    return await _beside(memory, caller, lookup_ms, asked_store=asked_store)


async def _beside(memory: SessionMemory, caller: Caller, lookup_ms: float, *, asked_store: bool) -> Value:
    cached = bool((await (await get_redis_cache()).get_stats()).get("connected"))
    other_ms: float | None = None
    if not asked_store:
        begun = perf_counter()
        with suppress(StoreError):
            await get_runtime().store.context(caller.user_id)
            other_ms = (perf_counter() - begun) * 1000
    elif cached:
        again_ms, asked_again = await _lookup(caller)
        other_ms = None if asked_again else again_ms
    return Value(lookup_ms, asked_store, other_ms, known=bool(memory.known.words), cached=cached)


async def _lookup(caller: Caller) -> tuple[float, bool]:
    """Read what a conversation starts with: how many milliseconds it took, and whether the store was asked."""
    contexts = get_runtime().contexts
    before, begun = contexts.reads, perf_counter()
    with use_caller(caller):
        await asyncio.gather(
            get_user_profile_async(),
            read_plan(caller.user_id),
            get_conversation_summary_async(),
            get_user_state_async(),
        )
    return (perf_counter() - begun) * 1000, contexts.reads > before


def ms(milliseconds: float) -> str:
    """Milliseconds with the digits that mean something: 0.8 ms, 41 ms, 1,065 ms."""
    return f"{milliseconds:.1f} ms" if milliseconds < 9.95 else f"{milliseconds:,.0f} ms"
