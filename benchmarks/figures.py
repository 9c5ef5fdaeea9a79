"""Formatting of results: medians with ranges, numbers, tables, and targets."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range of samples."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Iterable[float]) -> Self:
        """From one sample or more."""
        values = sorted(samples)
        return cls(statistics.median(values), values[0], values[-1])

    def times(self, factor: float) -> Spread:
        """Convert to another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)

    def __str__(self) -> str:
        return f"{number(self.median)} [{number(self.low)} {number(self.high)}]"


def number(value: float) -> str:
    """Three significant digits, without an exponent: ``0.514``, ``12.3``, ``1,234``."""
    if not math.isfinite(value):
        return "-"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}"


def share(part: float, whole: float) -> str:
    """``12.3 %``; ``-`` if ``whole`` is zero."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def percentile(samples: Sequence[float], percent: float) -> float:
    """The sample that ``percent`` of all do not exceed; NaN without samples."""
    if not samples:
        return math.nan
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format an aligned Markdown table: first column left, the others right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def format_row(line: Sequence[str]) -> str:
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return f"| {' | '.join([first, *others])} |"

    rule = "|".join("-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths))
    return "\n".join([format_row(lines[0]), f"|{rule}|", *map(format_row, lines[1:])])


@dataclass(frozen=True, slots=True)
class Target:
    """One row of the table of targets.

    Attributes:
        what: what is measured.
        threshold: the target as text.
        measured: the result of this run.
        met: whether the target is met.
    """

    what: str
    threshold: str
    measured: str
    met: bool
