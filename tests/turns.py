"""Whose turn it is among the tests of pytest-xdist's workers: a serial one runs alone, timed ones four at a time.

The bytes of one file are locked, by POSIX locks: no forked process inherits them, and they end with their process.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Literal

import pytest

Kind = Literal["ordinary", "timed", "serial"]
KINDS: Final[tuple[Kind, ...]] = ("ordinary", "timed", "serial")
"""In the order in which they run."""
_ORDINARY: Final = 0  # the byte that every ordinary test shares
_PLACES: Final = (1, 2, 3, 4)  # a byte for each of the timed tests that run at once: together they take a core
_POLL: Final = 0.01


def kind_of(item: pytest.Item) -> Kind:
    """Beside which others a test may run."""
    return next((kind for kind in reversed(KINDS) if item.get_closest_marker(kind)), "ordinary")


@contextmanager
def turn(kind: Kind, path: Path) -> Generator[None]:
    """Wait until a test of this kind may run, and keep those that may not run beside it waiting.

    Ordinary tests wait only for timed ones that have begun, so the others run when the ordinary ones are done.

    Args:
        kind: the test's.
        path: the file; the same for all workers of a run, and for no other run.
    """
    with path.open("w+b") as lock:
        if kind == "serial":
            fcntl.lockf(lock, fcntl.LOCK_EX)
        elif kind == "ordinary":
            fcntl.lockf(lock, fcntl.LOCK_SH, 1, _ORDINARY)
            # No timed test begins any more. Wait for those that run.
            fcntl.lockf(lock, fcntl.LOCK_EX, len(_PLACES), _PLACES[0])
            fcntl.lockf(lock, fcntl.LOCK_UN, len(_PLACES), _PLACES[0])
        else:
            while not any(_joins(lock, place) for place in _PLACES):
                time.sleep(_POLL)
        yield


def _joins(lock: IO[bytes], place: int) -> bool:
    """Take a place among the timed tests, unless it is taken or an ordinary test runs."""
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except OSError:
        return False
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _ORDINARY)
    except OSError:
        fcntl.lockf(lock, fcntl.LOCK_UN, 1, place)
        return False
    fcntl.lockf(lock, fcntl.LOCK_UN, 1, _ORDINARY)
    return True
