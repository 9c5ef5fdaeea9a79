"""Counters: of this process, and the fleet's totals in ``system:stats``.

Each conversation is a process of its own, so counters that lived only here would always begin at zero. They
are added to a hash in Redis now and then, off the hot path, and once more at close.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from .. import keys
from ..transport.commands import Transport
from ..transport.packing import info_of

FIELDS: Final = (
    "total_requests",
    "cache_hits",
    "cache_misses",
    "connection_errors",
    "stale_reads",
    "undecodable",
    "warmed",
)
_REPORTED: Final = (*FIELDS[:3], "hit_rate", "connection_errors", "redis_keys", "redis_memory", *FIELDS[4:])


class Counters:
    """Counters of one process. Plain integers, because the hot path adds to them."""

    def __init__(self) -> None:
        self.cache_hits = 0
        self.cache_misses = 0
        self.connection_errors = 0
        self.stale_reads = 0
        self.undecodable = 0
        self.warmed = 0
        self._sent = self.totals()

    @property
    def total_requests(self) -> int:
        """Hits and misses."""
        return self.cache_hits + self.cache_misses

    def count(self, there: bool) -> None:
        """One more request, answered from the cache or not."""
        if there:
            self.cache_hits += 1
        else:
            self.cache_misses += 1

    def totals(self) -> dict[str, int]:
        """This process's counters, by name."""
        return {name: getattr(self, name) for name in FIELDS}

    def unsent(self) -> dict[str, int]:
        """What the fleet's totals do not yet know of."""
        return {name: total - self._sent[name] for name, total in self.totals().items()}

    async def flush(self, transport: Transport) -> None:
        """Add what is unsent to the fleet's totals. If it raises, nothing was counted as sent."""
        before, news = self._sent, {name: amount for name, amount in self.unsent().items() if amount}
        if not news:
            return
        self._sent = self.totals()
        try:
            await transport.send_all(*(("HINCRBY", keys.system_stats(), name, amount) for name, amount in news.items()))
        except BaseException:
            self._sent = before
            raise

    def own(self) -> dict[str, Any]:
        """The documented statistics of this process alone."""
        return _report(self.totals(), 0, "0B")

    async def fleet(self, transport: Transport) -> dict[str, Any]:
        """The documented statistics of the fleet, what is unsent included.

        Raises:
            TransportError: Redis gave no usable reply.
        """

        async def ask() -> tuple[dict[str, int], list[Any]]:  # what is unsent as HMGET is sent is in no reply to it
            return self.unsent(), await transport.send("HMGET", keys.system_stats(), *FIELDS)

        (unsent, stored), sizes, memory = await asyncio.gather(
            ask(),
            transport.on_each_node("DBSIZE"),
            transport.on_each_node("INFO", "memory"),
        )
        totals = {name: int(value or 0) for name, value in zip(FIELDS, stored, strict=True)}
        used = sum(int(size) for each in memory if (size := info_of(each).get("used_memory", "")).isdigit())
        totals = {name: totals[name] + amount for name, amount in unsent.items()}
        return _report(totals, sum(map(int, sizes)), _human(used))


def _human(size: int) -> str:
    """Bytes as Redis writes them in ``used_memory_human``: ``"1.20M"``."""
    for unit, name in ((1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")):
        if size >= unit:
            return f"{size / unit:.2f}{name}"
    return f"{size}B"


def _report(totals: dict[str, int], redis_keys: int, redis_memory: str) -> dict[str, Any]:
    hits, total = totals["cache_hits"], totals["total_requests"]
    rate = f"{100 * hits / total if total else 0.0:.1f}%"
    known = {**totals, "hit_rate": rate, "redis_keys": redis_keys, "redis_memory": redis_memory}
    return {name: known[name] for name in _REPORTED}
