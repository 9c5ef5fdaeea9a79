"""The multiplexed client: one RESP3 connection per event loop, shared by all callers, that reconnects by itself.

``MultiplexedClient.call`` costs no task and no timer. While no connection answers in time it fails at once, and the
connector makes a new one in the background.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, Final

from ..background import BackgroundTasks
from ..exceptions import CommandRejected, NotConnected, TooManyInFlight, WrongKind
from ..redis_url import Endpoint, host_port
from ..settings import CacheSettings
from .client import Argument, ClientListener, Command, Node, OneServer
from .connection import TOO_LARGE, Redirect, RespConnection, Sent, expire, fail
from .connector import Connector
from .heartbeat import Heartbeat
from .packing import key_of, pack, unpack

LARGEST_REPLY_BYTES: Final = 16 << 20  # a larger reply loses the connection; no value of ours comes near it


class MultiplexedClient(OneServer):
    """One multiplexed connection to one server.

    Not for commands that block or change the connection (SELECT, SUBSCRIBE, BLPOP, CLIENT REPLY). A MULTI and its EXEC
    belong into one :meth:`call_many`.

    Args:
        endpoint: where Redis is.
        listener: learns about the connection. A suspended connection is not lost: :attr:`up` is False meanwhile, but
            the server still tracks for it.
        settings: of the cache.
        handshake: returns the commands sent on a new connection to this node before it is used. Each may be rejected.
        redirect: given by a cluster: sends elsewhere what this node rejects.
        own_key: given by a cluster: called once a second while commands are sent, with whether a near cache relies on
            this node. Names a key that it should serve then, if one is known.
        on_late: given by a cluster: called if connecting takes longer than a call may.

    Attributes:
        only: this one; see :class:`Client`.
        active: the connection that accepts commands; None while there is none, or it is suspended.
        connection: the present connection, also while it is suspended.
        largest_reply_bytes: a larger reply loses the connection.
        started: whether :meth:`start` was called.
        last_answer: loop time at which Redis ceased to answer, or connecting began; of no meaning while it answers.
        proven_at: loop time at which the last answered ping was sent over this connection, or its handshake; minus
            infinity before. A near cache may rely on it.
        needed_at: loop time at which a near cache has last done so, or kept what was read over this connection.
        reason: why no commands are accepted; empty while they are.
    """

    resp3: Final = True

    def __init__(
        self,
        endpoint: Endpoint,
        listener: ClientListener,
        settings: CacheSettings,
        *,
        handshake: Callable[[Node], Sequence[Command]],
        redirect: Redirect | None = None,
        own_key: Callable[[Node, bool], str | None] = lambda *_: None,
        on_late: Callable[[], None] = lambda: None,
    ) -> None:
        self.only: Final = self
        self.name = endpoint.unix_path or host_port(endpoint.host, endpoint.port)
        self.needed_at: float = -math.inf
        self._connector = Connector(
            endpoint,
            lambda: handshake(self),
            settings.socket_connect_timeout,
            self._failed,
            node=redirect is not None,
        )
        self._listener, self._settings = listener, settings
        self._redirect, self._own_key, self._on_late = redirect, own_key, on_late
        self._deadline = settings.deadline
        self._loop, self._tasks = asyncio.get_running_loop(), BackgroundTasks()
        self.largest_reply_bytes = max(LARGEST_REPLY_BYTES, 2 * settings.max_value_bytes)
        self._heartbeat: Heartbeat | None = None  # of the present connection, or the last one
        self.active: RespConnection | None = None
        self.connection: RespConnection | None = None
        self._reported = ""  # the last reason that was reported
        self.started = False
        self._settled = self._loop.create_future()  # done when the first attempt has succeeded, or failed, or is late
        self.last_answer, self.proven_at = self._loop.time(), -math.inf
        self.reason = "not connected yet"

    def start(self) -> None:
        """Begin connecting in the background. Once."""
        self.started, self.last_answer = True, self._loop.time()
        # Not in the context of the call that needs the connection: it would be kept as long as this task runs.
        self._tasks.spawn(self._supervise(), "cache-connection", Context()).add_done_callback(self._ended)
        self._loop.call_later(self._deadline, self._late)

    @property
    def up(self) -> bool:
        """Whether a command would be sent now."""
        return self.active is not None

    complete = up

    @property
    def away(self) -> bool:
        """Whether an attempt to connect has failed or is late, or the connection was lost or is suspended."""
        return self._settled.done() and self.active is None

    def call(self, *args: Argument) -> asyncio.Future[Any]:
        """Send one command. The future becomes its reply: bytes, int, float, bool, None, list or dict.

        It fails with a ``TransportError``. Cancelling it is always safe. Nothing is raised here but TypeError and
        UnicodeEncodeError, for an argument that cannot be sent.
        """
        command = pack(args)
        connection = self.active
        if connection is None or len(connection.in_flight) >= connection.capacity:
            return self._not_now([command])[0]
        return connection.send(command)

    def call_many(self, commands: Sequence[Command]) -> list[asyncio.Future[Any]]:
        """Send commands that the server reads consecutively: all of them or none."""
        packed = [pack(command) for command in commands]
        connection = self.active
        if connection is None or len(connection.in_flight) + len(packed) > connection.capacity:
            return self._not_now(packed)
        return connection.send_together(packed)

    def _not_now(self, packed: list[bytes]) -> list[asyncio.Future[Any]]:
        """Refuse commands, except that the first ones for a node of a cluster wait for its connection."""
        now = self._loop.time()
        sent: list[Sent] = [(self._loop.create_future(), now, command) for command in packed]
        self.dispatch(sent)
        return [future for future, *_ in sent]

    def dispatch(self, sent: Sequence[Sent]) -> None:
        """Send commands whose futures are waited for already: all of them or none."""
        if self._redirect is not None and not self._settled.done():
            if not self.started:
                self.start()
            self._settled.add_done_callback(lambda _: self.dispatch(sent))
            for future, called, _ in sent:
                self._loop.call_at(called + self._deadline, expire, future)
            return
        connection = self.active
        full = connection is not None and len(connection.in_flight) + len(sent) > connection.capacity
        for future, called, command in sent:
            if future.done():
                continue
            if connection is None:
                fail(future, NotConnected(self.reason))
            elif full:
                fail(future, TooManyInFlight("too much in flight"))
            else:
                connection.send(command, future)
                self._loop.call_at(called + self._deadline, expire, future)

    async def close(self) -> None:
        """Write what is queued, fail what is in flight, end every task and socket."""
        self._reported = "closed"
        await self._tasks.cancel()
        self._settle()
        if self.connection is not None:
            await self.connection.end("closed", politely=True)
        await self._connector.close()
        self.reason = "closed"

    # -- Owner, of the connection ----------------------------------------------------------------------

    def on_push(self, push: list[Any]) -> None:
        """Report it."""
        self._listener.on_push(self, push)

    def redirect(self, sent: Sent, rejection: CommandRejected) -> bool:
        """In a cluster, send elsewhere what is not here."""
        return self._redirect is not None and self._redirect(sent, rejection)

    def own_key(self) -> str | None:
        """In a cluster, while a near cache relies on this node."""
        return self._own_key(self, self._heartbeat is not None and self._heartbeat.is_needed(self._loop.time()))

    def on_lost(self, reason: str, unanswered: list[bytes]) -> None:
        """Report it. The next one is under way."""
        if self.active is not None:
            self.last_answer = self._loop.time()
        self.active = self.connection = None
        self.proven_at = -math.inf
        if reason == TOO_LARGE and unanswered and (key := key_of(unpack(unanswered[0]))) is not None:
            self._listener.on_reply_too_large(key.decode(errors="surrogateescape"))
        self._explain(reason)

    # -- connecting ------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        lived = math.inf
        while True:
            connection = await self._connector.connect(lived)
            began = self._loop.time()
            if connection.ended.done():
                self._explain(connection.ended.result())
            else:
                self.connection = connection
                self._listener.on_handshake(self, connection.handshake_replies)
                self.needed_at = self._loop.time()  # so that the first value that is kept is served
                self._heartbeat = heartbeat = Heartbeat(
                    connection, self._settings, lambda: self.needed_at, self._proven, self._suspended
                )
                connection.adopt(self, heartbeat.wake)
                if began - connection.greeted_at <= self._deadline:
                    self._proven(connection.greeted_at)
                else:
                    self._explain("slow")
                    heartbeat.probe()
                await asyncio.wait({connection.ended})
            lived = self._loop.time() - began

    def _proven(self, sent: float) -> None:
        first, self.proven_at = self.proven_at == -math.inf, sent
        if self.active is None:
            self.active, self.reason, self._reported = self.connection, "", ""
            self._settle()
            if first:
                self._tell(self._listener.on_connected)

    def _suspended(self, reason: str) -> None:
        if self.active is not None:
            self.active, self.last_answer = None, self._loop.time()
        self.reason = reason

    def _ended(self, supervising: asyncio.Task[None]) -> None:
        if not supervising.cancelled() and (error := supervising.exception()) is not None:
            self._report("cache-connection failed", error)

    def _failed(self, error: BaseException | None, reason: str) -> None:
        """An attempt to connect has failed."""
        if isinstance(error, WrongKind):
            self.reason = reason
            self._settle()
            self._listener.on_wrong_kind(self, error)
        else:
            self._explain(reason)

    def _explain(self, reason: str) -> None:
        self.reason = reason
        self._settle()
        if reason != self._reported:
            self._reported = reason
            self._tell(self._listener.on_disconnected, reason)

    def _tell(self, report: Callable[..., None], *reason: str) -> None:
        try:
            report(self, *reason)
        except Exception as error:
            self._report(f"{report.__name__} failed", error)

    def _late(self) -> None:
        """Let no call wait any more: one of many steps would wait with each, and what hangs here may hang for long."""
        if not self._settled.done():
            self._settle()
            self._on_late()

    def _settle(self) -> None:
        if not self._settled.done():
            self._settled.set_result(None)

    def _report(self, message: str, error: BaseException) -> None:
        self._loop.call_exception_handler({"message": message, "exception": error})
