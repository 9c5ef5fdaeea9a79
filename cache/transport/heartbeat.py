"""The clock beside a wire: the deadlines of all callers, the silence of the server, the proof that it answers.

One timer for everybody, and none while nothing is in flight except the heartbeat. It looks every quarter of a deadline
and at the deadline of the oldest call. Three judgements, in this order of severity:

late: a call got no reply within the deadline. It fails; its place in the queue remains until the reply has been read.
held: nothing at all arrived for a deadline, or a ping was late. No calls are taken until a ping is answered in time,
  so a server that pauses for 60 ms costs its callers those 60 ms, and nobody a reconnect.
silent: nothing at all arrived for `silent_after`. The connection is given up.

A stalled loop of our own is nobody's silence: time counts as silence only while we were awake to listen, and before
any judgement the loop turns twice, so that replies already in the socket are read. A call's own deadline is real time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..exceptions import CommandRejected, CommandTimeout
from .connection import SILENT, RespConnection, fail, pack


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds."""

    deadline: float
    heartbeat: float
    silent_after: float

    @property
    def step(self) -> float:
        """How often to look while something is in flight."""
        return min(self.deadline / 4, 0.0125)


class Heartbeat:
    """Watches one wire until it is lost.

    on_proven: called with the loop time at which a ping was sent, each time one is answered within the deadline.
    on_held: called with a reason when no more calls should be sent, until the next on_proven.
    """

    def __init__(
        self, wire: RespConnection, timing: Timing, on_proven: Callable[[float], None], on_held: Callable[[str], None]
    ) -> None:
        self._wire, self._loop, self._timing = wire, wire.loop, timing
        self._deadline, self._step = timing.deadline, timing.step
        self._on_proven, self._on_held = on_proven, on_held
        self._timer: asyncio.Handle | None = None
        self._beat_timer: asyncio.Handle = self._loop.call_later(timing.heartbeat, self._beat)
        self._pong: asyncio.Future[Any] | None = None  # the ping on its way; unlike a call it is waited for when late
        self._pings, self._pinged, self._late = 0, 0.0, False
        self._looked = self._silence = 0.0  # when we last looked; for how long nothing has arrived
        self.idle = True

    def wake(self) -> None:
        """Something is in flight."""
        self.idle = False
        self._looked, self._silence, self._wire.heard = self._loop.time(), 0.0, False
        self._look_later(self._looked)

    def stop(self) -> None:
        self.idle = False
        self._beat_timer.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def probe(self) -> None:
        """Sends a ping, unless one is on its way."""
        if self._pong is None:
            self._pings += 1
            self._pinged, self._late = self._loop.time(), False
            (self._pong,) = self._wire.send_together([pack((b"PING", self._pings))])
            self._pong.add_done_callback(self._probed)

    def _beat(self) -> None:
        self._beat_timer = self._loop.call_later(self._timing.heartbeat, self._beat)
        self.probe()

    def _probed(self, pong: asyncio.Future[Any]) -> None:
        self._pong = None
        if self._wire.ended.done():
            return
        error = pong.exception()
        if isinstance(error, CommandRejected) and error.code != "NOPERM":  # not allowed to PING is an answer too
            self._wire.lose(error.code)
        elif error is None and pong.result() != b"%d" % self._pings:
            self._wire.lose("out of step")  # something between us and the server has lost bytes
        elif self._late:
            self.probe()
        else:
            self._on_proven(self._pinged)

    def _look_later(self, now: float) -> None:
        when = now + self._step
        for future, called, _ in self._wire.waiters:
            if not (future.done() or (future is self._pong and self._late)):
                when = min(when, called + self._deadline)
                break
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        wire, now = self._wire, self._loop.time()
        # After a stall two steps at most count, so a loop that stalls all the time still finds out in the end.
        self._silence = 0.0 if wire.heard else self._silence + min(now - self._looked, 2 * self._step)
        wire.heard, self._looked = False, now
        if not wire.waiters:
            self._timer, self.idle = None, True
        elif self._silence >= self._deadline or wire.waiters[0][1] + self._deadline <= now:
            # Two turns, because some loops run timers before they read sockets and some after.
            self._timer = self._loop.call_soon(self._look_twice)
        else:
            self._look_later(now)

    def _look_twice(self) -> None:
        self._timer = self._loop.call_soon(self._judge)

    def _judge(self) -> None:
        wire, now = self._wire, self._loop.time()
        for future, called, _ in wire.waiters:
            if called + self._deadline > now:
                break
            if future is self._pong:
                self._late = True
                self._on_held("slow")
            elif not future.done():
                fail(future, CommandTimeout("no reply within the deadline"))
        if wire.waiters and not wire.heard and self._silence >= self._deadline:
            if self._silence >= self._timing.silent_after:
                wire.lose(SILENT)
                return
            self._on_held(SILENT)
            self.probe()
        self._look_later(now)
