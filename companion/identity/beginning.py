"""When a conversation began, in the store's count of erasures."""

from __future__ import annotations

import asyncio
import time


class Beginning:
    """What the store had erased or forgotten when a conversation began; its writes say so.

    Attributes:
        erasures: how many erasures it had done (``store.erasures``); None as long as that is not known.
        forgotten: the number of the latest thing that the user had asked to forget (``store.forgetting``), as far as
            the conversation knows; with each that it forgets itself.
        known: how many of them this machine knew of then; its writes say so as long as ``erasures`` is not known.
        reading: the task that asks the store for it; None before.
        at: the time of it, of ``time.monotonic``.
    """

    __slots__ = ("at", "erasures", "forgotten", "known", "reading")

    def __init__(self) -> None:
        self.erasures: int | None = None
        self.forgotten = self.known = 0
        self.reading: asyncio.Task[None] | None = None
        self.at = time.monotonic()
