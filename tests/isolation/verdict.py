"""What came of the cases."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

_SHOWN: Final = 5


@dataclass
class Verdict:
    """The outcome.

    Attributes:
        cases: by kind.
        changes: what changed of somebody else's, or of nobody's.
        shown: what somebody was shown of another.
        wrong: what did not do as it should for the caller, or came in another shape than documented.
        crashes: whatever was raised that is not documented.
        telling: log lines in which a secret or what a user said stands.
        lines: log lines heard.
        seconds: by kind.
    """

    cases: Counter[str] = field(default_factory=Counter)
    changes: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    telling: list[str] = field(default_factory=list)
    lines: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    early: bool = False

    @property
    def broken(self) -> list[str]:
        """The promises that were not kept, with a few examples each; empty is what we want."""
        what = {
            "changed of others": self.changes,
            "shown of others": self.shown,
            "wrong": self.wrong,
            "crashes": self.crashes,
            "log lines tell": self.telling,
        }
        found = [f"{len(cases)} {name}: {' | '.join(cases[:_SHOWN])}" for name, cases in what.items() if cases]
        return [*found, "there was no time for all cases"] if self.early else found
