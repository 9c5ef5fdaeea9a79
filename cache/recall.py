"""When Redis comes back as another: what it holds may be older than what it was told.

A server that was restarted, restored from a dump, or replaced by its replica may have forgotten invalidations it had
acknowledged. Each run of a server has an id (``run_id``), and the run whose values were last known to be right stands
in ``system:server``, and so in every dump. Both are asked for in the greeting of a connection, before anything is
served over it. Where they differ, no value of a user is served until whoever keeps the source of truth has invalidated
once more what changed lately, or, where nobody can, all of ``user:*`` is gone.

Without a mark the server is believed: it is empty, or was flushed, or an older version of this layer wrote to it. A
cluster, and a server that speaks no RESP3, are believed too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from . import keys
from .pending import Pending
from .road import FAILURES, Road

logger = logging.getLogger("cache")
QUESTIONS: Final = (("INFO", "server"), ("GET", keys.system_server()))
"""What a new connection asks. Who may not ask believes the server."""
Ask = Callable[[], Awaitable[bool]]
"""Invalidates what changed lately, and says whether that is all there is."""
_MARK_EVERY: Final = 30.0  # seconds between two looks at the mark, where the server does not tell


class Recall:
    """Whether the server is the one we knew, and what is done where it is not.

    Args:
        road: sends the commands.
        pending: what must not be served.
        clear: removes every value of every user. Raises FAILURES.
    """

    def __init__(self, road: Road, pending: Pending, clear: Callable[[], Awaitable[object]]) -> None:
        self.ask: Ask | None = None
        self._road = road
        self._pending = pending
        self._clear = clear
        self._run_id = ""
        self._marked_at = -_MARK_EVERY
        self._making_sure: asyncio.Task[None] | None = None

    def met(self, answers: list[Any]) -> None:
        """A connection has been greeted, and these are the answers to the questions."""
        info, mark = map(_text, answers)
        self._run_id = _run_id(info)
        self._marked_at = -_MARK_EVERY
        if self._run_id and mark and mark != self._run_id:
            self._pending.doubt()

    def keep(self, now: float) -> None:
        """To be called now and then while there is a connection: does what is left to do, in the background.

        Args:
            now: the loop's time, in seconds.
        """
        due = self._pending.doubted or now - self._marked_at >= _MARK_EVERY
        if self._run_id and due and (self._making_sure is None or self._making_sure.done()):
            self._making_sure = asyncio.create_task(self._make_sure(), name="cache-recall")

    def changed(self, now: float) -> None:
        """The mark was flushed, evicted or written by somebody: it has to be there before the next dump is made.

        Args:
            now: the loop's time, in seconds.
        """
        self._marked_at = -_MARK_EVERY
        self.keep(now)

    async def close(self) -> None:
        """Stop. What is in doubt stays so."""
        if self._making_sure is not None:
            self._making_sure.cancel()
            await asyncio.wait({self._making_sure})

    async def _make_sure(self) -> None:
        run_id, doubt = self._run_id, self._pending.doubted
        try:
            if doubt:
                if not await self._asked():
                    await self._clear()
                self._pending.trust(doubt)
            if self._run_id == run_id and not self._pending.doubted:
                await self._mark(run_id)
        except FAILURES:
            pass  # not now: it is tried again while there is a connection

    async def _mark(self, run_id: str) -> None:
        """Leave the mark. It is read as well, so that the server tells us when it is gone."""
        self._marked_at = asyncio.get_running_loop().time()
        read, mark = ("GET", keys.system_server()), ("SET", keys.system_server(), run_id)
        if _text(await self._road.send(*read)) != run_id:
            await self._road.send_all(mark, read)

    async def _asked(self) -> bool:
        if self.ask is None:
            return False
        try:
            return await self.ask()
        except Exception as problem:
            logger.error("what changed lately could not be told (%s)", type(problem).__name__)
            return False


def _text(answer: object) -> str:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer if isinstance(answer, str) else ""


def _run_id(info: str) -> str:
    for line in info.splitlines():
        name, _, value = line.partition(":")
        if name == "run_id":
            return value
    return ""
