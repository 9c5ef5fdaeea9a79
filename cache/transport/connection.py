"""One RESP3 connection to Redis that many callers share.

A ``RespConnection`` lives from connect to loss. It writes the commands of one loop tick together and gives every reply
to the caller whose turn it is. ``heartbeat`` enforces deadlines; ``multiplexer`` replaces a lost connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

import hiredis

from ..exceptions import CommandRejected, ConnectionLost

Argument = bytes | str | int
# The stub of hiredis types the argument as a tuple of exactly one item.
pack = cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)

# Unsent bytes above which new calls are refused, and below which they are taken again.
_UNSENT_HIGH, _UNSENT_LOW = 8 << 20, 2 << 20
# So many lone commands in a row, and the next one is written at once instead of at the end of the tick.
_LONE = 4
# So many commands queued in one tick, and they are written before the rest: the server begins while we still queue.
_HEAD_START = 32
_CLOSING = 0.25
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time at all
# Why a wire is lost over a reply.
SILENT, TOO_LARGE = "silent", "reply too large"
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPALIVE", 30), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))


class Watchdog(Protocol):
    """Who keeps the deadlines of a wire. While it is idle it is woken by the next command."""

    idle: bool

    def wake(self) -> None: ...
    def stop(self) -> None: ...


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """Fails a future that perhaps nobody awaits any more, without asyncio complaining about that."""
    future.set_exception(error)
    future.exception()


def _nowhere(_: bytes) -> None:
    """What an unconnected wire writes to."""


class RespConnection(asyncio.Protocol):
    """One connection. It belongs to whoever dialled it until it is adopted."""

    def __init__(self, loop: asyncio.AbstractEventLoop, room: int) -> None:
        reader = hiredis.Reader(replyError=CommandRejected, notEnoughData=Ellipsis)
        self.loop, self._now = loop, loop.time
        self._feed, self._gets = reader.feed, reader.gets
        # Every command sent and not yet answered, oldest first, with the loop time of its call and what was asked. An
        # abandoned one (timed out or cancelled: its future is done) keeps its place until its reply has been read.
        self.waiters: deque[tuple[asyncio.Future[Any], float, bytes]] = deque()
        self.heard = False  # something arrived since the watcher last looked
        self.room = self._room = room  # most commands in flight; 0 while the socket does not take what we have
        self.ended: asyncio.Future[str] = loop.create_future()  # why the wire was lost
        self._closed: asyncio.Future[None] = loop.create_future()
        self._out: list[bytes] = []
        self._flushing = False
        self._started = False  # part of this tick's commands has been written already
        self._lone = 0
        self._transport: asyncio.Transport | None = None
        self.write: Callable[[bytes], object] = _nowhere
        self._watcher: Watchdog | None = None
        self._on_push: Callable[[list[Any]], None] | None = None
        self._on_lost: Callable[[str, list[bytes]], None] | None = None
        self._largest, self._partial = 0, 0  # bytes a reply may have; and those of one that is not complete
        self.set_up: list[Any] = []  # the replies to what was sent before the wire was used, refusals among them

    def adopt(
        self,
        watcher: Watchdog,
        on_push: Callable[[list[Any]], None] | None,
        on_lost: Callable[[str, list[bytes]], None],
        largest: int = 0,
    ) -> None:
        """From here on somebody keeps the deadlines, wants the pushes, and is told of the loss.

        `on_lost` is told why, and which commands were not answered, in their order. A reply of more than
        `largest` bytes (0: any number) costs the connection: nobody else would be answered until it is through.
        """
        self._watcher, self._on_push, self._on_lost, self._largest = watcher, on_push, on_lost, largest

    # Sending

    @property
    def unsent_bytes(self) -> int:
        """Bytes that were written and that the kernel has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(self, command: bytes) -> asyncio.Future[Any]:
        """Queues one encoded command; the future becomes its reply, CommandRejected or CacheUnavailable."""
        future: asyncio.Future[Any] = self.loop.create_future()
        waiters = self.waiters
        if self._lone >= _LONE and not waiters:
            # A caller that awaits one command after the other gains nothing from the end of the tick, and a
            # turn of the loop is a good part of what a command costs.
            waiters.append((future, self._now(), command))
            self.write(command)
            if self._watcher is not None and self._watcher.idle:
                self._watcher.wake()
            return future
        waiters.append((future, self._now(), command))
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
        """Queues commands that reach the server in one piece, with nobody else's between them."""
        self._lone = 0
        return [self.send(command) for command in commands]

    def _flush(self) -> None:
        self._flushing = self._started = False
        out = self._out
        if len(out) == 1:
            self._lone = self._lone + 1 if len(self.waiters) == 1 else 0
            self.write(out[0])
        elif out:
            self._lone = 0
            self.write(b"".join(out))
        out.clear()
        if self._watcher is not None and self._watcher.idle and self.waiters:
            self._watcher.wake()

    # Receiving

    def data_received(self, data: bytes) -> None:
        self.heard = True
        gets = self._gets
        try:
            self._feed(data)
            reply = gets()
            if reply is Ellipsis:
                self._partial += len(data)
                if 0 < self._largest < self._partial:
                    self.lose(TOO_LARGE)
                return
            self._partial = 0
            while reply is not Ellipsis:
                kind = type(reply)
                if kind is hiredis.PushNotification:
                    self._push(reply)
                else:
                    future = self.waiters.popleft()[0]
                    if not future.done():
                        if kind is CommandRejected:
                            fail(future, reply)
                        else:
                            future.set_result(reply)
                reply = gets()
        except (hiredis.ProtocolError, IndexError):  # IndexError: a reply nobody asked for
            self.lose("protocol error")

    def _push(self, push: list[Any]) -> None:
        if self._on_push is None:
            return
        try:
            self._on_push(push)
        except Exception as error:
            # Whoever keeps copies of values has missed an invalidation: only a new connection makes it sound again.
            self.loop.call_exception_handler({"message": "push handler failed", "exception": error})
            self.lose("push handler failed")

    # Life and death

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_UNSENT_HIGH, _UNSENT_LOW)
        self.write = self._transport.write
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):  # a socket that just died is found out soon enough
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for name, value in _KEEPALIVE:
                    if hasattr(socket, name):
                        sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def pause_writing(self) -> None:
        self.room = 0

    def resume_writing(self) -> None:
        self.room = self._room

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose("connection lost")
        self._closed.set_result(None)

    def lose(self, reason: str, *, politely: bool = False) -> None:
        """Ends the wire and fails all who wait. Politely: what was queued is still written first."""
        if self.ended.done():
            return
        self.ended.set_result(reason)
        if self._transport is not None:
            if politely:
                self.write(b"".join(self._out))
                self._transport.close()
            else:
                self._abort(self._transport)
        self.write = _nowhere
        self._out.clear()
        if self._watcher is not None:
            self._watcher.stop()
        unanswered = [command for *_, command in self.waiters]
        while self.waiters:
            future = self.waiters.popleft()[0]
            if not future.done():
                fail(future, ConnectionLost(reason))
        if self._on_lost is not None:
            self._on_lost(reason, unanswered)

    def _abort(self, transport: asyncio.Transport) -> None:
        """Hang up with a reset. Otherwise the kernel would go on delivering what it has, for minutes if need be.

        A SET that nobody answered would then be carried out after a later one, which was answered over the next
        connection.
        """
        sock = transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()

    async def end(self, reason: str, *, politely: bool = False) -> None:
        """Loses the wire and waits until its socket is closed, for half a second at most."""
        self.lose(reason, politely=politely)
        if self._transport is not None:
            await asyncio.wait({self._closed}, timeout=_CLOSING)
            if not self._closed.done():
                self._abort(self._transport)
                await asyncio.wait({self._closed}, timeout=_CLOSING)
