"""Counters of a soak test."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

_EXAMPLES: Final = 20


@dataclass
class Counters:
    """Counts of checks and of violations during one run. Bounded in size.

    Attributes:
        peak_sessions: maximum number of concurrent sessions.
        answers_due: utterances that were not interrupted.
        disconnected: sessions ended during an answer.
        reads: values compared with the expected state.
        stale: reads older than acknowledged.
        texts: texts searched for other users' data.
        cross_user: texts that contained some.
        acknowledged: writes acknowledged to the user.
        lost: acknowledged writes that are not in the store.
        turns: turns of either side in ended sessions.
        failed: sessions that raised.
        examples: descriptions of violations.
    """

    sessions: int = 0
    greetings: int = 0
    peak_sessions: int = 0
    answers_due: int = 0
    answers: int = 0
    interrupted: int = 0
    disconnected: int = 0
    reads: int = 0
    stale: int = 0
    texts: int = 0
    cross_user: int = 0
    acknowledged: int = 0
    lost: int = 0
    turns: int = 0
    failed: int = 0
    examples: Counter[str] = field(default_factory=Counter)

    def add_example(self, what: str) -> None:
        """Count a violation under its description, up to a number of different ones."""
        if what in self.examples or len(self.examples) < _EXAMPLES:
            self.examples[what] += 1
