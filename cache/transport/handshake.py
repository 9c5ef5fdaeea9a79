"""The handshake of a connection: what is sent, what the answers say about the server, and what to write instead."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from ..exceptions import CacheUnavailable, CommandRejected, HandshakeFailed, WrongKind
from ..keys import system_server
from ..redis_url import SENTINEL_FORM, Endpoint
from ..slots import SLOTS, tag_of_slot
from .client import Argument
from .connection import RespConnection
from .packing import pack
from .roles import CLUSTER_DOWN, REPLICA, REPLICA_ROLES, is_down

CLIENT_NAME: Final = "companion-cache"
"""The name of every connection in ``CLIENT LIST``."""
SENTINEL: Final = f"a Sentinel, which holds no data: write {SENTINEL_FORM}"
NO_SENTINEL: Final = "no Sentinel answers, but a server: write redis:// in place of redis+sentinel://"
NO_MASTER: Final = "the Sentinels watch no master of this name: write the one of their sentinel monitor"
SENTINEL_REFUSES: Final = "the Sentinels refuse us: check the options sentinel_username and sentinel_password"
NO_TLS: Final = "the server speaks no TLS: write redis:// in place of rediss://"
NEEDS_TLS: Final = "the server speaks TLS: write rediss:// in place of redis://"
NO_SLOTS: Final = "a cluster that does not say who has which slot: allow CLUSTER SLOTS (the right +cluster|slots)"
REMEDIES: Final = frozenset((REPLICA, SENTINEL, NO_SLOTS, NO_SENTINEL, NO_MASTER, SENTINEL_REFUSES, NO_TLS, NEEDS_TLS))
"""Reasons that say what to change. They are logged also when the outage began with another one."""
# Pause after a wrong password, an untrusted certificate, a full connection table. Each attempt costs the server a
# connection, with a line in its ACL LOG or a handshake (0.3 ms with an ECDSA certificate, 1 ms with RSA).
REJECTED: Final = 0.2
_OTHER_KIND: Final = 30.0  # pause if another client is needed
_CLUSTER_DOWN: Final = 0.5  # pause while a cluster is down: all of its clients ask all of its nodes then
_HUNG_UP: Final = 1.0  # pause if it ends the connection over HELLO, as a server does too that is just restarted
_SAMPLES: Final = 16  # slots whose keys a node without CLUSTER SLOTS is asked for
_NOT_YET_CODES: Final = frozenset({"LOADING", "MASTERDOWN", "BUSY"})
# Errors to HELLO that say something about us. Any other says that HELLO is not understood, in whatever words.
_ABOUT_US: Final = re.compile(
    r"(?:WRONGPASS|NOAUTH|NOPERM|DENIED)\b|(?!.*command).*(password|max number of clients)", re.IGNORECASE
)


def commands(endpoint: Endpoint, setup: Iterable[tuple[Argument, ...]]) -> list[bytes]:
    """The packed commands a new connection begins with, HELLO first, PING last."""
    hello: tuple[Argument, ...] = (b"HELLO", 3)
    if endpoint.username or endpoint.password:
        hello += (b"AUTH", endpoint.username or "default", endpoint.password or "")
    hello += (b"SETNAME", CLIENT_NAME)  # not CLIENT SETNAME: HELLO needs no right of its own
    select: list[tuple[Argument, ...]] = [(b"SELECT", endpoint.db)] if endpoint.db else []
    return [pack(command) for command in (hello, *select, *setup, (b"PING",))]


async def judge(connection: RespConnection, handshake: list[bytes], setup_count: int, *, node: bool) -> list[Any]:
    """Send :func:`commands` and judge the answers. Returns those to the set-up commands, rejections among them.

    ``node``: whether a node of a cluster is expected.

    Raises:
        HandshakeFailed: the connection cannot be used.
        CacheUnavailable: it was lost.
    """
    hello, *others = connection.send_together(handshake)
    try:
        server = await hello
    except CommandRejected as error:
        about_us = _ABOUT_US.match(str(error))
        if error.code in _NOT_YET_CODES or about_us:
            raise _rejected(error, about_us[1] if about_us else None) from None
        # The text is withheld: an old server quotes the whole command, password included.
        raise WrongKind("no RESP3", _OTHER_KIND, resp3=False) from None
    if not isinstance(server, dict) or server.get(b"proto") != 3:
        raise WrongKind("no RESP3", _OTHER_KIND, resp3=False)
    is_node = server.get(b"mode") == b"cluster"
    if node and not is_node:
        raise WrongKind("no cluster", REJECTED)
    if is_node and not node:
        raise WrongKind("a cluster", _OTHER_KIND, slots=await _slots(connection))
    if server.get(b"mode") == b"sentinel":
        raise HandshakeFailed(SENTINEL, REJECTED)
    if server.get(b"role") in REPLICA_ROLES:
        raise HandshakeFailed(REPLICA, REJECTED)
    *before, pong = others
    selected = len(before) - setup_count
    replies = await asyncio.gather(*before[selected:], return_exceptions=True)
    for reply in replies:
        if isinstance(reply, CommandRejected) and reply.code in _NOT_YET_CODES:
            raise _rejected(reply)
        if isinstance(reply, CommandRejected) and is_down(reply):
            raise HandshakeFailed(CLUSTER_DOWN, _CLUSTER_DOWN)
    for other in (*before[:selected], pong):
        try:
            await other
        except CommandRejected as error:
            # NOPERM: not allowed to PING, but answered.
            if other is not pong or error.code != "NOPERM":
                raise _rejected(error, None if other is pong else "SELECT of the database") from None
    return replies


async def _slots(connection: RespConnection) -> list[Any]:
    """What a node of a cluster says about its slots; empty if it is a proxy that does not know.

    Raises:
        HandshakeFailed: it does not say, and has only some of the keys: of what lies on other nodes nothing could be
            invalidated.
    """
    try:
        slots = await connection.send(pack((b"CLUSTER", b"SLOTS")))
    except CommandRejected as error:
        if error.code in _NOT_YET_CODES:
            raise _rejected(error) from None
        if error.code == "NOPERM" or await _sends_elsewhere(connection):
            raise HandshakeFailed(NO_SLOTS, REJECTED) from None
        return []
    return slots if isinstance(slots, list) else []


async def _sends_elsewhere(connection: RespConnection) -> bool:
    """Whether it has no more than some of the slots, as a node of which CLUSTER is renamed, and not all as a proxy."""
    marks = [system_server(f"{{{tag_of_slot(slot)}}}") for slot in range(0, SLOTS, SLOTS // _SAMPLES)]
    for reply in connection.send_together([pack((b"GET", mark)) for mark in marks]):
        try:
            await reply
        except CommandRejected as error:
            if error.code == "MOVED":
                return True
    return False


def auth(endpoint: Endpoint) -> list[tuple[Argument, ...]]:
    """The command that authenticates without HELLO, if there are credentials."""
    who = (endpoint.username,) if endpoint.username else ()
    return [(b"AUTH", *who, endpoint.password or "")] if endpoint.username or endpoint.password else []


def failure(error: BaseException) -> str:
    """Why connecting failed, free of credentials."""
    if isinstance(error, HandshakeFailed):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return "TLS certificate not accepted"
    if isinstance(error, ssl.SSLError):
        return "TLS handshake failed"
    if isinstance(error, socket.gaierror):
        return "name lookup failed"
    if isinstance(error, CacheUnavailable):
        return f"{error} while connecting"
    code = errno.errorcode.get(getattr(error, "errno", None) or 0, type(error).__name__)
    return f"cannot connect ({code})"


async def ask_without_hello(connection: RespConnection, endpoint: Endpoint, handshake: list[bytes]) -> None:
    """Find out why the last connection ended over the handshake.

    A proxy that does not know HELLO may hang up instead of answering with an error. So may a server that is being
    restarted, so only a connection counts that ends over the handshake just after a PING was answered.

    Raises:
        HandshakeFailed: there is no RESP3, or the credentials are rejected.
        CacheUnavailable: the connection was lost before.
    """
    try:
        for answer in connection.send_together([pack(command) for command in (*auth(endpoint), (b"PING",))]):
            await answer
    except CommandRejected as error:
        raise _rejected(error) from None
    await asyncio.wait(connection.send_together(handshake))
    if connection.ended.done():
        raise WrongKind("no RESP3", _HUNG_UP, resp3=False)


def _rejected(error: CommandRejected, what: str | None = None) -> HandshakeFailed:
    pause = 0.0 if error.code in _NOT_YET_CODES else REJECTED  # while it is loading: soon
    return HandshakeFailed(f"refused ({error.code}{f': {what}' if what else ''})", pause)


async def other_protocol(endpoint: Endpoint, address: str, timeout: float) -> str:
    """Ask a server that does not answer in the protocol of the URL in the other one. Sends no credentials.

    Returns:
        ``NO_TLS`` or ``NEEDS_TLS``; empty if it does not answer in the other one either.
    """
    context = None
    if endpoint.ssl_context is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reads no files, which would take milliseconds
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # only to find out
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(
                address, endpoint.port, ssl=context, server_hostname=endpoint.host if context else None
            )
            try:
                if context is not None:
                    return NEEDS_TLS
                writer.write(b"PING\r\n")
                return NO_TLS if await reader.read(1) in (b"+", b"-") else ""
            finally:
                writer.transport.abort()
                with suppress(OSError):  # retrieved, or asyncio may report that nothing has
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return ""
