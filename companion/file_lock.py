"""Locks on open files, which end with the process that holds them, also by ``kill -9``.

The system's own, rather than a library's lock files: what is locked here is renamed and deleted while it is locked. On
Windows an open file can be neither (``KEEPS_LOCK`` is false), so that it is released first: then two processes may
store the same writes, which every write allows. A system with neither kind of lock has none.
"""

from __future__ import annotations

import os
import sys
from typing import Final

if sys.platform == "win32":
    import msvcrt

    KEEPS_LOCK = False
else:
    try:
        import fcntl
    except ImportError:  # such as WebAssembly
        KEEPS_LOCK = False
    else:
        KEEPS_LOCK = True
"""Whether a locked file can be renamed and deleted."""
BINARY: Final[int] = getattr(os, "O_BINARY", 0)
"""For ``os.open``: Windows would write ``\\r\\n``."""
_LOCKED_BYTE: Final = 1 << 30  # beyond the content: to others, a locked byte is unreadable


def lock(descriptor: int, *, wait: bool = False) -> None:
    """Lock an open file until it is closed.

    Args:
        descriptor: of the file.
        wait: wait until another process releases it.

    Raises:
        OSError: another process holds the lock.
    """
    if sys.platform == "win32":
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    elif KEEPS_LOCK:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
