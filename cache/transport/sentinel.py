"""Asks the Sentinels of an endpoint which server is the primary (Redis docs: Guidelines for Sentinel clients).

All are asked at the same time, and the answer with the highest configuration epoch counts, as among the Sentinels
themselves: only a majority of them can raise it. The Sentinel that conducts a failover has the new epoch already, and
names the old primary until it is done: it is asked whom it has promoted, or not believed. The answer is only an
address: the handshake finds out whether a primary is there.

A planned failover leaves the old primary in service for ten seconds, and one that only the Sentinels have lost stays in
service for longer. So a majority of the Sentinels announces failovers to us: an election needs a majority, and so one
of these. They do so from the first connection on, also while there is none: an announcement makes the next attempt to
connect ask again.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from ..background import BackgroundTasks, loop_time, set_within
from ..exceptions import CommandRejected, HandshakeFailed
from ..redis_url import Endpoint
from .client import Argument
from .connection import RespConnection
from .dial import Names, dial
from .handshake import NO_MASTER, NO_SENTINEL, REJECTED, SENTINEL_REFUSES, auth, failure, other_protocol
from .packing import pack

ANSWER_TIMEOUT = 0.5  # seconds one Sentinel has, TLS and authentication included
# Seconds an answer holds, at most. A question costs a Sentinel 50 microseconds: ten thousand processes that have lost
# their primary would keep it busy with four a second, while it is to hold an election.
ASK_EVERY = 1.0
LOOK_EVERY = 0.25  # the same for an answer that is none because of a failover, and for answers to announcements
LISTEN_AGAIN = 5.0  # seconds until more Sentinels are looked for, if too few announce failovers to us
MOVED = "the Sentinels name another primary"

Place: TypeAlias = tuple[str, int]
"""Where one Sentinel is: its address and port. A name may stand for several."""


class Named(NamedTuple):
    """A primary, the configuration epoch since which it is one, and whether that is beyond doubt."""

    epoch: int
    settled: bool
    host: str
    port: int


class InUse(NamedTuple):
    """A server that a connection was made to, and what to call once it is not the primary any more."""

    server: Endpoint
    on_moved: Callable[[], None]


class PrimaryFinder:
    """Finds the server that an endpoint stands for: itself, or what its Sentinels name."""

    def __init__(self, endpoint: Endpoint, names: Names, background: BackgroundTasks) -> None:
        self._endpoint, self._names, self._background = endpoint, names, background
        self._ask_at = -math.inf  # loop time from which on the last answer is too old
        self._asking: asyncio.Task[Endpoint] | None = None
        self._in_use: InUse | None = None
        self._listening: asyncio.Task[None] | None = None
        self._look = asyncio.Event()  # whether the primary may have changed

    async def find(self) -> Endpoint:
        """Return the endpoint to dial.

        Raises:
            HandshakeFailed: no Sentinel names a server.
        """
        if not self._endpoint.sentinels:
            return self._endpoint
        if self._asking is None or (self._asking.done() and loop_time() >= self._ask_at):
            self._ask_again()
        return await self._answer()

    def follow(self, server: Endpoint, on_moved: Callable[[], None]) -> None:
        """Call ``on_moved`` once the Sentinels name another server, unless this is called again before."""
        if self._endpoint.sentinels:
            self._in_use = InUse(server, on_moved)
            self._look.set()
            if self._listening is None:
                self._listening = self._background.spawn(self._listen(), name="cache-sentinel-watch")

    def stop(self) -> None:
        """Listen no more."""
        if self._listening is not None:
            self._listening.cancel()

    # -- announcements ---------------------------------------------------------------------------------

    async def _listen(self) -> None:
        listening: dict[Place, RespConnection] = {}
        try:
            while True:
                self._look.clear()
                enough = await self._subscribe(listening)
                used = self._in_use
                self._ask_again()  # only now: what happened before the subscription was not announced
                with suppress(HandshakeFailed, OSError):  # none answers, and the server in use may well go on
                    named = await self._answer()
                    if used is not None and await self._elsewhere(named, used.server) and used is self._in_use:
                        self._in_use = None
                        used.on_moved()
                await asyncio.sleep(LOOK_EVERY)
                await set_within(self._look, None if enough else LISTEN_AGAIN)
        finally:
            await asyncio.gather(*(each.end("not needed") for each in listening.values()))

    async def _elsewhere(self, one: Endpoint, other: Endpoint) -> bool:
        """Whether these are two servers. Some Sentinels may name one by its host, and others by its address."""
        if one.port != other.port or one.host == other.host:
            return one != other
        async with asyncio.timeout(ANSWER_TIMEOUT):
            found = [await self._names.addresses(each.host, each.port) for each in (one, other)]
        return set(found[0]).isdisjoint(found[1])

    async def _subscribe(self, listening: dict[Place, RespConnection]) -> bool:
        """Listen to more Sentinels, any of them, until they are a majority. Returns whether they are."""
        for place in [place for place, connection in listening.items() if connection.ended.done()]:
            await listening.pop(place).end("announced")
        with suppress(HandshakeFailed):
            places = await self._places()
            wanted, others = len(places) // 2 + 1, [place for place in places if place not in listening]
            random.shuffle(others)  # of a fleet, each has its share

            async def listen_to(place: Place) -> None:
                listening[place], _ = await self._send(places[place], place, (b"SUBSCRIBE", b"+switch-master"))
                listening[place].ended.add_done_callback(self._announced)

            while others and (more := wanted - len(listening)) > 0:
                await asyncio.gather(*map(listen_to, others[:more]), return_exceptions=True)
                del others[:more]
            return len(listening) >= wanted
        return False

    def _announced(self, _: object) -> None:
        """A Sentinel has announced something, which is no reply to a command and so ends its connection; or is away."""
        self._ask_at = -math.inf
        self._look.set()

    # -- questions -------------------------------------------------------------------------------------

    def _ask_again(self) -> None:
        self._ask_at = loop_time() + ASK_EVERY * random.uniform(0.8, 1.0)
        self._asking = self._background.spawn(self._ask_all(), name="cache-sentinels")

    async def _answer(self) -> Endpoint:
        """The answer to the last question. An attempt that is given up leaves it to the next one."""
        assert self._asking is not None
        asking = self._asking
        await asyncio.wait({asking})
        return asking.result()

    async def _ask_all(self) -> Endpoint:
        places = await self._places()
        asking = [asyncio.create_task(self._ask(each, place), name="cache-sentinel") for place, each in places.items()]
        answers = await asyncio.gather(*asking, return_exceptions=True)
        named = [answer for answer in answers if isinstance(answer, Named)]
        problems = [answer for answer in answers if isinstance(answer, Exception)]
        if not named:
            rejected = [problem for problem in problems if isinstance(problem, HandshakeFailed)]
            raise rejected[0] if rejected else await self._silent(problems[0], places)
        newest = max(named, key=lambda answer: (answer.epoch, answer.settled))
        if not newest.settled:
            self._ask_at = loop_time() + LOOK_EVERY
            raise HandshakeFailed("the Sentinels are at a failover", 0.0)
        return replace(self._endpoint, host=newest.host, port=newest.port)

    async def _silent(self, problem: BaseException, places: dict[Place, Endpoint]) -> HandshakeFailed:
        """Why no Sentinel answers: perhaps the URL names the wrong protocol."""
        (address, _), sentinel = next(iter(places.items()))
        other = await other_protocol(sentinel, address, ANSWER_TIMEOUT)
        return HandshakeFailed(other, REJECTED) if other else _unanswered(problem)

    async def _places(self) -> dict[Place, Endpoint]:
        """Where Sentinels are, each once, and what is written of them in the URL.

        Raises:
            HandshakeFailed: no name can be looked up.
        """

        async def look_up(sentinel: Endpoint) -> list[str]:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await self._names.addresses(sentinel.host, sentinel.port)

        listed = self._endpoint.sentinels
        found = await asyncio.gather(*map(look_up, listed), return_exceptions=True)
        places = {
            (address, sentinel.port): sentinel
            for sentinel, addresses in zip(listed, found, strict=True)
            if not isinstance(addresses, BaseException)
            for address in addresses
        }
        if not places:
            raise _unanswered(next(problem for problem in found if isinstance(problem, BaseException)))
        return places

    async def _ask(self, sentinel: Endpoint, place: Place) -> Named:
        """What one Sentinel knows.

        Raises:
            HandshakeFailed: it refuses to say, or does not know.
            TransportError: the connection was lost.
            OSError: it does not answer.
        """
        master = self._endpoint.master
        connection, reply = await self._send(sentinel, place, (b"SENTINEL", b"MASTER", master))
        try:
            facts = dict(zip(reply[::2], reply[1::2], strict=True))
            host, port, settled = facts[b"ip"], facts[b"port"], True
            if b"failover_in_progress" in facts.get(b"flags", b""):
                promoted = await self._promoted(connection)
                settled = promoted is not None
                host, port = promoted or (host, port)
            return Named(int(facts[b"config-epoch"]), settled, host.decode(), int(port))
        except (TypeError, ValueError, LookupError):
            raise HandshakeFailed(NO_SENTINEL, REJECTED) from None
        finally:
            await connection.end("answered")

    async def _promoted(self, connection: RespConnection) -> tuple[bytes, bytes] | None:
        """Whom a Sentinel has promoted in a failover under way, or the primary that is to be replaced.

        None if it does not say. Then it is not believed: it has the new epoch, and still names the old primary.
        """
        question = connection.send(pack((b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._endpoint.master)))
        with suppress(CommandRejected, TimeoutError, TypeError, ValueError):
            async with asyncio.timeout(ANSWER_TIMEOUT):
                host, port = await question
                return host, port
        return None

    async def _send(
        self, sentinel: Endpoint, place: Place, command: tuple[Argument, ...]
    ) -> tuple[RespConnection, Any]:
        """A connection to one Sentinel, and its reply to the command. Raises as :meth:`_ask`."""
        async with asyncio.timeout(ANSWER_TIMEOUT):
            connection, _ = await dial(sentinel, place[:1], 0)
            try:
                replies = connection.send_together([pack(each) for each in (*auth(sentinel), command)])
                return connection, [await each for each in replies][-1]
            except BaseException as error:
                await connection.end("no answer")
                if isinstance(error, CommandRejected):
                    raise _refused(error) from None
                raise


def _unanswered(problem: BaseException) -> HandshakeFailed:
    return HandshakeFailed(f"no Sentinel answers: {failure(problem)}", 0.0)


def _refused(error: CommandRejected) -> HandshakeFailed:
    text = str(error).lower()
    if "no such master" in text:
        return HandshakeFailed(NO_MASTER, REJECTED)
    if "unknown command" in text:
        return HandshakeFailed(NO_SENTINEL, REJECTED)
    about_us = error.code in ("NOAUTH", "WRONGPASS", "NOPERM") or "password" in text
    return HandshakeFailed(SENTINEL_REFUSES if about_us else f"a Sentinel refuses ({error.code})", REJECTED)
