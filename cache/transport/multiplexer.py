"""The multiplexed client: one RESP3 connection per event loop, shared by all callers, that reconnects by itself.

``MultiplexedClient.call`` costs no task and no timer. While no connection answers in time it fails at once, and the
connector makes a new one in the background.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import hiredis

from ..background import BackgroundTasks
from ..exceptions import CacheUnavailable, CommandTimeout, NotConnected, TooManyInFlight, TransportError
from ..redis_url import Endpoint
from .connection import TOO_LARGE, Argument, RespConnection, fail, pack
from .connector import Connector
from .heartbeat import Heartbeat
from .listener import TransportListener

_FULL = "too much in flight"


class MultiplexedClient:
    """One multiplexed connection to Redis.

    Not for commands that block or change the connection (SELECT, SUBSCRIBE, BLPOP, CLIENT REPLY). A MULTI and its EXEC
    belong into one :meth:`call_many`.

    Args:
        endpoint: where Redis is. Connecting begins at once, in the running loop.
        listener: learns about the connection. ``on_connected`` is run as a task, and cancelled when the connection is
            lost. A suspended connection is not lost: :attr:`up` is False meanwhile, but the server still tracks for it.
        deadline: seconds a command may take.
        connect_timeout: seconds one attempt to connect may take, TLS and AUTH included.
        max_in_flight: commands that may await a reply.
        heartbeat: seconds between pings.
        silent_after: seconds of silence after which a connection is closed.
        handshake: commands sent on every new connection before it is used. Each may be rejected.
        on_handshake: called with the replies to them, rejections among them, before the connection is used.
        largest_reply_bytes: a larger reply loses the connection; 0 allows any size.

    Attributes:
        active: the connection that accepts commands; None while there is none, or it is suspended.
        connection: the present connection, also while it is suspended.
        started_at: loop time at which it began to connect.
        proven_at: loop time at which the last answered ping was sent. A near cache may rely on it.
        reason: why no commands are accepted; empty while they are.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        listener: TransportListener,
        *,
        deadline: float = 0.05,
        connect_timeout: float = 5.0,
        max_in_flight: int = 10_000,
        heartbeat: float = 0.25,
        silent_after: float = 0.25,
        handshake: Sequence[tuple[Argument, ...]] = (),
        on_handshake: Callable[[list[Any]], None] = lambda _: None,
        largest_reply_bytes: int = 0,
    ) -> None:
        self._deadline, self._heartbeat, self._silent_after = deadline, heartbeat, max(deadline, silent_after)
        self._connector = Connector(endpoint, handshake, connect_timeout, max_in_flight, self._explain)
        self._listener, self._on_handshake = listener, on_handshake
        self._largest_reply_bytes = largest_reply_bytes
        self._loop = asyncio.get_running_loop()
        self._tasks = BackgroundTasks()
        self._up_task: asyncio.Task[None] | None = None  # reports the present connection, if it has been up
        self.active: RespConnection | None = None
        self.connection: RespConnection | None = None
        self._reported = ""  # the last reason that was reported
        self.started_at, self.proven_at = self._loop.time(), -math.inf
        self.reason = "not connected yet"
        self._spawn(self._supervise(), "cache-connection")

    @property
    def up(self) -> bool:
        """Whether a command would be sent now."""
        return self.active is not None

    @property
    def unsupported(self) -> bool:
        """Whether the server answers but does not speak RESP3, or is no single server. Checked again every 30 s."""
        return self._connector.unsupported

    def call(self, *args: Argument) -> asyncio.Future[Any]:
        """Send one command. The future becomes its reply: bytes, int, float, bool, None, list or dict.

        It fails with a ``TransportError``. Cancelling it is always safe. Nothing is raised here but TypeError and
        UnicodeEncodeError, for an argument that cannot be sent.
        """
        command = pack(args)
        connection = self.active
        if connection is None:
            return self._refuse(NotConnected(self.reason))
        if len(connection.in_flight) >= connection.capacity:
            return self._refuse(TooManyInFlight(_FULL))
        return connection.send(command)

    def call_many(self, commands: Sequence[tuple[Argument, ...]]) -> list[asyncio.Future[Any]]:
        """Send commands that the server reads consecutively: all of them or none."""
        packed = [pack(command) for command in commands]
        connection = self.active
        if connection is None:
            return [self._refuse(NotConnected(self.reason)) for _ in packed]
        if len(connection.in_flight) + len(packed) > connection.capacity:
            return [self._refuse(TooManyInFlight(_FULL)) for _ in packed]
        return connection.send_together(packed)

    def _refuse(self, error: CacheUnavailable) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        fail(future, error)
        return future

    async def close(self) -> None:
        """Write what is queued, fail what is in flight, end every task and socket. Not for use in ``on_connected``."""
        self._reported = "closed"
        await self._tasks.cancel()
        if self.connection is not None:
            await self.connection.end("closed", politely=True)
        await self._connector.close()
        self.reason = "closed"

    async def _supervise(self) -> None:
        lived = math.inf
        while True:
            connection = await self._connector.connect(lived)
            began = self._loop.time()
            if connection.ended.done():
                self._explain(connection.ended.result())
            else:
                self.connection = connection
                self._on_handshake(connection.handshake_replies)
                timer = Heartbeat(
                    connection, self._deadline, self._heartbeat, self._silent_after, self._proven, self._suspended
                )
                connection.adopt(timer.wake, self._listener.on_push, self._lost, self._largest_reply_bytes)
                if began - connection.greeted_at <= self._deadline:
                    self._proven(connection.greeted_at)
                else:
                    self._explain("slow")
                    timer.probe()
                await asyncio.wait({connection.ended})
            lived = self._loop.time() - began

    def _proven(self, sent: float) -> None:
        self.proven_at = sent
        if self.active is None:
            self.active, self.reason, self._reported = self.connection, "", ""
            if self._up_task is None:
                self._up_task = self._spawn(self._listener.on_connected(), "cache-connected")

    def _suspended(self, reason: str) -> None:
        self.active, self.reason = None, reason

    def _lost(self, reason: str, unanswered: list[bytes]) -> None:
        self.active = self.connection = None
        self.proven_at = -math.inf
        if self._up_task is not None:
            self._up_task.cancel()
            self._up_task = None
        if reason == TOO_LARGE and unanswered:
            self._listener.on_reply_too_large(_keys_read_by(unanswered[0]))
        self._explain(reason)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._tasks.spawn(work, name)
        task.add_done_callback(self._check)
        return task

    def _check(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report(f"{task.get_name()} failed", error)

    def _explain(self, reason: str) -> None:
        self.reason = reason
        if reason != self._reported:
            self._reported = reason
            try:
                self._listener.on_disconnected(reason)
            except Exception as error:
                self._report("on_disconnected failed", error)

    def _report(self, message: str, error: BaseException) -> None:
        self._loop.call_exception_handler({"message": message, "exception": error})


async def replies(futures: Sequence[asyncio.Future[Any]], deadline: float | None) -> list[Any]:
    """Await replies until ``deadline`` (loop time; None leaves it to the deadline of each command).

    Raises:
        TransportError: the first failure.
    """
    if deadline is not None:
        await asyncio.wait(futures, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        late = [future for future in futures if not future.done()]
        for future in late:
            future.cancel()
        if late:
            raise CommandTimeout("no reply within what was left of the deadline")
    return [await future for future in futures]


async def outcome(future: asyncio.Future[Any]) -> Any:
    """Await one reply; a ``TransportError`` is returned in its place."""
    try:
        return await future
    except TransportError as problem:
        return problem


def _keys_read_by(command: bytes) -> list[str]:
    """The keys whose values a packed command of ours reads."""
    reader = hiredis.Reader()
    reader.feed(command)
    name, *arguments = reader.gets()
    read = arguments if name == b"GET" else []
    if name == b"EVALSHA":
        read = arguments[2 : 2 + int(arguments[1])]
    return [key.decode(errors="surrogateescape") for key in read]
