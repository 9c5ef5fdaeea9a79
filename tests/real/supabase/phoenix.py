"""A stand-in for Supabase Realtime: the Phoenix protocol over a websocket, and the changes of a real PostgreSQL.

Messages and their order are as in Supabase's server: a join is answered before the subscription in the database, and
only the system message after that confirms it. Changes arrive with the commit, from the tables in the publication
`supabase_realtime` (by NOTIFY here, where Supabase reads the write-ahead log). Unknown messages are refused. `fault`
reproduces the ways in which the real server fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Self

import asyncpg
from aiohttp import WSMsgType, web

from tests.real.supabase.postgrest_sql import Refusal

Fault = Literal[
    "disabled",  # the handshake is answered with 403
    "gone",  # the connection is cut before the handshake is answered
    "silent",  # the handshake is never answered
    "mute",  # connected, but never sends a message
    "join refused",
    "never subscribed",  # the join is answered, the subscription fails
    "no heartbeat",  # changes are sent, heartbeats are not answered
    "lossy",  # heartbeats are answered, changes are not sent
    "malformed",  # changes are sent as broken JSON
]

_TELL = """
create schema if not exists stand_in;
create or replace function stand_in.tell() returns trigger language plpgsql as $$
begin
  perform pg_notify('realtime', json_build_object(
    'schema', tg_table_schema, 'table', tg_table_name, 'type', tg_op, 'record', to_jsonb(new)
  )::text);
  return null;
end
$$;
"""
_ORDINARY_CONFIG = {
    "broadcast": {"ack": False, "self": False},
    "presence": {"key": "", "enabled": False},
}


class _Refused(Exception):
    """A join is answered with this error."""


@dataclass(eq=False)
class _Channel:
    socket: web.WebSocketResponse
    topic: str
    bindings: list[dict[str, Any]]
    subscribed: bool = False


@dataclass
class _Connection:
    role: str
    role_of: Callable[[str], str]
    socket: web.WebSocketResponse
    transport: asyncio.Transport
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Phoenix:
    """The Realtime of the project whose database is at `dsn`. Use as `async with`, and give it to a PostgREST.

    `attempts` counts requested handshakes, `heartbeats` received ones; `joins` are the payloads of the joins; `delay`
    (seconds) passes between the answer to a join and the subscription. With `private_only` the project refuses channels
    that are not private. `fault` is the fault in effect, None for none.
    """

    def __init__(self, dsn: str) -> None:
        self.fault: Fault | None = None
        self.delay = 0.0
        self.private_only = False
        self.attempts = 0
        self.heartbeats = 0
        self.joins: list[dict[str, Any]] = []
        self._dsn = dsn
        self._database: asyncpg.Connection | None = None
        self._connections: list[_Connection] = []
        self._channels: list[_Channel] = []
        self._changes: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._teller: asyncio.Task[None] | None = None

    @property
    def sockets(self) -> int:
        """Number of connections."""
        return len(self._connections)

    @property
    def channels(self) -> int:
        """Number of channels, subscribed or not."""
        return len(self._channels)

    @property
    def subscribed(self) -> int:
        """Number of subscribed channels."""
        return sum(channel.subscribed for channel in self._channels)

    async def __aenter__(self) -> Self:
        self._database = database = await asyncpg.connect(self._dsn)
        await database.execute(_TELL)
        for row in await database.fetch("select * from pg_publication_tables where pubname = 'supabase_realtime'"):
            await database.execute(
                f"create or replace trigger stand_in_tells after insert or update on {row['schemaname']}."
                f"{row['tablename']} for each row execute function stand_in.tell()"
            )
        await database.add_listener("realtime", lambda *notification: self.emit(json.loads(notification[3])))
        self._teller = asyncio.create_task(self._tell())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.drop()
        assert self._teller is not None
        self._teller.cancel()
        await asyncio.wait({self._teller})
        assert self._database is not None
        await self._database.close()

    @contextlib.contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """Put `fault` into effect for the length of a `with` block."""
        self.fault = fault
        try:
            yield
        finally:
            self.fault = None

    def emit(self, change: dict[str, Any]) -> None:
        """Send a change (`schema`, `table`, `type`, `record`), whether or not it happened."""
        self._changes.put_nowait(change)

    def drop(self) -> None:
        """Cut every connection."""
        for connection in self._connections:
            connection.transport.abort()

    async def push(self, event: str, payload: dict[str, Any]) -> None:
        """Send a message on every channel."""
        for channel in list(self._channels):
            await _say(channel.socket, channel.topic, event, payload)

    async def say(self, text: str) -> None:
        """Send raw text on every connection."""
        for connection in list(self._connections):
            await connection.socket.send_str(text)

    async def close_all(self, _: web.Application) -> None:
        self.drop()

    async def serve(self, request: web.Request, role: str, role_of: Callable[[str], str]) -> web.StreamResponse:
        """One websocket of a client with this role; `role_of` resolves tokens."""
        self.attempts += 1
        transport = request.transport
        assert transport is not None
        match self.fault:
            case "disabled":
                return web.json_response({"error": "Realtime was disabled for this tenant"}, status=403)
            case "gone":
                transport.abort()
                return web.Response()
            case "silent":
                await asyncio.Event().wait()
        if request.query.get("vsn") != "1.0.0":
            return web.json_response({"error": "the stand-in does not know this version"}, status=501)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        connection = _Connection(role, role_of, socket, transport)
        self._connections.append(connection)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT and self.fault != "mute":
                    await self._hear(connection, json.loads(message.data))
        finally:
            for task in connection.tasks:
                task.cancel()
            self._connections.remove(connection)
            self._channels = [channel for channel in self._channels if channel.socket is not socket]
        return socket

    async def _hear(self, connection: _Connection, message: dict[str, Any]) -> None:
        match message:
            case {"topic": "phoenix", "event": "heartbeat", "payload": {}}:
                self.heartbeats += 1
                if self.fault != "no heartbeat":
                    await _reply(connection.socket, message, "ok", {})
            case {"topic": str(topic), "event": "phx_join", "payload": dict(payload)} if topic.startswith("realtime:"):
                await self._join(connection, message, payload)
            case {"topic": str(topic), "event": "phx_leave"}:
                self._channels = [
                    channel
                    for channel in self._channels
                    if (channel.socket, channel.topic) != (connection.socket, topic)
                ]
                await _reply(connection.socket, message, "ok", {})
                await _say(connection.socket, topic, "phx_close", {})
            case _:
                await _reply(connection.socket, message, "error", {"reason": "the stand-in does not know this message"})

    async def _join(self, connection: _Connection, message: dict[str, Any], payload: dict[str, Any]) -> None:
        self.joins.append(payload)
        try:
            if self.fault == "join refused":
                raise _Refused("ConnectionRateLimitReached: Too many connected users")
            channel = _channel(connection, message["topic"], payload, self.private_only)
        except _Refused as refusal:
            await _reply(connection.socket, message, "error", {"reason": str(refusal)})
            return
        self._channels.append(channel)
        await _reply(connection.socket, message, "ok", {"postgres_changes": channel.bindings})
        if channel.bindings and self.fault != "never subscribed":
            connection.tasks.add(asyncio.create_task(self._subscribe(channel)))

    async def _subscribe(self, channel: _Channel) -> None:
        await asyncio.sleep(self.delay)
        assert self._database is not None
        rows = await self._database.fetch("select * from pg_publication_tables where pubname = 'supabase_realtime'")
        published = {(row["schemaname"], row["tablename"]) for row in rows}
        channel.subscribed = all((one["schema"], one["table"]) in published for one in channel.bindings)
        status, said = "ok", "Subscribed to PostgreSQL"
        if not channel.subscribed:
            status, said = "error", "Unable to subscribe to changes with given parameters. Please check Realtime is"
        extension = {"extension": "postgres_changes", "channel": channel.topic.removeprefix("realtime:")}
        await _say(channel.socket, channel.topic, "system", {**extension, "status": status, "message": said})

    async def _tell(self) -> None:
        while True:
            change = await self._changes.get()
            for channel in list(self._channels):
                ids = [
                    one["id"]
                    for one in channel.bindings
                    if (one["schema"], one["table"]) == (change["schema"], change["table"])
                    and one["event"] in ("*", change["type"])
                ]
                if not ids or not channel.subscribed or self.fault in ("lossy", "mute"):
                    continue
                data = {
                    **change,
                    "columns": [{"name": name, "type": "text"} for name in change["record"]],
                    "commit_timestamp": datetime.now(UTC).isoformat(),
                    "errors": None,
                }
                cut = 40 if self.fault == "malformed" else None
                await _say(channel.socket, channel.topic, "postgres_changes", {"ids": ids, "data": data}, cut=cut)


def _channel(connection: _Connection, topic: str, payload: dict[str, Any], private_only: bool) -> _Channel:
    config = payload.get("config", {})
    if private_only and not config.get("private"):
        raise _Refused("PrivateOnly: This project only allows private channels")
    wanted = config.get("postgres_changes", [])
    # A private channel asks for a policy on realtime.messages, which the service role bypasses.
    ordinary = {name: value for name, value in config.items() if name not in ("postgres_changes", "private")}
    if payload.keys() - {"config", "access_token"} or ordinary != _ORDINARY_CONFIG:
        raise _Refused("the stand-in does not know this way to join")
    for one in wanted:
        if one.keys() != {"event", "schema", "table"} or one["event"] not in ("*", "INSERT", "UPDATE", "DELETE"):
            raise _Refused("the stand-in does not know this kind of change")
    token = payload.get("access_token")
    # A key that is no token was checked by the gateway.
    try:
        role = connection.role if token is None or token.startswith("sb_") else connection.role_of(token)
    except Refusal:
        raise _Refused("MalformedJWT: The token provided is not a valid JWT") from None
    if role != "service_role":
        raise _Refused("the stand-in knows nothing of row level security")
    bindings = [{**one, "id": random.getrandbits(27)} for one in wanted]
    return _Channel(connection.socket, topic, bindings)


async def _reply(socket: web.WebSocketResponse, message: dict[str, Any], status: str, response: dict[str, Any]) -> None:
    payload = {"status": status, "response": response}
    await _say(socket, message["topic"], "phx_reply", payload, ref=message.get("ref"))


async def _say(
    socket: web.WebSocketResponse,
    topic: str,
    event: str,
    payload: dict[str, Any],
    *,
    ref: str | None = None,
    cut: int | None = None,
) -> None:
    with contextlib.suppress(ConnectionError):
        await socket.send_str(json.dumps({"topic": topic, "event": event, "payload": payload, "ref": ref})[:cut])
