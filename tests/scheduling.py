"""Distributes the tests among pytest-xdist's workers: paired and serial ones when nothing else is left to run.

A worker that has come to such a test waits until no other runs an ordinary one. With them among what ``worksteal``
hands out, one worker after the other would wait while the last has everything else still to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler.worksteal import MIN_PENDING, WorkStealingScheduling

NAMES: Final = "held tests"
"""The file, beside the workers' own directories, in which they note the names of the tests that are held back."""


def note_held(config: pytest.Config, names: Iterable[str]) -> None:
    """In a worker: note which tests to hold back, for the process that distributes them and does not collect any."""
    own = Path(config.option.basetemp).with_suffix(".held")
    own.write_text("\n".join(names))
    own.replace(own.with_name(NAMES))


class SerialLast(WorkStealingScheduling):
    """``worksteal``, with paired and serial tests held back."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        self._held: list[int] | None = None

    def check_schedule(self) -> None:
        if self._held is None and self.collection is not None:  # at first all tests are pending
            names = (self.config._tmp_path_factory.getbasetemp() / NAMES).read_text().split("\n")
            held = set(names) & set(self.collection)
            self._held = [index for index in self.pending if self.collection[index] in held]
            self.pending = [index for index in self.pending if self.collection[index] not in held]
        if self._held and self._nothing_to_steal():
            self.pending, self._held = self._held, []
        super().check_schedule()

    def _nothing_to_steal(self) -> bool:
        """Whether a worker is idle, and no other has more than it needs itself."""
        lengths = [len(pending) for node, pending in self.node2pending.items() if not node.shutting_down]
        settled = not self.pending and self.steal_requested_from_node is None
        return settled and bool(lengths) and min(lengths) < MIN_PENDING and max(lengths) <= MIN_PENDING
