"""How much memory this process uses, at the beginning of a long run and at its end."""

from __future__ import annotations

import ctypes
import gc
import sys
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import psutil

WARM_UP: Final = 60.0
"""Seconds, at least, before memory is judged: caches fill, modules are loaded."""
_TRIM_THRESHOLD: Final = (-1, 128 << 10)  # M_TRIM_THRESHOLD, and glibc's own value, which then stays as it is
_ARENA_MAX: Final = (-8, 2)  # M_ARENA_MAX
_SHARE: Final = 0.15  # of the time: of warming up, at least, and of each of the two windows
MB: Final = 1 << 20


def give_back_what_is_free() -> None:
    """Let threads keep no lumps. To be called before there are any.

    The proxy is a thread of this process, and so are the hands that spoil Redis. When they have passed on 100 MB,
    glibc keeps some of it for each thread that had it, megabytes that no worker has. ``malloc_trim`` spares those.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:  # glibc has it, others do not
        mallopt(*_TRIM_THRESHOLD)
        mallopt(*_ARENA_MAX)


class Use(NamedTuple):
    """What is in use.

    Attributes:
        resident: bytes the system has given, with the gaps that allocators keep between what is held.
        blocks: pieces of memory that Python holds. There are no gaps in a number, so that a leak shows earlier in it.
    """

    resident: float
    blocks: float


@dataclass
class Memory:
    """Measured now and then over ``seconds``. The first window begins when all is warm, the second ends at the end.

    Attributes:
        warm: seconds after the beginning at which every fault has happened once; None until then. A reply of 100 MB
            leaves more room behind than before, once.
    """

    seconds: float
    warm: float | None = None
    samples: list[tuple[float, Use]] = field(default_factory=list)

    def measure(self, at: float) -> Use:
        """What is in use ``at`` so many seconds after the beginning. To be called when nothing is going on.

        What is free already, but kept by the allocator for later, is given back first: after a reply of 100 MB that is
        some 20 MB, for a while. What is held stays, and counts.
        """
        gc.collect()
        if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:  # glibc has it, others do not
            trim(0)
        use = Use(psutil.Process().memory_info().rss, sys.getallocatedblocks())
        self.samples.append((at, use))
        return use

    @property
    def begins(self) -> Use | None:
        """The average of the first window; None if it was too short a run to tell."""
        if self.warm is None:
            return None
        since = max(WARM_UP, self.seconds * _SHARE, self.warm)
        return self._average(since, since + self._window) if since + 2 * self._window <= self.seconds else None

    @property
    def ends(self) -> Use | None:
        """The average of the second."""
        return self._average(self.seconds - self._window, float("inf"))

    @property
    def growth(self) -> Use | None:
        """By which share of it each has grown from the first window to the second; None if nobody can tell."""
        begins, ends = self.begins, self.ends
        if begins is None or ends is None:
            return None
        return Use(*(end / begin - 1 for begin, end in zip(begins, ends, strict=True)))

    @property
    def _window(self) -> float:
        return max(30.0, self.seconds * _SHARE)

    def _average(self, since: float, until: float) -> Use | None:
        chosen = [use for at, use in self.samples if since <= at <= until]
        return Use(*(sum(each) / len(chosen) for each in zip(*chosen, strict=True))) if chosen else None
