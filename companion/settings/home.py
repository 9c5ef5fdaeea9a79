"""``COMPANION_HOME``: where it is, and whether it can be written."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

from cache import CacheConfigError


def home_of(text: str) -> Path:
    """The folder that ``COMPANION_HOME`` means, as an absolute path.

    Raises:
        CacheConfigError: it begins with ``~`` and there is no such home, or is relative to a folder that is gone.
    """
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:  # neither HOME nor an entry of the user database
        raise CacheConfigError(
            f"COMPANION_HOME begins with {text.split('/')[0]}, but this user has no home folder: set HOME, or set "
            "COMPANION_HOME to an absolute path."
        ) from None
    except OSError:
        raise CacheConfigError(
            "The working directory does not exist any more, and COMPANION_HOME is relative to it: start in another "
            "folder, or set COMPANION_HOME to an absolute path."
        ) from None


def check_home(home: Path) -> None:
    """Check that this user can write to the folder; makes it if it is missing.

    Raises:
        CacheConfigError: they cannot.
    """
    probe = home / f".{uuid4().hex}"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        probe.unlink()
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise CacheConfigError(
            f"COMPANION_HOME, {str(home)!r}, cannot be written ({reason}): set it to a folder that this user can "
            "write to."
        ) from None
