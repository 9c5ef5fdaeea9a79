"""Commands that a server lacks, or refuses to our user: found in the handshake, and replaced where possible.

The nodes of a cluster do not share their users: what one of them refuses is sent to none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from .. import keys
from ..exceptions import CommandRejected
from .client import Command
from .scripts import ALL, RELEASE, Script

LOAD_SCRIPTS: Final = tuple(("SCRIPT", "LOAD", script.text) for script in ALL)
"""The commands that make our scripts known to a server."""


def probes(key: str) -> tuple[Command, ...]:
    """Commands without effect, for what may be missing. ``key``: a name that is no key, in a slot of the node."""
    lease, stale = keys.lease(key), keys.stale(key)
    return (
        ("UNLINK", lease),
        ("DEL", lease),
        ("SCRIPT", "LOAD", RELEASE.text),
        ("EVALSHA", RELEASE.digest, 2, lease, stale, "", 0),
        ("SCAN", 0, "COUNT", 1),
        ("INFO", "memory"),
    )


NO_KEY: Final = "no key"
PROBES: Final = probes(NO_KEY)
PROBE_EVAL: Final[Command] = ("EVAL", "return 0", 1, keys.lease(NO_KEY))
"""Asked only where it cannot be tried: it is needed seldom, and a user may well lack the right to it."""
_NEED_EVAL: Final = ("EVALSHA", "SCRIPT")  # where one of these is refused, EVAL may take its place
HUNG_UP: Final = "HANGUP"
"""The code of a command over which a proxy ends the connection, instead of answering with an error."""
_LOST: Final = {
    "UNLINK": "DEL takes its place",
    "DEL": "UNLINK takes its place",
    "SCRIPT": "EVAL takes the place of EVALSHA until the server knows a script",
    "EVALSHA": "EVAL takes its place",
    "EVAL": "what is loaded is not stored, loads are not shared, nothing is counted; set and get work",
    "SCAN": "what a pattern matches is not deleted, and ends with its TTL",
    "INFO": "a restart, restore or failover that lost invalidations is not noticed",
}
_NO_DELETE: Final = "nothing is deleted in Redis: other processes serve old values until their TTL ends"


class Capabilities:
    """What the server of the present connection lacks, or any node of a cluster.

    Attributes:
        refused: the code of the error, by command.
        delete: the command that deletes keys.
    """

    def __init__(self, refused: dict[str, str] | None = None) -> None:
        self.refused = refused or {}
        self.delete = "DEL" if "UNLINK" in self.refused else "UNLINK"

    @classmethod
    def found(cls, replies: Iterable[Any]) -> Capabilities:
        """Judge by the replies to ``PROBES``, and to ``PROBE_EVAL`` if that was sent. Rejections are among them."""
        pairs = zip((*PROBES, PROBE_EVAL), replies, strict=False)
        refused = {probe[0]: it.code for probe, it in pairs if isinstance(it, CommandRejected) and it.missing}
        if refused.keys().isdisjoint(_NEED_EVAL):
            refused.pop("EVAL", None)  # nothing is lost
        return cls(refused)

    def check(self, commands: Iterable[Sequence[Any]]) -> None:
        """Reject here what would cost the connection.

        Raises:
            CommandRejected: a proxy ends the connection over one of the commands.
        """
        if any(self.refused.get(command[0]) == HUNG_UP for command in commands):
            raise CommandRejected(HUNG_UP)

    @classmethod
    def of_all(cls, nodes: Iterable[Capabilities]) -> Capabilities:
        """Those that all these have."""
        return cls({name: code for each in nodes for name, code in each.refused.items()})

    def knowing(self, before: Capabilities) -> Capabilities:
        """These, with what was found before about EVAL, which is tried only where another command is refused."""
        known = before.refused.get("EVAL")
        return Capabilities(self.refused | {"EVAL": known}) if known and self.needs_eval else self

    @property
    def needs_eval(self) -> bool:
        """Whether scripts may have to be sent as texts."""
        return not self.refused.keys().isdisjoint(_NEED_EVAL)

    def lost(self) -> dict[str, str]:
        """What is lost, or takes the place of each command that is refused."""
        neither = {"UNLINK", "DEL"} <= self.refused.keys()
        return {name: _NO_DELETE if neither and name in ("UNLINK", "DEL") else _LOST[name] for name in self.refused}

    def ways(self, script: Script, names: Sequence[str], args: Sequence[Any]) -> list[tuple[Command, ...]]:
        """The commands that run a script, with those to send where they are refused after them."""
        rest = (len(names), *names, *args)
        by_digest = ("EVALSHA", script.digest, *rest)
        text = script.text if "DEL" not in self.refused else script.text.replace("'DEL'", f"'{self.delete}'")
        otherwise: list[tuple[Command, ...]] = [] if "EVAL" in self.refused else [(("EVAL", text, *rest),)]
        if script.steps:
            otherwise.append(script.steps(self.delete, names, args))
        if not self.refused.keys().isdisjoint(("EVALSHA", "DEL")):
            return otherwise
        loaded = [] if "SCRIPT" in self.refused else [(*LOAD_SCRIPTS, by_digest)]
        return [(by_digest,), *loaded, *otherwise]
