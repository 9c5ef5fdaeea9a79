"""Formats results as table rows."""

from __future__ import annotations

from tests.faults.harness.call_timer import TimedCall
from tests.faults.harness.scenario import ScenarioResult
from tests.faults.load.cancellation_load import LoadResult
from tests.faults.store.store_scenario import StoreScenarioResult
from tests.faults.topology.topology_scenario import TopologyResult
from tests.isolation.result import Result
from tests.isolation.suite import CASES

Columns = tuple[tuple[str, int], ...]
SCENARIO: Columns = (
    ("fault", 24),
    ("phase", 7),
    ("greeted", 8),
    ("answered", 9),
    ("slowest call", 24),
    ("scan", 7),
    ("recovery", 11),
    ("errors", 7),
    ("log lines", 10),
    ("reads", 6),
    ("wrong", 6),
    ("loop stalled (machine)", 23),
    ("violations", 0),
)
LOAD: Columns = (
    ("cancelled in", 14),
    ("calls", 9),
    ("cancelled", 10),
    ("correct", 9),
    ("wrong", 6),
    ("unanswered", 11),
    ("slowest call", 13),
    ("loop stalled", 13),
    ("seconds", 8),
    ("violations", 0),
)
STORE: Columns = (
    ("fault of the store", 28),
    ("phase", 7),
    ("first word", 12),
    ("last good", 11),
    ("answered", 10),
    ("spooled", 9),
    ("stored", 8),
    ("warnings", 10),
    ("violations", 0),
)
TOPOLOGY: Columns = (
    ("fault of several servers", 40),
    ("slowest call", 22),
    ("taken over", 11),
    ("recovery", 10),
    ("reads", 7),
    ("stale", 6),
    ("elsewhere", 10),
    ("missed", 7),
    ("errors", 7),
    ("log lines", 10),
    ("loop stalled", 13),
    ("violations", 0),
)
ISOLATION: Columns = (
    *((kind, len(kind) + 2) for kind in CASES),
    ("all", 9),
    ("changed", 9),
    ("shown", 7),
    ("wrong", 7),
    ("crashes", 9),
    ("log lines", 11),
    ("leaks", 7),
    ("seconds", 9),
    ("violations", 0),
)
NOTES = """\
slowest call: of all calls of the cache, without the loader's time and without stalls of the loop; at most the
  deadline of 50 ms plus 20 ms. A scan of the keyspace has the deadline at each step.
recovery: from the end of the fault until a value written is read back, and the profile; at most 300 ms.
loop stalled: total time of loop stalls, and the part during which this process was not on the CPU.
reads: values served to four other users beside the dialogue, each checked against the acknowledged writes. wrong: reads
  that returned an older value than acknowledged, or another user's.
taken over: from the fault of a cluster or behind Sentinels until another server was elected, or all were back; recovery
  there: from then on until three caches store and read where the fault was, at most 3 s. elsewhere: reads of keys
  where no fault was, and how many of these missed. log lines: warnings and the lines that something is back.
last good: the cached profile was used while the store failed. spooled: files in COMPANION_HOME that waited for the next
  start. stored: every user turn was in the store afterwards. warnings: log lines that report the fault.
changed, shown: cases in which data of another user, of the layer itself or of another application changed or was shown.
  wrong: cases in which a call had a wrong effect for its caller. leaks: log lines that contain a credential or user
  data."""


def header(columns: Columns = SCENARIO) -> str:
    """The header row."""
    return _row([name for name, _ in columns], columns)


def scenario_row(result: ScenarioResult) -> str:
    recovery = result.recovery
    return _row(
        [
            result.fault,
            result.phase,
            _yes(result.greeted),
            _yes(result.answered),
            _call(result.slowest),
            _ms(result.slowest_scan.net),
            "never" if recovery is None else _ms(recovery),
            str(result.errors),
            str(len(result.log_lines)),
            str(result.reads),
            str(len(result.wrong)),
            f"{_ms(result.stalled)} ({_ms(result.stalled_by_machine)})",
            "; ".join(result.violations) or "none",
        ]
    )


def store_row(result: StoreScenarioResult) -> str:
    return _row(
        [
            result.fault,
            result.phase,
            _ms(result.first_word) if result.first_word else "before",
            "used" if result.last_good else "",
            _yes(result.answered),
            str(result.spooled),
            _yes(result.stored),
            str(result.warnings),
            "; ".join(result.violations) or "none",
        ],
        STORE,
    )


def topology_row(result: TopologyResult) -> str:
    reads, missed = result.healthy
    return _row(
        [
            result.fault,
            _call(result.slowest),
            f"{result.took:.1f} s",
            "never" if result.recovery is None else f"{result.recovery:.2f} s",
            str(result.reads),
            str(len(result.stale)),
            str(reads),
            str(missed),
            str(result.errors),
            f"{len(result.warnings)} + {len(result.notes)}",
            _ms(result.stalled),
            "; ".join(result.violations) or "none",
        ],
        TOPOLOGY,
    )


def load_row(result: LoadResult) -> str:
    counts = (result.calls, result.cancelled, result.correct, result.wrong, result.unanswered)
    return _row(
        [
            result.name,
            *(f"{count:,}" for count in counts),
            _ms(result.slowest),
            f"{result.stalled:.1f} s",
            f"{result.seconds:.0f}",
            "; ".join(result.violations) or "none",
        ],
        LOAD,
    )


def isolation_row(result: Result) -> str:
    cases = [result.cases[kind] for kind in CASES]
    faults = (result.changes, result.shown, result.wrong, result.crashes)
    return _row(
        [
            *(f"{count:,}" for count in (*cases, sum(cases), *map(len, faults), result.lines, len(result.leaks))),
            f"{sum(result.seconds.values()):.0f}",
            "; ".join(result.violations) or "none",
        ],
        ISOLATION,
    )


def _row(cells: list[str], columns: Columns = SCENARIO) -> str:
    widths = [width for _, width in columns]
    return "".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _call(call: TimedCall) -> str:
    return f"{_ms(call.net)} {call.name}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _yes(condition: bool) -> str:
    return "yes" if condition else "NO"
