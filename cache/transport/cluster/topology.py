"""Which node has which slots: the reply to CLUSTER SLOTS, with the addresses at which we reach the nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from ...redis_url import canonical
from ...slots import SLOTS

Address: TypeAlias = tuple[str, int]
UNKNOWN: Final = "?"
"""What a node replies in place of the host name of another that it does not know yet."""
AddressMap: TypeAlias = Mapping[str, str]
"""The address to connect to, by the address that a node announces: ``host:port``, or a host for all of its ports."""


class Range(NamedTuple):
    """Slots, both included, their primary with its id, and its replicas."""

    first: int
    last: int
    primary: Address
    primary_id: str
    replicas: tuple[Address, ...]


def ranges(reply: Any, asked: Address, reachable: AddressMap) -> Iterator[Range]:
    """Read a reply of the node ``asked``. What is malformed is left out."""
    for entry in reply if isinstance(reply, list) else ():
        try:
            first, last, *servers = entry
            primary, *replicas = (_address(server, asked, reachable) for server in servers)
            if 0 <= first <= last < SLOTS:
                yield Range(int(first), int(last), primary, _id(servers[0]), tuple(replicas))
        except (TypeError, ValueError, LookupError, AttributeError):
            continue


def owned(view: Iterable[Range]) -> list[tuple[int, int, str]]:
    """Which node has which slots, in whatever order and spelling the one that was asked says so."""
    return sorted((each.first, each.last, each.primary_id) for each in view)


def _address(server: Any, asked: Address, reachable: AddressMap) -> Address:
    host, port = server[:2]
    name = host.decode() if isinstance(host, bytes) else host or ""
    if name == UNKNOWN:
        flat = server[3]
        facts = flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
        name = facts[b"ip"].decode()
    return reach(name, int(port), asked, reachable)


def _id(server: Any) -> str:
    """The id of a node; empty where a proxy names none."""
    found = server[2] if len(server) > 2 else b""
    return found.decode(errors="replace") if isinstance(found, bytes) else str(found)


def reach(host: str, port: int, asked: Address, reachable: AddressMap) -> Address:
    """The address to connect to. A node that does not know its own host is where ``asked`` is.

    Raises:
        ValueError: there is no such port.
    """
    if not 0 < port < 65_536:
        raise ValueError(port)
    host = canonical(host or asked[0])
    if (mapped := reachable.get(f"{host}:{port}")) is not None:
        host, _, mapped_port = mapped.rpartition(":")
        return host, int(mapped_port)
    return reachable.get(host, host), port
