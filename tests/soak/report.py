"""Formats the result of a soak test, and derives the violated invariants."""

from __future__ import annotations

from typing import Final

from tests.soak.measures.memory_use import MB, MemoryUse
from tests.soak.soak import CALL_LIMIT, SoakResult

GROWTH_LIMIT: Final = MemoryUse(resident=0.05, blocks=0.025)
"""Permitted growth of memory. A leak fills the allocator's gaps first, so the limit on blocks is tighter: leaking one
session in a hundred grows them by 2.9 %.
"""


def violations(result: SoakResult) -> list[str]:
    """The violated invariants; empty on success."""
    counters, log = result.counters, result.log
    counts = {
        "sessions without a greeting": counters.sessions - counters.greetings,
        "utterances without an answer": counters.answers_due - counters.answers,
        "sessions that failed": counters.failed,
        "deadline misses": result.call_timer.deadline_misses,
        "stale reads": counters.stale,
        "cross-user reads": counters.cross_user + result.foreign_records,
        "lost turns": result.lost_turns,
        "writes acknowledged and lost": counters.lost,
        "lines of a profile lost": result.lost_lines,
        "removed lines of a profile that returned": result.resurrected_lines,
        "things of erased persons that returned": result.resurrected,
        "things said after an erasure and lost": result.not_remembered,
        "things lost, or back, after a kill": len(result.broken_promises),
        "log lines with secrets or user data": log.leak_count,
        "unhandled errors": sum(log.errors.values()),
    }
    found = [f"{count} {what}" for what, count in counts.items() if count]
    found += [f"leaked: {', '.join(result.leaked)}"] if result.leaked else []
    growth = result.memory.growth
    if growth is not None and any(grown > most for grown, most in zip(growth, GROWTH_LIMIT, strict=True)):
        found.append(f"memory grew by {growth.resident:.1%}, Python's blocks by {growth.blocks:.1%}")
    return found


def table(result: SoakResult) -> str:
    """The result as a table."""
    counters, log, timer, memory = result.counters, result.log, result.call_timer, result.memory
    slowest, scan = timer.slowest(), timer.slowest(per_step=True)
    rate = counters.sessions / result.took * 60 if result.took else 0
    baseline, final, growth = memory.baseline, memory.final, memory.growth
    if baseline is None or final is None or growth is None:
        used = f"{memory.samples[-1][1].resident / MB:.1f} MB at the end; the run is too short to judge growth"
    else:
        used = f"{baseline.resident / MB:.1f} MB after warming up, {final.resident / MB:.1f} MB at the end"
        used += f" ({growth.resident:+.1%}); Python's blocks {growth.blocks:+.1%}"
    rows = {
        "sessions": f"{counters.sessions:,} ({rate:.0f} a minute), at most {counters.peak_sessions} at once",
        "greetings": f"{counters.greetings:,}",
        "answers": f"{counters.answers:,} of {counters.answers_due:,}; {counters.interrupted:,} interrupted,"
        f" {counters.disconnected:,} disconnected",
        "faults": f"{sum(result.faults.values()):,} of {len(result.faults)} kinds",
        "deadline misses": f"{timer.deadline_misses:,} of {timer.calls:,} calls; slowest {slowest.net * 1000:.0f} ms"
        f" ({slowest.name}) of {CALL_LIMIT * 1000:.0f}, a scan {scan.net * 1000:.0f} ms",
        "stale reads": f"{counters.stale:,} of {counters.reads:,}",
        "cross-user reads": f"{counters.cross_user + result.foreign_records:,}"
        f" in {counters.texts:,} texts, the store and Redis",
        "lost turns": f"{result.lost_turns:,} of {counters.turns:,}, deferred facts included",
        "lost writes": f"{counters.lost:,} of {counters.acknowledged:,} acknowledged",
        "profile lines": f"{result.lost_lines:,} lost, {result.resurrected_lines:,} resurrected"
        f" of {result.profile_lines:,} in overlapping changes",
        "erasures": f"{result.erasures:,}; {result.resurrected:,} things resurrected,"
        f" {result.not_remembered:,} of later conversations lost",
        "killed workers": f"{result.kills:,}; lost, or back: {len(result.broken_promises):,} of {result.promised:,}",
        "log leaks": f"{log.leak_count:,} in {log.lines:,} lines",
        "unhandled errors": f"{sum(log.errors.values()):,}",
        "memory": used,
        "leaked resources": ", ".join(result.leaked) or "none (connections, tasks, files, threads, processes)",
    }
    return "\n".join(f"{name:<20}{value}" for name, value in rows.items())


def details(result: SoakResult) -> str:
    """Examples of violations."""
    broken = {f"after a kill: {what}": 1 for what in result.broken_promises[:20]}
    found = {**result.counters.examples, **broken, **result.log.errors, **result.log.leaks}
    return "\n".join(f"  {count} times: {text}" for text, count in found.items())
