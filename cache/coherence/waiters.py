"""Callers that wait for a key to change."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from .. import keys


class Waiters:
    """Events that are set when the server reports a change of a key or of its lease."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, set[asyncio.Event]] = {}

    def __len__(self) -> int:
        """The number of names that callers wait for."""
        return len(self._waiting)

    def __contains__(self, key: str) -> bool:
        return key.encode() in self._waiting

    @contextmanager
    def waiting(self, key: str) -> Iterator[asyncio.Event]:
        """What a change sets, during the block. Begin it, or clear what was set, before reading the key."""
        changed = asyncio.Event()
        names = key.encode(), keys.lease(key).encode()
        for name in names:
            self._waiting.setdefault(name, set()).add(changed)
        try:
            yield changed
        finally:
            for name in names:
                self._waiting[name].discard(changed)
                if not self._waiting[name]:
                    del self._waiting[name]

    def changed(self, names: list[bytes] | None) -> None:
        """The server reports that these keys have changed; None: any key may have."""
        for name in list(self._waiting) if names is None else names:
            for event in self._waiting.get(name, ()):
                event.set()
