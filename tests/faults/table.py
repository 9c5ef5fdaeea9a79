"""The outcomes as lines of a table."""

from __future__ import annotations

from tests.faults.stopwatch import Timed
from tests.faults.store_trial import StoreOutcome
from tests.faults.storm import Storm
from tests.faults.trial import Outcome
from tests.isolation.result import Result
from tests.isolation.suite import CASES

Columns = tuple[tuple[str, int], ...]
TRIALS: Columns = (
    ("fault", 24),
    ("place", 7),
    ("greeted", 8),
    ("answered", 9),
    ("slowest call", 24),
    ("walk", 7),
    ("used again", 11),
    ("errors", 7),
    ("log lines", 10),
    ("reads", 6),
    ("wrong", 6),
    ("loop stalled (machine)", 23),
    ("broken promises", 0),
)
STORMS: Columns = (
    ("cancelled in", 14),
    ("calls", 9),
    ("cancelled", 10),
    ("right", 8),
    ("wrong", 6),
    ("unanswered", 11),
    ("slowest call", 13),
    ("loop stalled", 13),
    ("seconds", 8),
    ("broken promises", 0),
)
STORE: Columns = (
    ("fault of the store", 28),
    ("place", 7),
    ("first word", 12),
    ("last good", 11),
    ("answered", 10),
    ("kept", 6),
    ("stored", 8),
    ("told", 6),
    ("broken promises", 0),
)
ISOLATION: Columns = (
    *((kind, len(kind) + 2) for kind in CASES),
    ("all", 9),
    ("changed", 9),
    ("shown", 7),
    ("wrong", 7),
    ("crashes", 9),
    ("log lines", 11),
    ("telling", 9),
    ("seconds", 9),
    ("broken promises", 0),
)
NOTES = """\
slowest call: of all calls of the cache, without what a loader took and without the time the loop did not run; at
  most the deadline, 50 ms, and 20 ms. A walk over the keyspace has the deadline at each step.
used again: from the end of the fault until a value written is read back, and the profile; at most 300 ms.
loop stalled: seconds in which the loop did not run, and the part of them in which the machine ran somebody else.
reads: values served to four other users beside the conversation, each checked against what had been acknowledged.
last good: the profile that the cache still had was used while the store failed. kept: files in COMPANION_HOME that
  waited for the next start. stored: everything said was in the store afterwards. told: lines that tell an operator.
changed, shown: cases in which something of another user, of the layer itself or of another application changed, or was
  seen. wrong: in which a call did not do what it should for its caller. telling: log lines that hold a credential or
  what a user said."""


def heads(columns: Columns = TRIALS) -> str:
    """The first line."""
    return _line([name for name, _ in columns], columns)


def trial_line(outcome: Outcome) -> str:
    back = outcome.used_again
    return _line(
        [
            outcome.fault,
            outcome.place,
            _yes(outcome.greeted),
            _yes(outcome.answered),
            _call(outcome.slowest),
            _ms(outcome.slowest_walk.net),
            "never" if back is None else _ms(back),
            str(outcome.errors),
            str(len(outcome.lines)),
            str(outcome.reads),
            str(len(outcome.wrong)),
            f"{_ms(outcome.stalled)} ({_ms(outcome.stalled_by_machine)})",
            "; ".join(outcome.broken) or "none",
        ]
    )


def store_line(outcome: StoreOutcome) -> str:
    return _line(
        [
            outcome.fault,
            outcome.place,
            _ms(outcome.greeted) if outcome.greeted else "before",
            "used" if outcome.known else "",
            _yes(outcome.answered),
            str(outcome.kept),
            _yes(outcome.stored),
            str(outcome.reported),
            "; ".join(outcome.broken) or "none",
        ],
        STORE,
    )


def storm_line(storm: Storm) -> str:
    counts = (storm.calls, storm.cancelled, storm.right, storm.wrong, storm.unanswered)
    return _line(
        [
            storm.name,
            *(f"{count:,}" for count in counts),
            _ms(storm.slowest),
            f"{storm.stalled:.1f} s",
            f"{storm.seconds:.0f}",
            "; ".join(storm.broken) or "none",
        ],
        STORMS,
    )


def isolation_line(result: Result) -> str:
    cases = [result.cases[kind] for kind in CASES]
    faults = (result.changes, result.shown, result.wrong, result.crashes)
    return _line(
        [
            *(f"{count:,}" for count in (*cases, sum(cases), *map(len, faults), result.lines, len(result.leaks))),
            f"{sum(result.seconds.values()):.0f}",
            "; ".join(result.violations) or "none",
        ],
        ISOLATION,
    )


def _line(cells: list[str], columns: Columns = TRIALS) -> str:
    widths = [width for _, width in columns]
    return "".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _call(call: Timed) -> str:
    return f"{_ms(call.net)} {call.name}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _yes(kept: bool) -> str:
    return "yes" if kept else "NO"
