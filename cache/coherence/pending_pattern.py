"""What may be pending: single keys, and patterns, of one user or of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..keys import USERS, is_reserved, is_user_id, owner, system_server, user_prefix
from .glob import matches, plain_start


class PendingPattern(NamedTuple):
    """A pattern to invalidate.

    Attributes:
        glob: the Redis pattern.
        user_id: the user whose keys it is limited to; None for all users.
        where: whether a key is in the place that is meant, a node of a cluster; None for everywhere.
        own: whether only keys that this layer wrote are deleted (see ``invalidation.ownership``). All that the pattern
            reaches are masked until that is done.
    """

    glob: str
    user_id: str | None
    own: bool = False
    where: Callable[[str], bool] | None = None

    @property
    def start(self) -> str:
        """The literal prefix of every key it reaches."""
        return plain_start(self.glob) if self.user_id is None else user_prefix(self.user_id)

    @property
    def literal(self) -> bool:
        """Whether the glob is the name of a single key."""
        return plain_start(self.glob) == self.glob

    def spares(self, key: str) -> bool:
        """Whether it leaves alone a key that matches: one of the layer itself whose prefix it does not literally name.

        A server's mark is always spared: without it the values of all users would be quarantined.
        """
        return key.startswith(system_server()) or (is_reserved(key) and not is_reserved(self.glob))

    def reaches(self, key: str) -> bool:
        """Whether it includes ``key``."""
        if self.user_id is not None and not key.startswith(f"{USERS}{self.user_id}:"):
            return False
        if self.where is not None and not self.where(key):
            return False
        return matches(self.glob, key) and not self.spares(key)


PendingInvalidation = str | PendingPattern
"""A key or a pattern."""


class PendingInvalidations(NamedTuple):
    """Invalidations that Redis has not acknowledged: single keys, and patterns."""

    keys: tuple[str, ...] = ()
    patterns: tuple[PendingPattern, ...] = ()


def only_user(pattern: str) -> str | None:
    """The one user whose keys ``pattern`` can match; None if it can match several users' keys."""
    owned = owner(f"{plain_start(pattern)}*")
    return owned[0] if owned is not None and is_user_id(owned[0]) else None
