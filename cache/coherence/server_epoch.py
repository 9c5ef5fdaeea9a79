"""When Redis comes back as another: what it holds may be older than what it was told.

A server that was restarted, restored from a dump, or replaced by its replica may have forgotten invalidations it had
acknowledged. Each run of a server has an id, and each history of its data another (``run_id``, ``master_replid``).
Those under which the values were last known to be right stand in ``system:server``, and so in every dump and replica.
They are asked for in the greeting of a connection, before anything is served over it, again when the server says that
all of its data may have changed, and every half minute. Where they differ, no value of a user is served until whoever
keeps the source of truth has invalidated once more what changed lately, or, where nobody can, all of ``user:*`` has
gone.

A server without a mark is believed if it says that it is empty. Who may not read the mark takes it for missing; who may
not ask which server it is believes it. A cluster, and a server that speaks no RESP3, are believed too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from .. import keys
from ..exceptions import CommandRejected, TransportError
from ..transport.commands import Transport
from .pending import PendingQueue

logger = logging.getLogger("cache")
_MARK: Final = ("GET", keys.system_server())
_WHO: Final = (("INFO", "server"), ("INFO", "replication"), _MARK)
QUESTIONS: Final = (*_WHO, ("DBSIZE",))
"""What a new connection asks. Each may be refused."""
Ask = Callable[[], Awaitable[bool]]
"""Invalidates what changed lately, and says whether that is all there is. Raises when it cannot say now."""
_LOOK_EVERY: Final = 30.0  # seconds between two looks at the mark, where the server does not tell
_ASK_EVERY: Final = 1.0  # seconds between two tries while nobody can say what changed, or Redis refuses, or is owed
_TRIES: Final = 3  # at once, where an answer does not come in time
_PATIENCE: Final = 60.0  # seconds of that, until everything goes


class ServerEpoch:
    """Whether the server is the one we knew, and what is done where it is not.

    Args:
        road: sends the commands.
        pending: what must not be served.
        clear: removes every value of every user. Raises TransportError.
    """

    def __init__(self, road: Transport, pending: PendingQueue, clear: Callable[[], Awaitable[object]]) -> None:
        self.ask: Ask | None = None
        self._road = road
        self._pending = pending
        self._clear = clear
        self._server = ""  # which it is; empty where we may not ask
        self._looked_at = self._not_before = -_LOOK_EVERY
        self._dealt_with = ""  # the mark of another one that gave rise to a doubt which is settled
        self._tentative = 0  # a doubt that a look at the mark may settle
        self._since = 0.0  # when the doubt began
        self._heard = 0  # how often we were told that something has changed
        self._making_sure: asyncio.Task[None] | None = None

    def met(self, answers: list[Any]) -> None:
        """A connection has been greeted, and these are the answers to the questions."""
        self._server, mark = _read(answers)
        self._heard += 1
        self._looked_at = self._not_before = -_LOOK_EVERY
        self._dealt_with = ""
        empty = answers[-1] == 0
        if self._server and mark != self._server and (mark or not empty):
            self._doubt()

    def keep(self, now: float) -> None:
        """To be called now and then while there is a connection: does what is left to do, in the background.

        Args:
            now: the loop's time, in seconds.
        """
        due = self._pending.doubted or (self._server and now - self._looked_at >= _LOOK_EVERY)
        if due and now >= self._not_before and (self._making_sure is None or self._making_sure.done()):
            self._making_sure = asyncio.create_task(self._make_sure(), name="cache-recall")

    def changed(self, now: float) -> None:
        """The mark was evicted, or written by somebody: it has to be there before the next dump is made.

        Args:
            now: the loop's time, in seconds.
        """
        self._heard += 1
        self._looked_at = -_LOOK_EVERY
        self.keep(now)

    def all_changed(self, now: float) -> None:
        """The server was flushed, or has taken over somebody else's data.

        Args:
            now: the loop's time, in seconds.
        """
        if self._server and not self._pending.doubted:
            self._doubt()
            self._tentative = self._pending.doubted
            self._not_before = now  # what the last try has to wait for is something else
        self.changed(now)

    async def close(self) -> None:
        """Stop. What is in doubt stays so."""
        if self._making_sure is not None:
            self._making_sure.cancel()
            await asyncio.wait({self._making_sure})

    def _doubt(self) -> None:
        if not self._pending.doubted:
            self._since = _now()
        self._pending.doubt()

    async def _make_sure(self) -> None:
        heard = self._heard
        sure = False
        for _ in range(_TRIES):
            try:
                sure = await self._is_sure()
            except CommandRejected:
                pass  # not now: it is tried again while there is a connection
            except TransportError:
                continue  # late, perhaps because our own loop stood still
            break
        if not sure:
            self._not_before = _now() + _ASK_EVERY
        elif heard == self._heard:  # else there has been a change meanwhile, and that is looked at as well
            self._looked_at = _now()

    async def _is_sure(self) -> bool:
        """Settle a doubt, and see to it that the mark is there. Whether all is done. Raises TransportError."""
        mark = await self._look() if self._server else ""
        if doubt := self._pending.doubted:
            if not await self._settled(doubt, mark):
                return False
            self._pending.trust(doubt)
            self._dealt_with = mark
            mark = await self._look() if self._server else ""
        if self._pending.owes:  # not before everything has been told: whoever sees the mark believes the server
            return False
        if self._server and mark != self._server:
            try:  # read as well, so that the server tells us when it is gone
                await self._road.send_all(("SET", keys.system_server(), self._server), _MARK)
            except CommandRejected as problem:
                if problem.code != "NOPERM":
                    raise
        return True

    async def _look(self) -> str:
        """The mark. A server that has become another one, or has a mark of another one, is doubted."""
        answers = await self._answers()
        if getattr(answers[-1], "code", "") == "WRONGTYPE":
            await self._road.unlink((keys.system_server(),))
            answers = await self._answers()
        server, mark = _read(answers)
        if server != self._server or mark not in ("", server, self._dealt_with):
            self._server = server
            self._doubt()
        return mark

    async def _answers(self) -> list[Any]:
        """Which server it is and its mark; what may not be asked, and a mark of another type, as errors.

        Raises TransportError.
        """
        answers = await self._road.send_each(*_WHO)
        for answer in answers:
            if isinstance(answer, Exception) and getattr(answer, "code", "") not in ("NOPERM", "WRONGTYPE"):
                raise answer
        return answers

    async def _settled(self, doubt: int, mark: str) -> bool:
        """Whether nothing old is left. Raises TransportError."""
        if self._server and (mark == self._server or (doubt == self._tentative and not mark)):
            return True  # somebody else has made sure; or it was flushed, and there is nothing
        if self.ask is not None:
            try:
                if await self.ask():
                    return True
            except Exception as problem:  # the store's, or a mistake
                if _now() - self._since < _PATIENCE:
                    return False
                logger.error("what changed lately cannot be told (%s): all is cleared", type(problem).__name__)
        await self._clear()
        return True


def _read(answers: list[Any]) -> tuple[str, str]:
    """Which server it is, empty where it does not say, and its mark."""
    server, replication, mark = (
        answer.decode(errors="replace") if isinstance(answer, bytes) else answer if isinstance(answer, str) else ""
        for answer in answers[:3]
    )
    run, history = _value(server, "run_id"), _value(replication, "master_replid")
    return f"{run}:{history}" if run and history else "", mark


def _value(info: str, wanted: str) -> str:
    for line in info.splitlines():
        name, _, value = line.partition(":")
        if name == wanted:
            return value
    return ""


def _now() -> float:
    return asyncio.get_running_loop().time()
