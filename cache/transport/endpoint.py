"""Address and credentials of one Redis server, and the handshake of a connection to it."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio.connection import parse_url

from ..exceptions import CacheConfigError
from ..settings import CacheSettings
from .connection import Argument, pack

CLIENT_NAME: Final = "companion-cache"
"""The name of every connection in ``CLIENT LIST``."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address and credentials of Redis. With ``unix_path``, host, port and ssl_context are not used."""

    host: str = "localhost"
    port: int = 6379
    unix_path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    client_name: str | None = None

    def handshake(self, setup: Iterable[tuple[Argument, ...]]) -> list[bytes]:
        """The packed commands a new connection begins with, HELLO first, PING last."""
        hello: tuple[Argument, ...] = (b"HELLO", 3)
        if self.username or self.password:
            hello += (b"AUTH", self.username or "default", self.password or "")
        if self.client_name:  # not CLIENT SETNAME: HELLO needs no right of its own
            hello += (b"SETNAME", self.client_name)
        commands: list[tuple[Argument, ...]] = [hello]
        if self.db:
            commands.append((b"SELECT", self.db))
        return [pack(command) for command in (*commands, *setup, (b"PING",))]


def endpoint(settings: CacheSettings) -> Endpoint:
    """Return address and credentials for the multiplexed client.

    Raises:
        CacheConfigError: a certificate file that the URL names cannot be used.
    """
    parts: dict[str, Any] = dict(parse_url(settings.url))
    return Endpoint(
        host=parts.get("host") or "localhost",
        port=parts.get("port") or 6379,
        unix_path=parts.get("path"),
        username=parts.get("username"),
        password=parts.get("password"),
        db=int(parts.get("db") or 0),
        ssl_context=_tls(parts) if settings.url.startswith("rediss://") else None,
        client_name=CLIENT_NAME,
    )


def _tls(parts: dict[str, Any]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(
            cafile=parts.get("ssl_ca_certs"), capath=parts.get("ssl_ca_path"), cadata=parts.get("ssl_ca_data")
        )
        if parts.get("ssl_certfile"):
            context.load_cert_chain(parts["ssl_certfile"], parts.get("ssl_keyfile"), parts.get("ssl_password"))
    except OSError as problem:
        raise CacheConfigError(f"REDIS_URL names a certificate that cannot be used: {problem.strerror}.") from None
    # Checks are on unless the URL itself switches them off, with redis-py's options.
    if str(parts.get("ssl_check_hostname", True)).lower() in ("false", "no", "0"):
        context.check_hostname = False
    if parts.get("ssl_cert_reqs") in ("none", "optional"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE if parts["ssl_cert_reqs"] == "none" else ssl.CERT_OPTIONAL
    return context
