"""What the cache is worth in this run: from where the person was known, and what each way takes, as measured.

A start does much else at the same moment, and shows in ``/trace`` when it knew the person. So both ways are measured
right after it: the same reads once more, from the cache, and from the store.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

from cache import get_redis_cache

from ..conversation.briefing import reads
from ..identity import Caller, use_caller
from ..runtime import get_runtime
from ..store import StoreError
from .conversation import Conversation


@dataclass(frozen=True, slots=True)
class Value:
    """What was measured.

    Attributes:
        asked_store: whether the store was asked, because the cache did not know all of it.
        cache_ms: what the reads take from the cache; None where it does not have them.
        store_ms: what they take from the store; None where it does not answer.
        known: whether anything is known of the person.
        connected: whether the cache answers; where it does, it may lack what has just been changed.
    """

    asked_store: bool
    cache_ms: float | None
    store_ms: float | None
    known: bool
    connected: bool = True

    def __str__(self) -> str:
        first, other = ("store", "cache") if self.asked_store else ("cache", "store")
        took, besides = (self.store_ms, self.cache_ms) if self.asked_store else (self.cache_ms, self.store_ms)
        within = "" if took is None else f" in {ms(took)}"
        if not self.known:
            return f"knew nothing of you yet: asked the {first}{within}"
        if besides is None and self.asked_store and self.connected:
            return f"knew you{within} from the store: the cache has no copy yet"
        if besides is None:
            return f"knew you{within} from the {first}: the {other} does not answer"
        return f"knew you{within} from the {first} (the {other}: {ms(besides)}{' now' if self.asked_store else ''})"


async def value_of_start(conversation: Conversation) -> Value | None:
    """Where the start of a conversation knew the person from, and what that takes. To be called in its job.

    Returns:
        None where the caller is unknown.
    """
    # The runtime is the conversation's own: what it has read, it has read for this start.
    return await _value(conversation, asked_store=get_runtime().contexts.reads > 0)


async def value_now(conversation: Conversation) -> Value | None:
    """Where a start would know the person from now, and what that takes. To be called in the conversation's job."""
    return await _value(conversation, asked_store=None)


async def _value(conversation: Conversation, *, asked_store: bool | None) -> Value | None:
    memory = conversation.memory
    if (caller := memory.caller) is None:
        return None
    cache_ms, asked_now = await _lookup(caller)
    connected = not asked_now or bool((await (await get_redis_cache()).get_stats()).get("connected"))
    if asked_now and connected:
        cache_ms, asked_again = await _lookup(caller)  # which has it by now
    else:
        asked_again = asked_now
    store_ms: float | None = None
    begun = perf_counter()
    with suppress(StoreError):
        await get_runtime().store.context(caller.user_id)
        store_ms = (perf_counter() - begun) * 1000
    return Value(
        asked_store=asked_now if asked_store is None else asked_store,
        cache_ms=None if asked_again else cache_ms,
        store_ms=store_ms,
        known=bool(memory.known.words),
        connected=connected,
    )


async def _lookup(caller: Caller) -> tuple[float, bool]:
    """Read what a conversation starts with: how many milliseconds it took, and whether the store was asked."""
    contexts = get_runtime().contexts
    before, begun = contexts.reads, perf_counter()
    with use_caller(caller):
        await asyncio.gather(*reads(caller.user_id).values())
    return (perf_counter() - begun) * 1000, contexts.reads > before


def ms(milliseconds: float) -> str:
    """Milliseconds with the digits that mean something: 0.8 ms, 41 ms, 1,065 ms."""
    return f"{milliseconds:.1f} ms" if milliseconds < 9.95 else f"{milliseconds:,.0f} ms"
