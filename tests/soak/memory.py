"""How much memory this process uses, at the beginning of a long run and at its end."""

from __future__ import annotations

import ctypes
import gc
from dataclasses import dataclass, field
from typing import Final

import psutil

WARM_UP: Final = 60.0
"""Seconds, at least, before memory is judged: caches fill, modules are loaded."""
_SHARE: Final = 0.15  # of the time: of warming up, at least, and of each of the two windows
MB: Final = 1 << 20


@dataclass
class Memory:
    """Measured now and then over ``seconds``. The first window begins when all is warm, the second ends at the end.

    Attributes:
        warm: seconds after the beginning at which every fault has happened once; None until then. A reply of 100 MB
            leaves more room behind than before, once.
    """

    seconds: float
    warm: float | None = None
    samples: list[tuple[float, int]] = field(default_factory=list)

    def measure(self, at: float) -> int:
        """Bytes in use ``at`` so many seconds after the beginning. To be called when nothing is going on.

        What is free already, but kept by the allocator for later, is given back first: after a reply of 100 MB that is
        some 20 MB, for a while. What is held stays, and counts.
        """
        gc.collect()
        if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:  # glibc has it, others do not
            trim(0)
        self.samples.append((at, int(psutil.Process().memory_info().rss)))
        return self.samples[-1][1]

    @property
    def begins(self) -> float | None:
        """The average of the first window, in bytes; None if it was too short a run to tell."""
        if self.warm is None:
            return None
        since = max(WARM_UP, self.seconds * _SHARE, self.warm)
        return self._average(since, since + self._window) if since + 2 * self._window <= self.seconds else None

    @property
    def ends(self) -> float | None:
        """The average of the second."""
        return self._average(self.seconds - self._window, float("inf"))

    @property
    def _window(self) -> float:
        return max(30.0, self.seconds * _SHARE)

    def _average(self, since: float, until: float) -> float | None:
        chosen = [size for at, size in self.samples if since <= at <= until]
        return sum(chosen) / len(chosen) if chosen else None
