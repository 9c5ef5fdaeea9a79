"""When a conversation began, in the store's count of erasures."""

from __future__ import annotations

import asyncio


class Beginning:
    """How many erasures the store had done when a conversation began; its writes say so (``store.erasures``).

    Attributes:
        erasures: their number; None as long as it is not known.
        reading: the task that asks the store for it; None before.
    """

    __slots__ = ("erasures", "reading")

    def __init__(self) -> None:
        self.erasures: int | None = None
        self.reading: asyncio.Task[None] | None = None
