"""From a host name to an open connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from functools import partial

from ..background import BackgroundTasks
from ..redis_url import Endpoint
from .connection import RespConnection

LOOKUP_EVERY = 1.0  # seconds between two lookups of a name
_LOOKUP_TIMEOUT = 0.1  # seconds an attempt waits for a lookup if it has an older result


class Names:
    """Looks up host names, one lookup of each at a time: a hanging resolver must not exhaust the thread pool."""

    def __init__(self, background: BackgroundTasks) -> None:
        self._background = background
        self._found: dict[str, list[str]] = {}
        self._lookups: dict[str, asyncio.Task[list[str]]] = {}
        self._looked_up: dict[str, float] = {}

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host: older ones where the resolver does not answer. Raises OSError."""
        loop = asyncio.get_running_loop()
        lookup, found = self._lookups.get(host), self._found.get(host)
        if lookup is None or (lookup.done() and loop.time() - self._looked_up[host] > LOOKUP_EVERY):
            self._looked_up[host] = loop.time()
            lookup = self._lookups[host] = self._background.spawn(_addresses(loop, host, port), name="cache-lookup")
        await asyncio.wait({lookup}, timeout=_LOOKUP_TIMEOUT if found else None)
        if lookup.done():
            try:
                found = self._found[host] = lookup.result()
            except OSError:
                if not found:
                    raise
        return found or []


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[str]:
    try:  # a literal address needs no thread
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def dial(endpoint: Endpoint, addresses: Sequence[str], first: int) -> tuple[RespConnection, int]:
    """Connect to one of the addresses. Returns the connection, and the position of its address.

    Args:
        endpoint: its port, and its name in TLS.
        addresses: tried in turn.
        first: position of the address that is tried first, counted on beyond the last.

    Raises:
        OSError: none can be reached.
    """
    loop, tls = asyncio.get_running_loop(), endpoint.ssl_context
    error = OSError("no address")
    for position in range(first, first + len(addresses)):
        try:
            _, connection = await loop.create_connection(
                partial(RespConnection, loop),
                addresses[position % len(addresses)],
                endpoint.port,
                ssl=tls,
                server_hostname=endpoint.host if tls else None,
            )
        except OSError as failed:
            error = failed
        else:
            return connection, position
    raise error
