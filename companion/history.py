"""What the commands ``companion history`` and ``companion restore`` do: show and restore versions of a profile."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from .profile_lines import lines_of
from .runtime import runtime_of_command
from .store import DataKind, ProfileVersion
from .text import storable

_SHOWN: Final = 1000


async def history(user_id: str) -> str:
    """The versions of a user's profile, the newest first: number, time, author, and the lines that it changed.

    Raises:
        StoreError: the store failed.
        SettingsError: a setting is missing or unusable.
    """
    async with runtime_of_command() as runtime:
        versions = await runtime.store.profile_versions(user_id, _SHOWN + 1)
        return _table(versions) or f"No version of {user_id} is kept."


async def restore(user_id: str, number: int) -> bool:
    """Make a version the user's profile again, and invalidate its cached copies.

    Where this process cannot reach the cache, a running worker invalidates within a minute.

    Returns:
        Whether there is such a version of this user.

    Raises:
        StoreError: the store failed.
        SettingsError: a setting is missing or unusable.
    """
    restored = False

    async def work() -> DataKind:
        nonlocal restored
        restored = await runtime.store.restore_profile(user_id, number)
        return "profile"

    async with runtime_of_command() as runtime:
        await runtime.outbox_relay.write(work(), user_id)
    return restored


def _table(versions: Sequence[ProfileVersion]) -> str:
    """One row a version, below it the lines that were added and removed; at most ``_SHOWN`` versions."""
    shown_whole = 0 < len(versions) <= _SHOWN
    empty = [ProfileVersion(0, "", versions[-1].at, "code")] if shown_whole else []
    rows = []
    for version, earlier in pairwise([*versions, *empty]):
        now, before = lines_of(version.text), lines_of(earlier.text)
        rows.append(f"{version.number}  {version.at.astimezone():%Y-%m-%d %H:%M:%S}  {version.author}")
        rows += [f"    - {_printable(line)}" for line in before if line not in now]
        rows += [f"    + {_printable(line)}" for line in now if line not in before]
    if len(versions) > _SHOWN:
        rows.append(f"There are older versions than these {_SHOWN}.")
    return "\n".join(rows)


def _printable(line: str) -> str:
    """The line without the control characters that would change the terminal it is printed on."""
    return "".join(char if char.isprintable() else "\ufffd" for char in storable(line))
