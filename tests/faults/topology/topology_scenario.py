"""A topology scenario: traffic of three caches, one fault of several servers, and the invariants that must hold."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Final

from cache import CacheSettings, RedisCache, keys
from tests.faults.harness.call_timer import CallTimer, TimedCall
from tests.faults.harness.checks import Checks
from tests.faults.harness.scenario import SLACK
from tests.faults.harness.worker_setup import log_listener
from tests.faults.topology.places import Place
from tests.faults.topology.topology_faults import CACHES, TopologyFault
from tests.faults.topology.traffic import DOOMED, QUIET, Traffic
from tests.inside import engine_of
from tests.wait import initialised, until

RECOVERY_LIMIT: Final = 3.0
"""Seconds from the election until the cache is used again."""
HEALTHY_MISSES: Final = 0.01
"""Share of the reads where no fault is that may miss: a busy machine exceeds the deadline now and then."""
_BEFORE: Final = 1.2  # seconds of traffic before the fault
_AFTER: Final = 0.5
_DELIVERY_TIMEOUT: Final = 20.0


@dataclass
class TopologyResult(Checks):
    """Measurements of one scenario."""

    fault: str
    slowest: TimedCall = field(default_factory=lambda: TimedCall("none", 0.0, 0.0))
    took: float = 0.0
    """Seconds from the injection until another server had taken over."""
    recovery: float | None = None
    """Seconds from then until all three caches had stored and read values wherever the fault was."""
    reads: int = 0
    stale: list[str] = field(default_factory=list)
    healthy: tuple[int, int] = (0, 0)
    """Reads where no fault was, and how many of them missed."""
    errors: int = 0
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stalled: float = 0.0


async def run_topology_scenario(fault: TopologyFault, place: Place) -> TopologyResult:
    """Run the scenario. Only errors of the scenario itself propagate; violations are in the result."""
    result = TopologyResult(str(fault))
    timer = CallTimer()
    before = asyncio.all_tasks()
    caches = [_cache(place.url, near, fault.deadline) for near in ("", "", "profile")]
    try:
        for cache in caches:
            await initialised(cache)
        await _store_quiet(caches)
        await _converse(fault, place, caches, timer, result)
    finally:
        for cache in caches:
            await cache.close()
    leaked = {task.get_name() for task in asyncio.all_tasks() - before}
    result.check(not leaked, f"tasks leaked: {leaked}")
    _evaluate(fault, result, timer)
    return result


def _cache(url: str, near: str, deadline: float) -> RedisCache:
    environ = {"REDIS_URL": url, "CACHE_NEAR": near, "CACHE_CONNECT_WAIT_MS": "5000"}
    return RedisCache(settings=CacheSettings.from_env(environ=environ | {"CACHE_DEADLINE_MS": str(deadline * 1000)}))


async def _store_quiet(caches: list[RedisCache]) -> None:
    """All see them. Until the servers have their marks, a cache that connects may take them for restored ones."""
    values = dict.fromkeys([*QUIET, *DOOMED], "quiet")

    async def stored() -> bool:
        await caches[0].set_many(values, ttl=600)
        found = [await cache.get_many(values) == values for cache in caches]
        return all(found) and not any(cache.invalidations.undelivered for cache in caches)

    await until(stored)


async def _converse(
    fault: TopologyFault, place: Place, caches: list[RedisCache], timer: CallTimer, result: TopologyResult
) -> None:
    def note(record: logging.LogRecord) -> None:
        if record.name == "cache" and record.levelno >= logging.INFO:
            lines = result.warnings if record.levelno >= logging.WARNING else result.notes
            lines.append(f"{time.perf_counter() - began:+.2f} s: {record.getMessage()}")

    traffic = Traffic(caches, place, fault.grace)
    traffic.start()
    await asyncio.sleep(_BEFORE)
    errors = _errors(caches)
    began = time.perf_counter()
    try:
        with log_listener(note), timer.running():
            elected = await asyncio.to_thread(fault.inject, place)
            result.took = time.perf_counter() - began
            result.recovery = await _recovery(caches, place, elected)
            await asyncio.sleep(_AFTER)
    finally:
        await traffic.stop()
    result.errors = _errors(caches) - errors
    result.reads, result.stale, result.healthy = traffic.reads, traffic.stale, (traffic.healthy[0], traffic.healthy[1])
    try:
        await until(lambda: not any(cache.invalidations.undelivered for cache in caches), _DELIVERY_TIMEOUT)
    except AssertionError:
        result.check(False, "an invalidation was never delivered")


def _errors(caches: list[RedisCache]) -> int:
    return sum(engine_of(cache).counters.connection_errors for cache in caches)


async def _recovery(caches: list[RedisCache], place: Place, elected: float | None) -> float | None:
    """Seconds from the election until what each cache stores where the fault was is read by the next one."""
    since = time.perf_counter() if elected is None else elected
    names = [keys.temp("probe", str(number)) for number in range(300)]
    there = [name for name in names if place.fails(name)][:20] or names[:20]
    for number in range(10_000):
        written = [await cache.set_many(dict.fromkeys(there, number), ttl=60) == len(there) for cache in caches]
        if all(written) and all([await cache.get_many(there) == dict.fromkeys(there, number) for cache in caches]):
            return time.perf_counter() - since
        if time.perf_counter() - since > 3 * RECOVERY_LIMIT:
            break
        await asyncio.sleep(0.01)
    return None


def _evaluate(fault: TopologyFault, result: TopologyResult, timer: CallTimer) -> None:
    result.slowest, result.stalled = timer.slowest(), timer.loop.total
    slow, recovery = result.slowest, result.recovery
    result.check(slow.net <= fault.deadline + SLACK, f"{slow.name} took {slow.net * 1000:.0f} ms")
    result.check(not result.stale, f"{len(result.stale)} stale, such as: {result.stale[:1]}")
    result.check(result.reads > 100, "too few reads to show anything")
    late = "never used again" if recovery is None else f"used again {recovery:.1f} s after the election"
    result.check(recovery is not None and recovery <= RECOVERY_LIMIT, late)
    reads, missed = result.healthy
    result.check(missed <= HEALTHY_MISSES * reads, f"{missed} of {reads} reads missed where no fault was")
    for lines in (result.warnings, result.notes):
        result.check(len(lines) <= CACHES * fault.changes, f"{len(lines)} lines in the log, such as: {lines[-1:]}")
    if fault.lossless:
        result.check(not result.errors and not missed, f"{result.errors} errors")
