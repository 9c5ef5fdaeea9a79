"""What a server says of its role, and the reasons for which none is used that is no primary."""

from __future__ import annotations

from typing import Any, Final

from ..exceptions import CommandRejected
from .packing import pack

DEMOTED: Final = "a replica, which refuses writes and may be behind"
REPLICA: Final = f"{DEMOTED}: the URL has to name the primary, or what follows it"
REPLICA_ROLES: Final = (b"replica", b"slave")
CLUSTER_DOWN: Final = "the cluster is down: a slot has no node, or this node does not reach most of the others"
# A primary may be demoted under an open connection. Past this age of the last question for its role, a command is
# preceded by another, in the same write: its reply comes first, and ends the connection before that one's is served.
ROLE_SECONDS: Final = 1.0
ASK_ROLE: Final = pack((b"HELLO", 3))  # needs no right, and changes nothing


def is_down(rejection: CommandRejected) -> bool:
    """Whether a node of a cluster serves no key at all. In "Hash slot not served" one slot is meant."""
    return str(rejection) == "CLUSTERDOWN The cluster is down"


def why_useless(reply: dict[bytes, Any] | CommandRejected) -> str:
    """Why a server that replies so is not to be used; empty if it is."""
    if isinstance(reply, dict):
        return REPLICA if reply.get(b"role") in REPLICA_ROLES else ""
    return REPLICA if reply.code == "READONLY" else CLUSTER_DOWN if is_down(reply) else ""
