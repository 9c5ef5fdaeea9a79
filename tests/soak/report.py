"""The outcome of a soak as a table, and the promises that were not kept."""

from __future__ import annotations

from typing import Final

from tests.soak.memory import MB, Use
from tests.soak.soak import LIMIT, Outcome

FLAT: Final = Use(resident=0.05, blocks=0.025)
"""Shares by which memory may have grown. What is lost goes into the gaps first, so the number of blocks has less room:
one session in a hundred that stays behind makes it 2.9 %.
"""


def broken(result: Outcome) -> list[str]:
    """The promises that were not kept."""
    tally, ears = result.tally, result.ears
    counts = {
        "sessions without a greeting": tally.sessions - tally.greetings,
        "sentences without an answer": tally.answers_due - tally.answers,
        "sessions that failed": tally.failed,
        "deadline misses": result.call_timer.deadline_misses,
        "stale reads": tally.stale,
        "cross-user reads": tally.cross_user + result.strangers,
        "lost turns": result.lost_turns,
        "writes acknowledged and lost": tally.gone,
        "lines of the log with secrets": ears.secrets,
        "errors nobody has dealt with": sum(ears.errors.values()),
    }
    promises = [f"{count} {what}" for what, count in counts.items() if count]
    promises += [f"left behind: {', '.join(result.left)}"] if result.left else []
    growth = result.memory.growth
    if growth is not None and any(grown > most for grown, most in zip(growth, FLAT, strict=True)):
        promises.append(f"memory has grown by {growth.resident:.1%}, what Python holds by {growth.blocks:.1%}")
    return promises


def table(result: Outcome) -> str:
    """Everything that was counted."""
    tally, ears, watch, memory = result.tally, result.ears, result.call_timer, result.memory
    slowest, walk = watch.slowest(), watch.slowest(per_step=True)
    rate = tally.sessions / result.took * 60 if result.took else 0
    begins, ends, growth = memory.begins, memory.ends, memory.growth
    if begins is None or ends is None or growth is None:
        used = f"{memory.samples[-1][1].resident / MB:.1f} MB at the end; too short a run to judge it"
    else:
        used = f"{begins.resident / MB:.1f} MB after warming up, {ends.resident / MB:.1f} MB at the end"
        used += f" ({growth.resident:+.1%}); pieces that Python holds {growth.blocks:+.1%}"
    rows = {
        "sessions": f"{tally.sessions:,} ({rate:.0f} a minute), at most {tally.at_once} at once",
        "greetings given": f"{tally.greetings:,}",
        "answers given": f"{tally.answers:,} of {tally.answers_due:,}; {tally.interrupted:,} more were interrupted,"
        f" {tally.hung_up:,} cut off by hanging up",
        "faults": f"{sum(result.troubles.values()):,} of {len(result.troubles)} kinds",
        "deadline misses": f"{watch.deadline_misses:,} of {watch.calls:,} calls; slowest {slowest.net * 1000:.0f} ms"
        f" ({slowest.name}) of {LIMIT * 1000:.0f}, a walk {walk.net * 1000:.0f} ms",
        "stale reads": f"{tally.stale:,} of {tally.reads:,}",
        "cross-user reads": f"{tally.cross_user + result.strangers:,} in {tally.heard:,} texts, the store and Redis",
        "lost turns": f"{result.lost_turns:,} of {tally.turns:,}, facts that had to wait included",
        "lost writes": f"{tally.gone:,} of {tally.kept:,} acknowledged",
        "secrets in the log": f"{ears.secrets:,} in {ears.lines:,} lines",
        "unhandled errors": f"{sum(ears.errors.values()):,}",
        "memory": used,
        "left at the end": ", ".join(result.left) or "nothing: no connection, task, file, thread or process",
    }
    return "\n".join(f"{name:<20}{value}" for name, value in rows.items())


def details(result: Outcome) -> str:
    """Examples of what went wrong."""
    found = {**result.tally.examples, **result.ears.errors, **result.ears.telling}
    return "\n".join(f"  {count} times: {text}" for text, count in found.items())
