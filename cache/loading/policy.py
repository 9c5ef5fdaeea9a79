"""How long what a loader returned may be used."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

from ..validation import checked_ttl

GONE: Final = -1
"""In place of a TTL: what is there is no longer right, and goes."""


@dataclass(frozen=True, slots=True)
class EntryOptions:
    """The conditions of one ``get_or_load``.

    Attributes:
        ttl: seconds; None for no expiry.
        stale_for: seconds beyond the TTL for which the last good value may stand in for a failing loader.
        negative_ttl: seconds a None is kept; None keeps none, and nothing that was there before.
        spread: share by which a TTL may be shortened at random.
        refresh_after: seconds after which a value is to be refreshed; None for never. A value's age is told from what
            its TTL has left, so where it is given the TTL is shortened by that share of it at most.
    """

    ttl: int | None
    stale_for: int = 0
    negative_ttl: int | None = None
    spread: float = 0.0
    refresh_after: int | None = None

    @classmethod
    def checked(
        cls, ttl: int | None, stale_for: int, negative_ttl: int | None, spread: float, refresh_after: int | None
    ) -> EntryOptions:
        """The terms, once they are known to be as they should be. Raises TypeError or ValueError."""
        terms = cls(
            None if ttl is None else checked_ttl(ttl),
            checked_ttl(stale_for) if stale_for else 0,
            None if negative_ttl is None else checked_ttl(negative_ttl),
            spread,
            refresh_after,
        )
        if refresh_after is not None and (terms.ttl is None or checked_ttl(refresh_after) >= terms.ttl):
            raise ValueError("refresh_after must be shorter than the TTL")
        return terms

    @property
    def oldest(self) -> int | None:
        """Milliseconds that a value has left at most when it is to be refreshed; None where none ever is."""
        if self.ttl is None or self.refresh_after is None:
            return None
        return (self.ttl - self.refresh_after) * 1000

    def milliseconds(self, value: Any) -> tuple[int, int]:
        """TTL of the value, 0 for no expiry, and of its last good copy, 0 for none. GONE for what is not to be kept."""
        ttl = self.negative_ttl if value is None else self.ttl
        if ttl is None:
            return (GONE, GONE) if value is None else (0, 0)
        shortened = ttl if value is None or self.refresh_after is None else self.refresh_after
        life = max(1, int(1000 * (ttl - shortened * self.spread * random.random())))
        if self.stale_for:
            return life, (ttl + self.stale_for) * 1000
        return life, GONE if value is None else 0
