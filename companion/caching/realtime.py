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

from ..store import is_bearer_token

_TOPIC: Final = "realtime:companion"
_TABLE: Final = "companion_changes"
_CODE = re.compile(r"[A-Z][A-Za-z]{2,60}(?=:)")
_CLOSING = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
_Event = Literal["subscribed", "change", "heartbeat reply", "other"]


class NotifierFailed(Exception):
    """No notification comes any more. The text says why, and is safe to log."""


class SubscriptionEnded(NotifierFailed):
    """The server has ended the subscription as it does now and then: connect again."""


class _PrivateOnly(NotifierFailed):
    """The project refuses channels that are not private."""


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
    """Notifies of new rows in the change feed of a Supabase project.

    Args:
        url: the project's address.
        key: its secret (service role) key.
        timing: intervals and timeouts.
    """

    def __init__(self, url: str, key: str, timing: NotifierTiming) -> None:
        address = re.sub("^http", "ws", url.rstrip("/"), count=1)
        self._address = f"{address}/realtime/v1/websocket?apikey={quote(key, safe='')}&vsn=1.0.0"
        self._key = key
        self._timing = timing
        self._private = False

    async def listen(self, http: aiohttp.ClientSession, notify: Callable[[], None]) -> NoReturn:
        """Connect and subscribe, and stay connected until that fails.

        Args:
            http: the session to connect with.
            notify: called once the subscription is confirmed, then for every change. Must not raise.

        Raises:
            SubscriptionEnded: the key's token has expired, as it does once a day, or the project wants a private
                channel, which the next call asks for.
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
                try:
                    event = _event_of(message.data)
                except _PrivateOnly as refusal:
                    if self._private:
                        raise
                    self._private = True
                    raise SubscriptionEnded(str(refusal)) from None
                except SubscriptionEnded as end:
                    if awaited == "the subscription":  # else a token that is refused each time would never be reported
                        raise NotifierFailed(str(end)) from None
                    raise
                if event == "subscribed" or (event == "change" and awaited != "the subscription"):
                    notify()
                if event == "subscribed" or (event == "heartbeat reply" and awaited == "a heartbeat"):
                    awaited, deadline = "", now() + self._timing.heartbeat_interval

    def _subscription(self) -> dict[str, Any]:
        config = {
            "broadcast": {"ack": False, "self": False},
            "presence": {"key": "", "enabled": False},
            "private": self._private,
            "postgres_changes": [{"event": "*", "schema": "public", "table": _TABLE}],
        }
        # Without a token the server takes the one that the gateway has made of the key in the address.
        return {"config": config} | ({"access_token": self._key} if is_bearer_token(self._key) else {})

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
            raise _refusal(payload)
        # The server answers the join before it has subscribed to the database: changes come only after this message.
        return "subscribed" if event == "system" and payload["extension"] == "postgres_changes" else "other"
    except (ValueError, TypeError, LookupError):
        return "change"  # a message that cannot be read may have been one


def _refusal(payload: dict[str, Any]) -> NotifierFailed:
    """What a refusal means: by its code or its first words, since the rest of a message may quote anything."""
    words = str(payload["response"].get("reason") if "response" in payload else payload.get("message"))
    if words.startswith("Token has expired"):
        return SubscriptionEnded("the token has expired")
    if words.startswith("Unable to subscribe"):
        return NotifierFailed("no subscription; is the table in the publication supabase_realtime?")
    code = _CODE.match(words)
    refused = f"refused: {code[0]}" if code else "refused"
    return _PrivateOnly(refused) if code and code[0] == "PrivateOnly" else NotifierFailed(refused)
