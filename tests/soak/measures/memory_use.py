"""Memory use of this process, compared between the beginning and the end of a long run."""

from __future__ import annotations

import ctypes
import gc
import sys
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import psutil

WARM_UP: Final = 60.0
"""Minimum seconds before the baseline: caches fill, modules are loaded."""
_TRIM_THRESHOLD: Final = (-1, 128 << 10)  # M_TRIM_THRESHOLD and glibc's default, fixed instead of dynamic
_ARENA_MAX: Final = (-8, 2)  # M_ARENA_MAX
_SHARE: Final = 0.15  # minimum share of the run for warm-up, and the share of each window
MB: Final = 1 << 20


def limit_malloc_caching() -> None:
    """Limit the memory that glibc keeps per thread. Call it before threads are started.

    The proxy and the fault injector run on threads of this process. After they have passed on 100 MB, glibc would keep
    megabytes in each thread's arena, which a worker does not have and ``malloc_trim`` does not release.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:  # glibc only
        mallopt(*_TRIM_THRESHOLD)
        mallopt(*_ARENA_MAX)


class MemoryUse(NamedTuple):
    """Memory in use.

    Attributes:
        resident: resident set size in bytes, the allocators' gaps included.
        blocks: memory blocks allocated by Python. Without gaps, a leak shows earlier in it.
    """

    resident: float
    blocks: float


@dataclass
class Memory:
    """Samples over a run of ``seconds``. The first window begins after warm-up, the second ends with the run.

    Attributes:
        warm_at: seconds after the start at which every fault has been injected once; None until then. The first reply
            of 100 MB enlarges the heap once.
    """

    seconds: float
    warm_at: float | None = None
    samples: list[tuple[float, MemoryUse]] = field(default_factory=list)

    def measure(self, at: float) -> MemoryUse:
        """Sample the memory in use ``at`` this many seconds after the start. Call it while no session runs.

        Free memory that the allocator retains is released first: after a reply of 100 MB some 20 MB.
        """
        gc.collect()
        if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:  # glibc only
            trim(0)
        use = MemoryUse(psutil.Process().memory_info().rss, sys.getallocatedblocks())
        self.samples.append((at, use))
        return use

    @property
    def baseline(self) -> MemoryUse | None:
        """The average of the first window; None if the run was too short."""
        if self.warm_at is None:
            return None
        since = max(WARM_UP, self.seconds * _SHARE, self.warm_at)
        return self._average(since, since + self._window) if since + 2 * self._window <= self.seconds else None

    @property
    def final(self) -> MemoryUse | None:
        """The average of the second window."""
        return self._average(self.seconds - self._window, float("inf"))

    @property
    def growth(self) -> MemoryUse | None:
        """Relative growth from the first window to the second; None if the run was too short."""
        baseline, final = self.baseline, self.final
        if baseline is None or final is None:
            return None
        return MemoryUse(*(end / begin - 1 for begin, end in zip(baseline, final, strict=True)))

    @property
    def _window(self) -> float:
        return max(30.0, self.seconds * _SHARE)

    def _average(self, since: float, until: float) -> MemoryUse | None:
        selected = [use for at, use in self.samples if since <= at <= until]
        return MemoryUse(*(sum(each) / len(selected) for each in zip(*selected, strict=True))) if selected else None
