"""Counters: of this process, and the fleet's totals in ``system:stats``.

Each conversation is a process of its own, so counters that lived only here would always begin at zero. They
are added to a hash in Redis now and then, off the hot path, and once more at close.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from .. import keys
from ..transport.commands import Transport

FIELDS = ("total_requests", "cache_hits", "cache_misses", "connection_errors", "stale_reads", "undecodable")
Totals = tuple[int, int, int, int, int, int]
"""Counters in the order of ``FIELDS``."""
Call = Callable[[Callable[[Redis], Awaitable[Any]]], Awaitable[Any]]
"""Runs an operation on a connection of the pool."""


class Counters:
    """Counters of one process. Plain integers, because the hot path adds to them."""

    __slots__ = ("_sent", "cache_hits", "cache_misses", "connection_errors", "stale_reads", "undecodable")

    def __init__(self) -> None:
        self.cache_hits = 0
        self.cache_misses = 0
        self.connection_errors = 0
        self.stale_reads = 0
        self.undecodable = 0
        self._sent: Totals = (0, 0, 0, 0, 0, 0)

    def count(self, there: bool) -> None:
        """One more request, answered from the cache or not."""
        if there:
            self.cache_hits += 1
        else:
            self.cache_misses += 1

    def totals(self) -> Totals:
        """This process's counters, in the order of ``FIELDS``."""
        hits, misses = self.cache_hits, self.cache_misses
        return hits + misses, hits, misses, self.connection_errors, self.stale_reads, self.undecodable

    def unsent(self) -> dict[str, int]:
        """What the fleet's totals do not yet know of, without zeros."""
        now = self.totals()
        return {name: n - s for name, n, s in zip(FIELDS, now, self._sent, strict=True) if n != s}

    async def flush(self, transport: Transport) -> None:
        """Add what is unsent to the fleet's totals. If it raises, nothing was counted as sent."""
        now, news = self.totals(), self.unsent()
        if not news:
            return
        before, self._sent = self._sent, now
        try:
            await transport.send_all(*(("HINCRBY", keys.system_stats(), name, amount) for name, amount in news.items()))
        except BaseException:
            self._sent = before
            raise

    async def fleet(self, call: Call) -> tuple[Totals, int, str]:
        """The fleet's totals with this process's unsent ones, the number of keys, and the memory used."""

        stored, size, memory = await call(_ask)
        news = self.unsent()
        total, hits, misses, errors, stale, undecodable = (
            int(value or 0) + news.get(name, 0) for name, value in zip(FIELDS, stored, strict=True)
        )
        used = human(sum(int(node["used_memory"]) for node in memory))
        return (total, hits, misses, errors, stale, undecodable), int(size), used


async def _ask(client: Redis) -> tuple[list[Any], int, list[dict[str, Any]]]:
    """The stored totals, the number of keys, and the memory section of INFO of each node."""
    if isinstance(client, RedisCluster):  # no pipeline: the last two go to every node
        stored = await client.hmget(keys.system_stats(), list(FIELDS))
        primaries = client.get_primaries()
        sizes = [await client.dbsize(target_nodes=node) for node in primaries]
        return stored, sum(sizes), [await client.info("memory", target_nodes=node) for node in primaries]
    pipe = client.pipeline(transaction=False)
    pipe.hmget(keys.system_stats(), list(FIELDS))
    pipe.dbsize()
    pipe.info("memory")
    stored, size, memory = await pipe.execute()
    return stored, size, [memory]


def human(size: int) -> str:
    """Bytes as Redis writes them in ``used_memory_human``: ``"1.20M"``."""
    for unit, name in ((1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")):
        if size >= unit:
            return f"{size / unit:.2f}{name}"
    return f"{size}B"


def hit_rate(hits: int, total: int) -> str:
    """The documented form: ``"79.4%"``, and ``"0.0%"`` before the first request."""
    return f"{100 * hits / total if total else 0.0:.1f}%"


def report(enabled: bool, connected: bool, totals: Totals, redis_keys: int, redis_memory: str) -> dict[str, Any]:
    """The documented statistics under their documented names, with ``stale_reads`` and ``undecodable``."""
    total, hits, misses, errors, stale, undecodable = totals
    return {
        "enabled": enabled,
        "connected": connected,
        "total_requests": total,
        "cache_hits": hits,
        "cache_misses": misses,
        "hit_rate": hit_rate(hits, total),
        "connection_errors": errors,
        "redis_keys": redis_keys,
        "redis_memory": redis_memory,
        "stale_reads": stale,
        "undecodable": undecodable,
    }
