"""Figures as they are printed: a median with its least and greatest, tables, and what was to be reached."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of some samples and how far they lie apart."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Iterable[float]) -> Self:
        """Of one sample or more."""
        values = sorted(samples)
        return cls(statistics.median(values), values[0], values[-1])

    def times(self, factor: float) -> Spread:
        """The same in another unit."""
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
    """``12.3 %``, and ``-`` of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def percentile(samples: Sequence[float], percent: float) -> float:
    """The sample that so many per cent do not exceed. NaN where there is none."""
    if not samples:
        return math.nan
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown that is also readable as it is: first column left, the others right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def laid_out(line: Sequence[str]) -> str:
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return f"| {' | '.join([first, *others])} |"

    rule = "|".join("-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths))
    return "\n".join([laid_out(lines[0]), f"|{rule}|", *map(laid_out, lines[1:])])


@dataclass(frozen=True, slots=True)
class Goal:
    """One row of what was to be reached.

    Attributes:
        what: what was measured.
        reach: the figure that was aimed at.
        measured: the figure of this run.
        reached: whether it is there.
    """

    what: str
    reach: str
    measured: str
    reached: bool
