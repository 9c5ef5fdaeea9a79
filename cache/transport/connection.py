"""One RESP3 connection to Redis that many callers share.

A ``RespConnection`` lives from connect to loss. It writes the commands of one loop iteration together, and gives every
reply to the caller whose turn it is. ``heartbeat`` enforces deadlines; ``multiplexer`` replaces a lost connection.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias, cast

import hiredis

from ..exceptions import CommandRejected, CommandTimeout, ConnectionLost
from . import sockets
from .packing import pack
from .roles import ASK_ROLE, ROLE_SECONDS, why_useless

MAX_IN_FLIGHT: Final = 10_000  # commands that may await a reply
_UNSENT_HIGH, _UNSENT_LOW = 8 << 20, 2 << 20  # unsent bytes above which calls are refused, and below which they are not
_LONE_STREAK = 4  # commands that were alone in their loop iteration, in a row, after which the next is written at once
# Commands queued in one loop iteration after which they are written: the server begins while the rest is queued.
_HEAD_START = 32
_CLOSE_TIMEOUT = 0.25
# Reasons for which a connection is lost.
SILENT, TOO_LARGE = "silent", "reply too large"


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """Fail a future that may have no waiter, so that asyncio logs no "never retrieved" warning."""
    future.set_exception(error)
    future.exception()


def expire(future: asyncio.Future[Any]) -> None:
    """Fail a future whose deadline has passed, if it still waits."""
    if not future.done():
        fail(future, CommandTimeout("no reply within the deadline"))


Sent: TypeAlias = tuple[asyncio.Future[Any], float, bytes]
"""A command: the future of its reply, the loop time of the call, and the packed command."""
Redirect: TypeAlias = Callable[[Sent, CommandRejected], bool]
"""Sends elsewhere what a server rejects. Returns whether that is done."""


class Owner(Protocol):
    """What uses a connection after its handshake."""

    largest_reply_bytes: int
    """A larger reply loses the connection: it delays all others."""

    def on_push(self, push: list[Any]) -> None:
        """A push message."""

    def on_lost(self, reason: str, unanswered: list[bytes]) -> None:
        """The connection was lost, with these commands unanswered, oldest first."""

    def redirect(self, sent: Sent, rejection: CommandRejected) -> bool:
        """See :data:`Redirect`."""

    def own_key(self) -> str | None:
        """A key to read together with the question for the role, if one is needed.

        A node that its cluster has lost says so for a key, and never to a PING.
        """


def _nowhere(_: bytes) -> None:
    """What an unconnected connection writes to."""


class RespConnection(asyncio.Protocol):
    """One RESP3 connection.

    Attributes:
        transport: what it writes to, once it is connected.
        in_flight: every command that was sent and not yet answered, oldest first. An abandoned one (its future is
            done) keeps its place until its reply is read.
        received: whether anything arrived since the heartbeat last looked.
        idle: whether the next command has to wake the heartbeat.
        capacity: commands that may be in flight now; 0 while the socket does not take what there is.
        ended: why the connection was lost, once it is.
        greeted_at: loop time at which the handshake was sent.
        handshake_replies: replies to the set-up commands of the handshake, rejections among them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        reader = hiredis.Reader(replyError=CommandRejected, notEnoughData=Ellipsis)
        self.loop, self._now = loop, loop.time
        self._feed, self._gets = reader.feed, reader.gets
        self.in_flight: deque[Sent] = deque()
        self.received = False
        self.capacity = MAX_IN_FLIGHT
        self.ended: asyncio.Future[str] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._out: list[bytes] = []
        self._flushing = False
        self._started = False  # whether part of this loop iteration's commands has been written
        self._lone_streak = 0
        self.transport: asyncio.Transport | None = None
        self.write: Callable[[bytes], object] = _nowhere
        self.idle = False
        self._wake: Callable[[], None] = lambda: None
        self._owner: Owner | None = None
        self._partial = 0  # bytes of an incomplete reply
        self.greeted_at = 0.0
        self.handshake_replies: list[Any] = []
        self._ask_role_at = math.inf

    def adopt(self, owner: Owner, wake: Callable[[], None]) -> None:
        """Begin regular use after the handshake. ``wake``: called with the first command while :attr:`idle`."""
        self._owner, self._wake = owner, wake
        self._ask_role_at = self._now() + ROLE_SECONDS  # the handshake has just asked

    # -- sending ---------------------------------------------------------------------------------------

    def send(self, command: bytes, future: asyncio.Future[Any] | None = None) -> asyncio.Future[Any]:
        """Queue one packed command. The future (a new one by default) becomes its reply, or fails."""
        now = self._now()
        if now >= self._ask_role_at:
            self._ask_role_at, self._lone_streak = now + ROLE_SECONDS, 0
            self.send(ASK_ROLE)
            if self._owner is not None and (key := self._owner.own_key()) is not None:
                self.send(pack((b"GET", key)))
        if future is None:
            future = self.loop.create_future()
        in_flight = self.in_flight
        if self._lone_streak >= _LONE_STREAK and not in_flight:
            # A caller that awaits one command after another gains nothing from batching, and waiting for the end of
            # the iteration is a good part of what a command costs.
            in_flight.append((future, now, command))
            self.write(command)
            if self.idle:
                self._wake()
            return future
        in_flight.append((future, now, command))
        out = self._out
        out.append(command)
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)
        elif len(out) == _HEAD_START and not self._started:
            self._started = True
            self.write(b"".join(out))
            out.clear()
        return future

    def send_together(self, commands: list[bytes]) -> list[asyncio.Future[Any]]:
        """Queue commands that the server reads consecutively, with no other caller's between them."""
        self._lone_streak = 0
        return [self.send(command) for command in commands]

    def _flush(self) -> None:
        self._flushing = self._started = False
        out = self._out
        if len(out) == 1:
            self._lone_streak = self._lone_streak + 1 if len(self.in_flight) == 1 else 0
            self.write(out[0])
        elif out:
            self._lone_streak = 0
            self.write(b"".join(out))
        out.clear()
        if self.idle and self.in_flight:
            self._wake()

    # -- receiving -------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.received = True
        gets = self._gets
        try:
            self._feed(data)
            reply = gets()
            if reply is Ellipsis:
                self._partial += len(data)
                if self._owner is not None and self._partial > self._owner.largest_reply_bytes:
                    self.lose(TOO_LARGE)
                return
            self._partial = 0
            while reply is not Ellipsis:
                kind = type(reply)
                if kind is hiredis.PushNotification:
                    self._push(reply)
                elif (kind is dict or kind is CommandRejected) and self._owner and (why := why_useless(reply)):
                    self.lose(why)
                    return
                else:
                    sent = self.in_flight.popleft()
                    future = sent[0]
                    if not future.done():
                        if kind is not CommandRejected:
                            future.set_result(reply)
                        elif self._owner is None or not self._owner.redirect(sent, reply):
                            fail(future, reply)
                reply = gets()
        except (hiredis.ProtocolError, IndexError):  # IndexError: a reply without a command
            self.lose("protocol error")

    def _push(self, push: list[Any]) -> None:
        try:
            if self._owner is not None:
                self._owner.on_push(push)
        except Exception as error:
            # The near cache may have missed an invalidation: only a new connection makes it coherent again.
            self.loop.call_exception_handler({"message": "push handler failed", "exception": error})
            self.lose("push handler failed")

    # -- asyncio.Protocol, and the end -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(_UNSENT_HIGH, _UNSENT_LOW)
        self.write = self.transport.write
        sockets.tune(transport)

    def pause_writing(self) -> None:
        self.capacity = 0

    def resume_writing(self) -> None:
        self.capacity = MAX_IN_FLIGHT

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose("connection lost")
        self._closed.set_result(None)

    def lose(self, reason: str, *, politely: bool = False) -> None:
        """End the connection and fail every command in flight.

        Args:
            reason: free of credentials.
            politely: write what is queued first, and close instead of resetting.
        """
        if self.ended.done():
            return
        self.ended.set_result(reason)
        if self.transport is not None:
            if politely:
                self.write(b"".join(self._out))
                self.transport.close()
            else:
                sockets.reset(self.transport)
        self.write = _nowhere
        self._out.clear()
        unanswered = [command for *_, command in self.in_flight]
        while self.in_flight:
            future = self.in_flight.popleft()[0]
            if not future.done():
                fail(future, ConnectionLost(reason))
        if self._owner is not None:
            self._owner.on_lost(reason, unanswered)

    async def end(self, reason: str, *, politely: bool = False) -> None:
        """As :meth:`lose`, and wait at most half a second until the socket is closed."""
        self.lose(reason, politely=politely)
        if self.transport is not None:
            await asyncio.wait({self._closed}, timeout=_CLOSE_TIMEOUT)
            if not self._closed.done():
                sockets.reset(self.transport)
                await asyncio.wait({self._closed}, timeout=_CLOSE_TIMEOUT)
