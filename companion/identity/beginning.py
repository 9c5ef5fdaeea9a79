"""When a conversation began, in the store's count of erasures."""

from __future__ import annotations

import asyncio


class Beginning:
    """What the store had erased or forgotten when a conversation began; its writes say so.

    Attributes:
        erasures: how many erasures it had done (``store.erasures``); None as long as that is not known.
        forgotten: the number of the latest thing that the user had asked to forget (``store.forgetting``), as far as
            the conversation knows; with each that it forgets itself.
        reading: the task that asks the store for it; None before.
    """

    __slots__ = ("erasures", "forgotten", "reading")

    def __init__(self) -> None:
        self.erasures: int | None = None
        self.forgotten = 0
        self.reading: asyncio.Task[None] | None = None
