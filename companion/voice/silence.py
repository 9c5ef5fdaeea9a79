"""Ends the silence of a model or a voice: one that gives nothing for too long counts as failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Final, TypeVar

ANSWER_DEADLINE: Final = 15.0
"""Seconds that a model may be silent before, or within, an answer; and a voice before its first sound."""
T = TypeVar("T")


async def within_deadline(answer: AsyncIterable[T]) -> AsyncIterator[T]:
    """The pieces of an answer.

    Raises:
        TimeoutError: there was none for ``ANSWER_DEADLINE`` seconds.
    """
    pieces = aiter(answer)
    while True:
        try:
            async with asyncio.timeout(ANSWER_DEADLINE):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        yield piece


async def spoken_within_deadline(
    text: AsyncIterable[str], speak: Callable[[AsyncIterable[str]], AsyncIterable[T]]
) -> AsyncIterator[T]:
    """What ``speak`` makes of ``text``.

    Where ``text`` fails, as a text transform of the program may, what came of it is still spoken: LiveKit's own node
    would wait for the rest for ever.

    Raises:
        TimeoutError: there was no sound ``ANSWER_DEADLINE`` seconds after the last piece of text.
        Exception: what ``text`` or ``speak`` raises.
    """
    loop = asyncio.get_running_loop()
    silent = True
    problem: Exception | None = None

    async def noted() -> AsyncIterator[str]:
        nonlocal problem
        try:
            async for piece in text:
                if silent:
                    limit.reschedule(loop.time() + ANSWER_DEADLINE)
                yield piece
        except Exception as raised:
            problem = raised

    async with asyncio.timeout(None) as limit:
        frames = aiter(speak(noted()))
        first = await anext(frames, None)
        silent = False
    if first is not None:
        yield first
        async for frame in frames:
            yield frame
    if problem is not None:
        raise problem
