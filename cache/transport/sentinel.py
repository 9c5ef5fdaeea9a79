"""Asks the Sentinels of an endpoint which server is the primary (Redis docs: Guidelines for Sentinel clients).

All are asked at the same time, and the answer with the highest configuration epoch counts, as among the Sentinels
themselves: only a majority of them can raise it. The Sentinel that conducts a failover has the new epoch already, and
names the old primary until it is done: then another one is believed, or none. The answer is only an address: the
handshake finds out whether a primary is there. A planned failover leaves the old primary in service for ten seconds, so
one Sentinel announces failovers to us while a connection is in use.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from ..background import BackgroundTasks
from ..exceptions import CommandRejected, HandshakeFailed, TransportError
from ..redis_url import Endpoint
from .client import Argument
from .connection import RespConnection
from .dial import Names, dial
from .handshake import NO_MASTER, NO_SENTINEL, REJECTED, SENTINEL_REFUSES, auth, failure
from .packing import pack

ANSWER_TIMEOUT = 0.5  # seconds one Sentinel has, TLS and authentication included
ASK_EVERY = 0.25  # seconds an answer holds: a fleet that has lost its primary asks no more often
WATCH_AGAIN = 5.0  # seconds until a Sentinel is looked for again that announces failovers
MOVED = "the Sentinels name another primary"


class Named(NamedTuple):
    """A primary, the configuration epoch since which it is one, and whether no failover from it is under way."""

    epoch: int
    settled: bool
    host: str
    port: int


class PrimaryFinder:
    """Finds the server that an endpoint stands for: itself, or what its Sentinels name."""

    def __init__(self, endpoint: Endpoint, names: Names, background: BackgroundTasks) -> None:
        self._endpoint, self._names, self._background = endpoint, names, background
        self._asked_at = -math.inf
        self._asking: asyncio.Task[Endpoint] | None = None

    async def find(self) -> Endpoint:
        """Return the endpoint to dial.

        Raises:
            HandshakeFailed: no Sentinel names a server.
        """
        if not self._endpoint.sentinels:
            return self._endpoint
        now = asyncio.get_running_loop().time()
        if self._asking is None or (self._asking.done() and now - self._asked_at > ASK_EVERY):
            self._asked_at = now
            self._asking = self._background.spawn(self._ask_all(), name="cache-sentinels")
        asking = self._asking
        await asyncio.wait({asking})  # an attempt that is given up leaves the question to the next one
        return asking.result()

    def watch(self, server: Endpoint, on_moved: Callable[[], None]) -> asyncio.Task[None] | None:
        """Call ``on_moved`` once the Sentinels name another server. Cancel the returned task to end that."""
        if not self._endpoint.sentinels:
            return None
        return self._background.spawn(self._watch(server, on_moved), name="cache-sentinel-watch")

    async def _watch(self, server: Endpoint, on_moved: Callable[[], None]) -> None:
        announcing: RespConnection | None = None
        try:
            while True:
                for sentinel in self._endpoint.sentinels:
                    try:
                        announcing, _ = await self._send(sentinel, (b"SUBSCRIBE", b"+switch-master"))
                        break
                    except (OSError, TransportError):
                        continue
                try:  # only now: what happened before the subscription was not announced
                    if await self._ask_all() != server:
                        on_moved()
                        return
                except HandshakeFailed:
                    pass  # none answers, and the server in use may well go on
                await asyncio.sleep(ASK_EVERY if announcing else WATCH_AGAIN)
                if announcing is None:
                    continue
                await asyncio.wait({announcing.ended})  # lost, or an announcement, which is no reply to a command
                await announcing.end("announced")
                announcing = None
        finally:
            if announcing is not None:
                await announcing.end("not needed")

    async def _ask_all(self) -> Endpoint:
        asking = [asyncio.create_task(self._ask(one), name="cache-sentinel") for one in self._endpoint.sentinels]
        answers = await asyncio.gather(*asking, return_exceptions=True)
        named = [answer for answer in answers if isinstance(answer, Named)]
        problems = [answer for answer in answers if isinstance(answer, Exception)]
        if not named:
            rejected = [problem for problem in problems if isinstance(problem, HandshakeFailed)]
            raise rejected[0] if rejected else HandshakeFailed(f"no Sentinel answers: {failure(problems[0])}", 0.0)
        newest = max(named, key=lambda answer: (answer.epoch, answer.settled))
        if not newest.settled:
            raise HandshakeFailed("the Sentinels are at a failover", 0.0)
        return replace(self._endpoint, host=newest.host, port=newest.port)

    async def _ask(self, sentinel: Endpoint) -> Named:
        """What one Sentinel knows.

        Raises:
            HandshakeFailed: it refuses to say, or does not know.
            TransportError: the connection was lost.
            OSError: it does not answer.
        """
        connection, reply = await self._send(sentinel, (b"SENTINEL", b"MASTER", self._endpoint.master))
        await connection.end("answered")
        try:
            facts = dict(zip(reply[::2], reply[1::2], strict=True))
            settled = b"failover_in_progress" not in facts.get(b"flags", b"")
            return Named(int(facts[b"config-epoch"]), settled, facts[b"ip"].decode(), int(facts[b"port"]))
        except (TypeError, ValueError, LookupError):
            raise HandshakeFailed(NO_SENTINEL, REJECTED) from None

    async def _send(self, sentinel: Endpoint, command: tuple[Argument, ...]) -> tuple[RespConnection, Any]:
        """A connection to one Sentinel, and its reply to the command. Raises as :meth:`_ask`."""
        async with asyncio.timeout(ANSWER_TIMEOUT):
            addresses = await self._names.addresses(sentinel.host, sentinel.port)
            connection, _ = await dial(sentinel, addresses, 0)
            try:
                replies = connection.send_together([pack(each) for each in (*auth(sentinel), command)])
                return connection, [await each for each in replies][-1]
            except BaseException as error:
                await connection.end("no answer")
                if isinstance(error, CommandRejected):
                    raise _refused(error) from None
                raise


def _refused(error: CommandRejected) -> HandshakeFailed:
    text = str(error).lower()
    if "no such master" in text:
        return HandshakeFailed(NO_MASTER, REJECTED)
    if "unknown command" in text:
        return HandshakeFailed(NO_SENTINEL, REJECTED)
    about_us = error.code in ("NOAUTH", "WRONGPASS", "NOPERM") or "password" in text
    return HandshakeFailed(SENTINEL_REFUSES if about_us else f"a Sentinel refuses ({error.code})", REJECTED)
