"""How long what a loader returned may be used."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

from .arguments import checked_ttl

GONE: Final = -1
"""In place of a TTL: what is there is no longer right, and goes."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The conditions of one ``get_or_load``.

    Attributes:
        ttl: seconds; None for no expiry.
        stale_for: seconds beyond the TTL for which the last good value may stand in for a failing loader.
        negative_ttl: seconds a None is kept; None keeps none, and nothing that was there before.
        spread: share by which a TTL may be shortened at random.
    """

    ttl: int | None
    stale_for: int = 0
    negative_ttl: int | None = None
    spread: float = 0.0

    @classmethod
    def checked(cls, ttl: int | None, stale_for: int, negative_ttl: int | None, spread: float) -> Terms:
        """The terms, once they are known to be as they should be. Raises TypeError or ValueError."""
        return cls(
            None if ttl is None else checked_ttl(ttl),
            checked_ttl(stale_for) if stale_for else 0,
            None if negative_ttl is None else checked_ttl(negative_ttl),
            spread,
        )

    def oldest(self, refresh_after: int | None) -> int | None:
        """Milliseconds that a value has left at most when it is to be refreshed; None where none ever is.

        Raises:
            ValueError: ``refresh_after`` is not shorter than the TTL.
            TypeError: it is not a whole number.
        """
        if refresh_after is None:
            return None
        if self.ttl is None or checked_ttl(refresh_after) >= self.ttl:
            raise ValueError("refresh_after must be shorter than the TTL")
        return (self.ttl - refresh_after) * 1000

    def milliseconds(self, value: Any) -> tuple[int, int]:
        """TTL of the value, 0 for no expiry, and of its last good copy, 0 for none. GONE for what is not to be kept."""
        ttl = self.negative_ttl if value is None else self.ttl
        if ttl is None:
            return (GONE, GONE) if value is None else (0, 0)
        spread = int(ttl * 1000 * (1 - self.spread * random.random()))
        if self.stale_for:
            return max(1, spread), (ttl + self.stale_for) * 1000
        return max(1, spread), GONE if value is None else 0
