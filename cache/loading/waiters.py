"""Callers that wait for a key to change."""

from __future__ import annotations

import asyncio

from .. import keys


class Waiters:
    """Futures that are done when the server reports a change of a key or of its lease."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, set[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        """The number of names that callers wait for."""
        return len(self._waiting)

    def __contains__(self, key: str) -> bool:
        return key.encode() in self._waiting

    def wait(self, key: str) -> asyncio.Future[None]:
        """A future for the next change. Call it before reading the key, and :meth:`leave` afterwards."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for name in _names(key):
            self._waiting.setdefault(name, set()).add(future)
        return future

    def leave(self, key: str, future: asyncio.Future[None]) -> None:
        """Stop waiting."""
        future.cancel()
        for name in _names(key):
            if (futures := self._waiting.get(name)) is not None:
                futures.discard(future)
                if not futures:
                    del self._waiting[name]

    def changed(self, names: list[bytes] | None) -> None:
        """The server reports that these keys have changed; None: any key may have."""
        for name in list(self._waiting) if names is None else names:
            for future in self._waiting.get(name, ()):
                if not future.done():
                    future.set_result(None)


def _names(key: str) -> tuple[bytes, bytes]:
    return key.encode(), keys.lease(key).encode()
