"""The timer of a connection: deadlines of all callers, silence of the server, proof that it answers.

One timer serves all callers, and none runs while nothing is in flight except the heartbeat, which is quick only while
a near cache needs the proof, and else pings only a connection that was silent: of ten thousand idle conversations the
server should hear nothing. It fires every quarter of a deadline and at the deadline of the oldest command. Three
states, in this order of severity:

late: a command got no reply within the deadline. It fails; its place in the queue remains until its reply is read.
suspended: nothing arrived for a deadline, or a ping was late; or a command is late, and nothing arrived for more than
  half of its time, so that a call of many steps waits with one of them only. No commands are accepted until a ping is
  answered in time, so a server that pauses for 60 ms costs its callers those 60 ms and no reconnect.
silent: nothing arrived for a deadline, and at least for a quarter of a second. The connection is closed.

A blocked loop of our own does not count as silence of the server: only time while the loop was running counts, and
two loop iterations pass before a state changes, so that replies already in the socket are read. A command's own
deadline is real time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from ..exceptions import CommandRejected
from ..settings import CacheSettings
from .connection import SILENT, RespConnection, expire
from .packing import pack

PING_EVERY = 0.25  # seconds between two pings while a near cache needs the proof
NEEDED_FOR: Final = 5.0  # seconds after a near cache has last needed the proof for which it gets it
_SILENT_AFTER: Final = 0.25  # seconds; more with a longer deadline
_CHECK_EVERY: Final = 0.0125  # seconds between two checks while a command is in flight; less with a short deadline


class Heartbeat:
    """Watches one connection until it is lost.

    Args:
        connection: what it watches.
        settings: ``deadline``: seconds within which a command has to be answered. ``health_check_interval``: seconds of
            silence before a ping; 0 for none. ``near``: whether there is a near cache, and quick pings while it needs
            the proof.
        needed_at: says at which loop time a near cache has last needed it.
        on_proven: called with the loop time at which a ping was sent, each time one is answered within the deadline.
        on_suspended: called with a reason when no more commands should be sent, until the next ``on_proven``.
    """

    def __init__(
        self,
        connection: RespConnection,
        settings: CacheSettings,
        needed_at: Callable[[], float],
        on_proven: Callable[[float], None],
        on_suspended: Callable[[str], None],
    ) -> None:
        self._connection, self._loop = connection, connection.loop
        self._deadline, self._idle_interval = settings.deadline, settings.health_check_interval
        self._near, self._needed_at = bool(settings.near), needed_at
        self._step = min(self._deadline / 4, _CHECK_EVERY)
        self._on_proven, self._on_suspended = on_proven, on_suspended
        self._timer: asyncio.Handle | None = None
        self._beat_timer: asyncio.Handle | None = None
        self._quick = False  # whether the next beat is as soon as a near cache needs it
        self._pong: asyncio.Future[Any] | None = None  # the ping in flight; unlike a command it stays when late
        self._pings, self._pinged, self._late = 0, 0.0, False
        self._checked_at, self._silence = self._loop.time(), 0.0  # loop time of the last check; seconds of silence
        connection.idle = True
        self._next_beat()
        connection.ended.add_done_callback(self._stop)

    def wake(self) -> None:
        """A command is in flight: start the timer."""
        connection, now = self._connection, self._loop.time()
        connection.idle = False
        self._checked_at, self._silence, connection.received = now, 0.0, False
        self._schedule_check(now)
        if not self._quick and self.is_needed(now):
            self._beat()

    def _stop(self, _: object) -> None:
        self._connection.idle = False
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def probe(self) -> None:
        """Send a ping, unless one is in flight."""
        if self._pong is None:
            self._pings += 1
            self._pinged, self._late = self._loop.time(), False
            (self._pong,) = self._connection.send_together([pack((b"PING", self._pings))])
            self._pong.add_done_callback(self._ponged)

    def _beat(self) -> None:
        silent = self._next_beat()
        if silent or self._quick:
            self.probe()

    def _next_beat(self) -> bool:
        """Set the timer of the next beat. Returns whether the connection was silent for the idle interval."""
        now, idle_interval = self._loop.time(), self._idle_interval
        silence = now - self._checked_at  # at least: the last command was answered by then
        self._quick = self.is_needed(now)
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        pause = PING_EVERY if self._quick else idle_interval - silence % idle_interval if idle_interval else None
        self._beat_timer = self._loop.call_later(pause, self._beat) if pause else None
        return silence >= idle_interval

    def is_needed(self, now: float) -> bool:
        """Whether a near cache needs the proof."""
        return self._near and now - self._needed_at() < NEEDED_FOR

    def _ponged(self, pong: asyncio.Future[Any]) -> None:
        self._pong = None
        if self._connection.ended.done():
            return
        error = pong.exception()
        if isinstance(error, CommandRejected) and error.code != "NOPERM":  # NOPERM: not allowed to PING, but answered
            self._connection.lose(error.code)
        elif error is None and pong.result() != b"%d" % self._pings:
            self._connection.lose("out of step")  # something between us and the server has lost bytes
        elif self._late:
            self.probe()
        else:
            self._on_proven(self._pinged)

    def _schedule_check(self, now: float) -> None:
        when = now + self._step
        for future, called, _ in self._connection.in_flight:
            if not (future.done() or (future is self._pong and self._late)):
                when = min(when, called + self._deadline)
                break
        self._timer = self._loop.call_at(when, self._check)

    def _check(self) -> None:
        connection, now = self._connection, self._loop.time()
        # After a blocked loop at most two steps count, so a loop that is blocked often still detects silence.
        self._silence = 0.0 if connection.received else self._silence + min(now - self._checked_at, 2 * self._step)
        connection.received, self._checked_at = False, now
        if not connection.in_flight:
            self._timer, connection.idle = None, True
        elif self._silence >= self._deadline or connection.in_flight[0][1] + self._deadline <= now:
            # Two iterations, because some loops run timers before they read sockets and some after.
            self._timer = self._loop.call_soon(self._check_again)
        else:
            self._schedule_check(now)

    def _check_again(self) -> None:
        self._timer = self._loop.call_soon(self._judge)

    def _judge(self) -> None:
        connection, now, silent = self._connection, self._loop.time(), self._silence >= self._deadline
        for future, called, _ in connection.in_flight:
            if called + self._deadline > now:
                break
            if future is self._pong:
                self._late = True
                self._on_suspended("slow")
            else:
                expire(future)
                silent = self._silence > self._deadline / 2  # counted from when it was written, which is later
        if connection.in_flight and not connection.received and silent:
            if self._silence >= max(self._deadline, _SILENT_AFTER):
                connection.lose(SILENT)
                return
            self._on_suspended(SILENT)
            self.probe()
        self._schedule_check(now)
