"""The hot lane: one RESP3 connection per process that all callers share, and that heals itself.

``MultiplexedClient.call`` costs no task and no timer. While no connection answers in time it fails at once, and the
connector looks for one in the background.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import hiredis

from ..exceptions import CacheUnavailable, NotConnected, TooManyInFlight
from .connection import TOO_LARGE, Argument, RespConnection, fail, pack
from .connector import Connector, Endpoint
from .heartbeat import Heartbeat, Timing

_FULL = "too much in flight"


class MultiplexedClient:
    """One multiplexed connection to Redis.

    deadline: seconds a call may take. connect_timeout: seconds one attempt to connect may take, TLS and AUTH included.
    heartbeat: seconds between pings. silent_after: seconds of silence after which a connection is given up.
    setup: commands sent on every new connection before it is used. A refusal of one stops nothing.
    on_setup: called with the replies to them, ReplyErrors among them, before the connection is used.
    on_up: runs in a task of its own each time a new connection begins to be used; cancelled when that is lost.
    on_down: called with a reason (never credentials) when the connection is lost, and while there is none each time
    the reason changes. A held connection is not lost: `up` is False meanwhile, but the server still tracks for it.
    on_push: called with every push, in order with the replies; if it raises, the connection is given up.
    largest_reply: bytes; a larger one costs the connection.
    on_too_large: called with the keys that were read when a reply was larger and its connection was closed for it.

    Not for commands that block or change the connection (SELECT, SUBSCRIBE, BLPOP, CLIENT REPLY). A MULTI and its EXEC
    belong into one `call_many`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        deadline: float = 0.05,
        connect_timeout: float = 5.0,
        max_in_flight: int = 10_000,
        heartbeat: float = 0.25,
        silent_after: float = 0.25,
        on_up: Callable[[], Coroutine[Any, Any, None]] | None = None,
        on_down: Callable[[str], None] | None = None,
        on_push: Callable[[list[Any]], None] | None = None,
        setup: Sequence[tuple[Argument, ...]] = (),
        on_setup: Callable[[list[Any]], None] | None = None,
        largest_reply: int = 0,
        on_too_large: Callable[[list[str]], None] | None = None,
    ) -> None:
        self._timing = Timing(deadline, heartbeat, max(deadline, silent_after))
        self._dialler = Connector(endpoint, setup, connect_timeout, max_in_flight, self._explain)
        self._on_up, self._on_down, self._on_push, self._on_setup = on_up, on_down, on_push, on_setup
        self._largest_reply, self._on_too_large = largest_reply, on_too_large
        self._loop: asyncio.AbstractEventLoop | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._up_task: asyncio.Task[None] | None = None
        self.active: RespConnection | None = None  # takes calls
        self.connection: RespConnection | None = None  # what there is, also while it is held
        self._announced: RespConnection | None = None  # the last connection on_up was called for
        self._told = ""  # the last reason on_down was given
        # Loop time at which the last answered ping was sent: what a near cache may rely on.
        self.proven_at = -math.inf
        self.reason = "not started"  # why no calls are taken; "" while they are

    @property
    def up(self) -> bool:
        """Whether a call made now would be sent."""
        return self.active is not None

    @property
    def unsupported(self) -> bool:
        """The server answers, but is no single node that speaks RESP3. It is asked again every 30 s."""
        return self._dialler.unsupported

    def call(self, *args: Argument) -> asyncio.Future[Any]:
        """Sends one command; the future becomes its reply: bytes, int, float, bool, None, list or dict.

        It fails with a ``TransportError``. Cancelling it is always safe. Nothing is raised here but TypeError and
        UnicodeEncodeError, for an argument that cannot be sent.
        """
        command = pack(args)
        wire = self.active
        if wire is None:
            return self._refuse(NotConnected(self.reason))
        if len(wire.waiters) >= wire.room:
            return self._refuse(TooManyInFlight(_FULL))
        return wire.send(command)

    def call_many(self, commands: Sequence[tuple[Argument, ...]]) -> list[asyncio.Future[Any]]:
        """Sends commands that the server sees in this order with nobody else's between them: all of them or none."""
        packed = [pack(command) for command in commands]
        wire = self.active
        if wire is None:
            return [self._refuse(NotConnected(self.reason)) for _ in packed]
        if len(wire.waiters) + len(packed) > wire.room:
            return [self._refuse(TooManyInFlight(_FULL)) for _ in packed]
        return wire.send_together(packed)

    def _refuse(self, error: CacheUnavailable) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = (self._loop or asyncio.get_running_loop()).create_future()
        fail(future, error)
        return future

    def start(self) -> None:
        """Begins to connect, in the running loop. Once in a lane's life."""
        if self._loop is not None:
            raise RuntimeError("a lane is started once")
        self._loop, self.reason = asyncio.get_running_loop(), "not connected yet"
        self._supervisor = self._loop.create_task(self._supervise(self._loop), name="cache-lane")
        self._supervisor.add_done_callback(self._check)

    async def close(self) -> None:
        """Writes what was queued, fails what is in flight, and leaves no task or socket behind. Not from `on_up`."""
        self._told = "closed"
        wire, tasks = self.connection, {task for task in (self._supervisor, self._up_task) if task is not None}
        for task in tasks:
            task.cancel()
        if wire is not None:
            await wire.end("closed", politely=True)
        if tasks:
            await asyncio.wait(tasks)
        await self._dialler.close()
        self.reason = "closed"

    async def _supervise(self, loop: asyncio.AbstractEventLoop) -> None:
        lived = math.inf
        while True:
            wire, greeted = await self._dialler.connect(lived)
            began = loop.time()
            if wire.ended.done():
                self._explain(wire.ended.result())
            else:
                self.connection = wire
                if self._on_setup is not None:
                    self._on_setup(wire.set_up)
                watch = Heartbeat(wire, self._timing, self._proven, self._held)
                wire.adopt(watch, self._on_push, self._lost, self._largest_reply)
                if began - greeted <= self._timing.deadline:
                    self._proven(greeted)
                else:
                    self._explain("slow")
                    watch.probe()
                await asyncio.wait({wire.ended})
            lived = loop.time() - began

    def _proven(self, sent: float) -> None:
        self.proven_at = sent
        if self.active is None and self._loop is not None:
            self.active, self.reason, self._told = self.connection, "", ""
            if self._on_up is not None and self._announced is not self.connection:
                self._announced = self.connection
                self._up_task = self._loop.create_task(self._on_up(), name="cache-lane-up")
                self._up_task.add_done_callback(self._check)

    def _held(self, reason: str) -> None:
        self.active, self.reason = None, reason

    def _lost(self, reason: str, unread: list[bytes]) -> None:
        self.active = self.connection = None
        self.proven_at = -math.inf
        if self._up_task is not None:
            self._up_task.cancel()
        if reason == TOO_LARGE and unread and self._on_too_large is not None:
            self._on_too_large(_keys_read_by(unread[0]))
        self._explain(reason)

    def _check(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report(f"{task.get_name()} failed", error)

    def _explain(self, reason: str) -> None:
        self.reason = reason
        if self._on_down is not None and reason != self._told:
            self._told = reason
            try:
                self._on_down(reason)
            except Exception as error:
                self._report("on_down failed", error)

    def _report(self, message: str, error: BaseException) -> None:
        if self._loop is not None:
            self._loop.call_exception_handler({"message": message, "exception": error})


def _keys_read_by(command: bytes) -> list[str]:
    """The keys whose values a packed command of ours reads."""
    reader = hiredis.Reader()
    reader.feed(command)
    name, *arguments = reader.gets()
    read = arguments if name == b"GET" else []
    if name == b"EVALSHA":
        read = arguments[2 : 2 + int(arguments[1])]
    return [key.decode(errors="surrogateescape") for key in read]
