"""Change notifications without payload, from Supabase Realtime; readers must re-poll.

Realtime drops changes (when there are many in a second, while its own connection to the database is renewed), and
notifies before every reader can see the change. So a notification only says when to poll, and the reader polls now and
then without one.

The client speaks the protocol itself (one join, one heartbeat) rather than through supabase-py, whose client reports
"subscribed" before the database is, never checks that its heartbeats are answered, gives up after five tries, stops
receiving when a callback raises, and logs rows and, in the address, the key.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn, cast
from urllib.parse import quote

import aiohttp

_TOPIC: Final = "realtime:companion"
_CODE = re.compile(r"[A-Z][A-Za-z]{2,60}(?=:)")
_CLOSING = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
_Event = Literal["subscribed", "change", "heartbeat reply", "other"]


class NotifierFailed(Exception):
    """No notification comes any more. The text says why, and is safe to log."""


@dataclass(frozen=True, slots=True)
class NotifierTiming:
    """The notifier's intervals and timeouts, in seconds. The server closes a connection that is silent for a minute.

    Attributes:
        heartbeat_interval: between two heartbeats.
        reply_timeout: for the reply to a heartbeat.
        subscribe_timeout: from connecting until the subscription is confirmed.
    """

    heartbeat_interval: float = 20.0
    reply_timeout: float = 10.0
    subscribe_timeout: float = 30.0


class ChangeNotifier:
    """Notifies of changes to one table of a Supabase project.

    Args:
        url: the project's address.
        key: its secret (service role) key.
        table: a table of the schema ``public``.
        timing: intervals and timeouts.
    """

    def __init__(self, url: str, key: str, table: str, timing: NotifierTiming) -> None:
        address = re.sub("^http", "ws", url.rstrip("/"), count=1)
        self._address = f"{address}/realtime/v1/websocket?apikey={quote(key, safe='')}&vsn=1.0.0"
        self._key = key
        self._table = table
        self._timing = timing

    async def listen(self, http: aiohttp.ClientSession, notify: Callable[[], None]) -> NoReturn:
        """Connect and subscribe, and stay connected until that fails.

        Args:
            http: the session to connect with.
            notify: called once the subscription is confirmed, then for every change. Must not raise.

        Raises:
            NotifierFailed: the server refused, closed the connection, or did not answer in time.
            aiohttp.ClientError: the connection failed.
            TimeoutError: connecting or sending took too long.
        """
        now = asyncio.get_running_loop().time
        awaited, deadline = "the subscription", now() + self._timing.subscribe_timeout
        async with asyncio.timeout_at(deadline):
            socket = await http.ws_connect(self._address, timeout=aiohttp.ClientWSTimeout(ws_close=1.0))
        async with socket:
            await self._send(socket, _TOPIC, "phx_join", self._subscription())
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        message = await socket.receive()
                except TimeoutError:
                    if awaited:
                        raise NotifierFailed(f"{awaited} was not answered") from None
                    await self._send(socket, "phoenix", "heartbeat", {})
                    awaited, deadline = "a heartbeat", now() + self._timing.reply_timeout
                    continue
                if message.type in _CLOSING:
                    raise NotifierFailed(f"the connection was closed ({socket.close_code})")
                event = _event_of(message.data)
                if event == "subscribed" or (event == "change" and awaited != "the subscription"):
                    notify()
                if event == "subscribed" or (event == "heartbeat reply" and awaited == "a heartbeat"):
                    awaited, deadline = "", now() + self._timing.heartbeat_interval

    def _subscription(self) -> dict[str, Any]:
        return {
            "config": {
                "broadcast": {"ack": False, "self": False},
                "presence": {"key": "", "enabled": False},
                "private": False,
                "postgres_changes": [{"event": "*", "schema": "public", "table": self._table}],
            },
            "access_token": self._key,
        }

    async def _send(
        self, socket: aiohttp.ClientWebSocketResponse[Any], topic: str, event: str, payload: dict[str, Any]
    ) -> None:
        async with asyncio.timeout(self._timing.reply_timeout):
            await socket.send_str(
                json.dumps({"topic": topic, "event": event, "payload": payload, "ref": "1", "join_ref": "1"})
            )


def _event_of(text: object) -> _Event:
    """Classify a message. Raises NotifierFailed for one that ends the subscription."""
    try:
        message = json.loads(cast(str, text))
        topic, event, payload = message["topic"], message["event"], message["payload"]
        if (topic, event) == ("phoenix", "phx_reply"):
            return "heartbeat reply"
        if topic != _TOPIC:
            return "other"
        if event == "postgres_changes":
            return "change"
        if event in ("phx_error", "phx_close"):
            raise NotifierFailed("the channel was closed")
        if event not in ("system", "phx_reply"):
            return "other"
        if payload["status"] != "ok":
            raise NotifierFailed(_refusal(payload))
        # The server answers the join before it has subscribed to the database: changes come only after this message.
        return "subscribed" if event == "system" and payload["extension"] == "postgres_changes" else "other"
    except (ValueError, TypeError, LookupError):
        return "change"  # a message that cannot be read may have been one


def _refusal(payload: dict[str, Any]) -> str:
    """The server's error code; its message may quote anything."""
    if payload.get("extension") == "postgres_changes":
        return "no subscription; is the table in the publication supabase_realtime?"
    words = payload["response"].get("reason") if "response" in payload else payload.get("message")
    code = _CODE.match(str(words))
    return f"refused: {code[0]}" if code else "refused"
