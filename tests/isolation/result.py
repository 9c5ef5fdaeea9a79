"""The result of the isolation cases."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

_SHOWN: Final = 5


@dataclass
class Result:
    """Counts and findings.

    Attributes:
        cases: number of cases by kind.
        changes: cases that changed data of another user or of no user.
        shown: cases that showed a user another user's data.
        wrong: cases with a wrong effect for the caller, or a reply of an undocumented shape.
        crashes: cases that raised an undocumented exception.
        leaks: log lines that contain a secret or user data.
        lines: number of log lines captured.
        seconds: duration by kind.
        incomplete: whether the deadline ended the run early.
    """

    cases: Counter[str] = field(default_factory=Counter)
    changes: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    lines: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    incomplete: bool = False

    @property
    def violations(self) -> list[str]:
        """Violated invariants with a few examples each; empty on success."""
        what = {
            "changed of others": self.changes,
            "shown of others": self.shown,
            "wrong": self.wrong,
            "crashes": self.crashes,
            "log leaks": self.leaks,
        }
        found = [f"{len(cases)} {name}: {' | '.join(cases[:_SHOWN])}" for name, cases in what.items() if cases]
        return [*found, "the deadline passed before all cases ran"] if self.incomplete else found
