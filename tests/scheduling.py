"""Distributes the tests among pytest-xdist's workers: what takes longest first, timed and serial ones last.

``worksteal`` gives each worker a part of the tests, and lets it take from the end of what another one has still to do.
Here each slow kind of test begins a part of its own: in one part, they would run one after the other to the end.

A worker that has come to a timed or serial test waits until no other runs an ordinary one. With them among what
``worksteal`` hands out, one worker after the other would wait while the last has everything else still to do. So would
they at a serial test, while timed ones are left.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler.worksteal import MIN_PENDING, WorkStealingScheduling

PLAN: Final = "plan.json"
"""The file, beside the workers' own directories, in which they note the names of the tests that are not like others."""


def note_plan(config: pytest.Config, slow: Iterable[Sequence[str]], held: Iterable[Sequence[str]]) -> None:
    """In a worker: note the names of some tests, for the process that distributes them and does not collect any.

    Args:
        config: the worker's.
        slow: the tests of each slow kind.
        held: the tests to hold back: of each kind, until those of the kinds before are handed out.
    """
    own = Path(config.option.basetemp).with_suffix(".plan")
    own.write_text(json.dumps({"slow": [*slow], "held": [*held]}))
    own.replace(own.with_name(PLAN))


class SlowFirstHeldLast(WorkStealingScheduling):
    """``worksteal``, with each slow kind at the beginning of a part, and timed and serial tests held back."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        self._held: list[list[int]] | None = None

    def check_schedule(self) -> None:
        if self._held is None and self.collection is not None:  # at first all tests are pending
            plan = json.loads((self.config._tmp_path_factory.getbasetemp() / PLAN).read_text())
            slow, held = ([self._indices(names) for names in plan[part]] for part in ("slow", "held"))
            self._held = [kind for kind in held if kind]
            special = set(chain(*slow, *held))
            self.pending = _dealt(slow, [index for index in self.pending if index not in special], len(self.nodes))
        if self._held and self._others_are_handed_out():
            self.pending += self._held.pop(0)
        super().check_schedule()

    def _indices(self, names: Iterable[str]) -> list[int]:
        wanted = set(names)
        return [index for index, name in enumerate(self.collection or ()) if name in wanted]

    def _others_are_handed_out(self) -> bool:
        """Whether a worker has too little to do, and no other has more than it needs itself."""
        if self.steal_requested_from_node is not None:
            return False
        lengths = [len(pending) for node, pending in self.node2pending.items() if not node.shutting_down]
        idle = sum(length < MIN_PENDING for length in lengths)
        # Now, or ``worksteal`` shuts those workers down.
        return len(self.pending) < MIN_PENDING * idle and max(lengths) <= MIN_PENDING


def _dealt(slow: Sequence[Sequence[int]], others: Sequence[int], parts: int) -> list[int]:
    """The tests in such an order that, cut into so many equal parts, each slow kind begins one of them."""
    dealt, left, rest = list[int](), sum(map(len, slow)) + len(others), list(others)
    for number in range(parts):
        size = left // (parts - number)  # as ``worksteal`` cuts it
        part = [*chain(*slow[number : number + 1 if number < parts - 1 else None])]
        part, rest = part + rest[: max(0, size - len(part))], rest[max(0, size - len(part)) :]
        dealt += part
        left -= size
    return dealt + rest
