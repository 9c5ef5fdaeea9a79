"""A doorbell: it rings when a row of a table changes, as far as Supabase Realtime tells.

It is no more than that. Realtime leaves changes out (when there are many in a second, while its own connection to the
database is renewed), and tells of a change before everybody can read it. So whoever hears the bell goes and looks, and
looks now and then without.

It speaks the protocol itself (one join, one heartbeat) rather than through supabase-py, whose client says "subscribed"
before the database is, never looks whether its heartbeats are answered, gives up after five tries, stops listening
when a callback raises, and writes rows and, in the address, the key into the log.
"""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast
from urllib.parse import quote

import aiohttp

_TOPIC: Final = "realtime:companion"
_CODE = re.compile(r"[A-Z][A-Za-z]{2,60}(?=:)")
_CLOSING = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)


class NotifierFailed(Exception):
    """The bell does not ring (any more). Its text says why, in words that are safe to log."""


@dataclass(frozen=True, slots=True)
class NotifierTiming:
    """Seconds: between heartbeats, for the answer to one, and from the first packet until changes arrive.

    The server closes a connection on which it hears nothing for a minute.
    """

    heartbeat_interval: float = 20.0
    reply_timeout: float = 10.0
    subscribe_timeout: float = 30.0


class ChangeNotifier:
    """The changes of `table` (schema public) in the Supabase project at `url`, for its secret key."""

    def __init__(self, url: str, key: str, table: str, timing: NotifierTiming) -> None:
        address = re.sub("^http", "ws", url.rstrip("/"), count=1)
        self._address = f"{address}/realtime/v1/websocket?apikey={quote(key, safe='')}&vsn=1.0.0"
        self._key = key
        self._table = table
        self._timing = timing

    async def listen(self, http: aiohttp.ClientSession, ring: Callable[[], None]) -> NoReturn:
        """Connects, and calls `ring` once changes arrive, then for each; `ring` must not raise.

        Ends only by raising: NotifierFailed, or what aiohttp raises.
        """
        now = asyncio.get_running_loop().time
        awaited, due = "the subscription", now() + self._timing.subscribe_timeout
        async with asyncio.timeout_at(due):
            socket = await http.ws_connect(self._address, timeout=aiohttp.ClientWSTimeout(ws_close=1.0))
        async with socket:
            await self._send(socket, _TOPIC, "phx_join", self._wishes())
            while True:
                try:
                    async with asyncio.timeout_at(due):
                        message = await socket.receive()
                except TimeoutError:
                    if awaited:
                        raise NotifierFailed(f"{awaited} was not answered") from None
                    await self._send(socket, "phoenix", "heartbeat", {})
                    awaited, due = "a heartbeat", now() + self._timing.reply_timeout
                    continue
                if message.type in _CLOSING:
                    raise NotifierFailed(f"the connection was closed ({socket.close_code})")
                heard = _meaning(message.data)
                if heard == "subscribed" or (heard == "change" and awaited != "the subscription"):
                    ring()
                if heard == "subscribed" or (heard == "alive" and awaited == "a heartbeat"):
                    awaited, due = "", now() + self._timing.heartbeat_interval

    def _wishes(self) -> dict[str, Any]:
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


def _meaning(text: object) -> str:
    """What a message means: "subscribed", "change", "alive" or "nothing". Raises NotifierFailed for bad news."""
    try:
        message = json.loads(cast(str, text))
        topic, event, payload = message["topic"], message["event"], message["payload"]
        if (topic, event) == ("phoenix", "phx_reply"):
            return "alive"
        if topic != _TOPIC:
            return "nothing"
        if event == "postgres_changes":
            return "change"
        if event in ("phx_error", "phx_close"):
            raise NotifierFailed("the channel was closed")
        if event not in ("system", "phx_reply"):
            return "nothing"
        if payload["status"] != "ok":
            raise NotifierFailed(_reason(payload))
        # The join itself is answered before the database is: changes come only after this message.
        return "subscribed" if event == "system" and payload["extension"] == "postgres_changes" else "nothing"
    except (ValueError, TypeError, LookupError):
        return "change"  # what cannot be read may have been one


def _reason(payload: dict[str, Any]) -> str:
    """The server's code for an error; its words may quote anything."""
    if payload.get("extension") == "postgres_changes":
        return "no subscription; is the table in the publication supabase_realtime?"
    words = payload["response"].get("reason") if "response" in payload else payload.get("message")
    code = _CODE.match(str(words))
    return f"refused: {code[0]}" if code else "refused"
