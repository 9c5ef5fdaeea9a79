"""How long a loaded value may be used."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ..validation import checked_seconds, checked_ttl

DELETE: Final = -1
"""In place of a TTL: delete what is there, it is no longer right."""


@dataclass(frozen=True, slots=True)
class EntryOptions:
    """The options of one ``get_or_load``, as documented there.

    ``spread``: share of a TTL by which it may be shortened at random. The age of a value is derived from the rest of
    its TTL, so with ``refresh_after`` the TTL is shortened by at most that share of ``refresh_after``.

    Raises:
        TypeError: a duration is no number, or a TTL is not a whole one.
        ValueError: a duration is too short or too long, or ``refresh_after`` is not shorter than the TTL.
    """

    ttl: int | None
    stale_for: int = 0
    negative_ttl: int | None = None
    spread: float = 0.0
    refresh_after: int | None = None
    load_timeout: float = 30.0
    retry_after: float = 1.0

    def __post_init__(self) -> None:
        for ttl in (self.ttl, self.negative_ttl, self.refresh_after, self.stale_for or None):
            if ttl is not None:
                checked_ttl(ttl)
        checked_seconds(self.load_timeout, "load_timeout")
        if self.retry_after != 0:
            checked_seconds(self.retry_after, "retry_after")
        if self.refresh_after is not None and (self.ttl is None or self.refresh_after >= self.ttl):
            raise ValueError("refresh_after must be shorter than the TTL")

    @property
    def refresh_below_ms(self) -> int | None:
        """Refresh a value that has fewer milliseconds left than this; None never refreshes."""
        if self.ttl is None or self.refresh_after is None:
            return None
        return (self.ttl - self.refresh_after) * 1000

    def ttls_ms(self, *, none: bool) -> tuple[int, int]:
        """Milliseconds for the value (0: no expiry) and for its last good value (0: leave it as it is), or DELETE."""
        ttl = self.negative_ttl if none else self.ttl
        if ttl is None:
            return (DELETE, DELETE) if none else (0, 0)
        shortened = ttl if none or self.refresh_after is None else self.refresh_after
        life = max(1, int(1000 * (ttl - shortened * self.spread * random.random())))
        if self.stale_for:
            return life, (ttl + self.stale_for) * 1000
        return life, DELETE if none else 0


entry_options = lru_cache(maxsize=256, typed=True)(EntryOptions)  # checking costs as much as a hit in the near cache
