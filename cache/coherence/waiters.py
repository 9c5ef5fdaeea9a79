"""Callers that wait for a key to change."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from .. import keys


class Waiters:
    """Callers that wait until the server reports a change of a key or of its lease.

    Attributes:
        events: what a change of a key sets, by name.
    """

    def __init__(self) -> None:
        self.events: dict[bytes, set[asyncio.Event]] = {}

    @contextmanager
    def waiting(self, key: str) -> Iterator[asyncio.Event]:
        """An event that a change sets, during the block. Enter it, or clear the event, before reading the key."""
        changed = asyncio.Event()
        names = key.encode(), keys.lease(key).encode()
        for name in names:
            self.events.setdefault(name, set()).add(changed)
        try:
            yield changed
        finally:
            for name in names:
                self.events[name].discard(changed)
                if not self.events[name]:
                    del self.events[name]

    def changed(self, names: list[bytes] | None) -> None:
        """The server reports that these keys have changed; None: any key may have."""
        for name in list(self.events) if names is None else names:
            for event in self.events.get(name, ()):
                event.set()
