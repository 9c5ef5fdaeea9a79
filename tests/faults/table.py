"""The outcomes as lines of a table."""

from __future__ import annotations

from tests.faults.stopwatch import Timed
from tests.faults.storm import Storm
from tests.faults.trial import Outcome

_TRIALS = (
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
_STORMS = (
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
NOTES = """\
slowest call: of all calls of the cache, without what a loader took and without the time the loop did not run; at
  most the deadline, 50 ms, and 20 ms. A walk over the keyspace has the deadline at each step.
used again: from the end of the fault until a value written is read back, and the profile; at most 300 ms.
loop stalled: seconds in which the loop did not run, and the part of them in which the machine ran somebody else.
reads: values served to four other users beside the conversation, each checked against what had been acknowledged."""


def heads(storms: bool = False) -> str:
    """The first line."""
    return _line([name for name, _ in (_STORMS if storms else _TRIALS)], storms)


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
        storms=True,
    )


def _line(cells: list[str], storms: bool = False) -> str:
    widths = [width for _, width in (_STORMS if storms else _TRIALS)]
    return "".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _call(call: Timed) -> str:
    return f"{_ms(call.net)} {call.name}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _yes(kept: bool) -> str:
    return "yes" if kept else "NO"
