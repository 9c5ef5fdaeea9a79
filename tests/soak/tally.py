"""What a soak has counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

_EXAMPLES: Final = 20


@dataclass
class Tally:
    """Counts of what was promised and of what was not kept. All of one run; it never grows.

    Attributes:
        at_once: the most sessions at the same time.
        answers_due: sentences that were not interrupted.
        reads: values served that were compared with what had been acknowledged.
        heard: texts that were searched for other people's words.
        kept: writes that were acknowledged.
        turns: what was said by either side, in conversations that are over.
        gone: acknowledged, and not in the store.
        examples: of what was not kept.
    """

    sessions: int = 0
    greetings: int = 0
    at_once: int = 0
    answers_due: int = 0
    answers: int = 0
    interrupted: int = 0
    hung_up: int = 0
    reads: int = 0
    stale: int = 0
    heard: int = 0
    cross_user: int = 0
    kept: int = 0
    gone: int = 0
    turns: int = 0
    failed: int = 0
    examples: Counter[str] = field(default_factory=Counter)

    def note(self, what: str) -> None:
        """Keep an example."""
        if what in self.examples or len(self.examples) < _EXAMPLES:
            self.examples[what] += 1
