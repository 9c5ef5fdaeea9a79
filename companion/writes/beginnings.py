"""Notes for each conversation what the store had erased and forgotten when it began, and dates its writes with that.

It is read in the background when a conversation begins; nothing waits for it but the first write. If the store
does not answer by then, the last number that this machine knew is taken, and each further try asks again. It is in a
file of ``COMPANION_HOME``, since each conversation may have a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from cache import BackgroundTasks

from ..identity import Caller, current_caller, use_caller
from ..store import Memory, Store, StoreError
from .order import Date
from .profile_write import Profile
from .records import Write

_DEADLINE: Final = 1.0
"""Seconds that a write waits for it."""
AT_ONCE: Final = 1.0
"""Seconds from the beginning. A later answer may count an erasure that the conversation began before."""
_MARGIN: Final = 10.0  # seconds: longer than the store takes to answer
_WriteT = TypeVar("_WriteT", bound=Write)


class Beginnings:
    """The beginnings of the conversations of one runtime.

    Args:
        store: returns the store; called when it is needed.
        home: the folder of the file.
        complete_erasures: completes those that were cut short, before a conversation begins; raises StoreError.
    """

    def __init__(
        self, store: Callable[[], Store], home: Path, complete_erasures: Callable[[], Awaitable[None]]
    ) -> None:
        self._store = store
        self._complete_erasures = complete_erasures
        self._file = home / "erasures"
        self._background = BackgroundTasks()
        self._known = 0

    def note(self, caller: Caller) -> None:
        """Read the number for a conversation that begins now, in the background, unless that was done."""
        beginning, reading = caller.beginning, caller.beginning.reading
        if beginning.erasures is not None:
            return
        # One that failed or was cancelled, or that belongs to a loop which is closed, ends without an answer.
        if reading is None or reading.done() or reading.get_loop() is not asyncio.get_running_loop():
            read = self._read(caller, first=reading is None)
            beginning.reading = self._background.spawn(read, name="erasures-read")

    def learn(self, number: int) -> None:
        """Note the number of an erasure that this process has done, or has read."""
        if number != self._known:
            self._known = number
            self._background.spawn(asyncio.to_thread(self._remember, number), name="erasures-remember")

    def dated(self, user_id: str, write: _WriteT) -> _WriteT:
        """The write, with what is known at the moment of the beginning of its conversation."""
        number = self._number(user_id)
        caller = current_caller()
        if isinstance(write, Memory | Profile) and caller is not None and caller.user_id == user_id:
            return replace(write, since=number, knows=caller.beginning.forgotten)
        return write if write.since == number else replace(write, since=number)

    def date_later(self, user_id: str, write: Write) -> Date | None:
        """What dates a write of a conversation whose beginning is not known yet; None where it is."""
        caller = current_caller()
        if caller is None or caller.user_id != user_id or caller.beginning.erasures is not None:
            return None

        async def date() -> tuple[Write, bool]:
            with use_caller(caller):
                await self.number(user_id)
                return self.dated(user_id, write), caller.beginning.erasures is not None

        return date

    async def number(self, user_id: str) -> int:
        """The beginning of the current conversation; waits until it is known, at most ``_DEADLINE`` seconds."""
        caller = current_caller()
        if caller is not None and caller.user_id == user_id and caller.beginning.erasures is None:
            self.note(caller)
            if caller.beginning.reading is not None:
                await asyncio.wait({caller.beginning.reading}, timeout=_DEADLINE)
        return self._number(user_id)

    async def close(self) -> None:
        """Stop what is under way."""
        await self._background.cancel(timeout=_DEADLINE)

    def _number(self, user_id: str) -> int:
        caller = current_caller()
        if caller is None or caller.user_id != user_id:
            return self._known
        self.note(caller)
        return caller.beginning.known if caller.beginning.erasures is None else caller.beginning.erasures

    async def _read(self, caller: Caller, *, first: bool) -> None:
        beginning = caller.beginning
        if first:  # what this machine learns afterwards may be of later
            recalled = await asyncio.to_thread(self._recalled)
            beginning.known = self._known = max(self._known, recalled)
        known = self._known
        try:
            await self._complete_erasures()  # or else this conversation would count as one of before
            forgotten, number = await asyncio.gather(
                self._store().forgotten(caller.user_id), self._store().latest_erasure()
            )
            late = time.monotonic() - beginning.at
            if late > AT_ONCE and await self._store().latest_erasure(late + _MARGIN):
                number = beginning.known
            elif number > self._known or self._known == known:  # else it is older than what was learned meanwhile
                self.learn(number)
        except StoreError:
            return  # asked again when there is something to write
        beginning.forgotten = max(beginning.forgotten, forgotten.number)
        beginning.erasures = number

    def _recalled(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int(self._file.read_text(encoding="ascii"))
        return 0

    def _remember(self, number: int) -> None:
        if number == self._recalled():
            return
        new = self._file.with_suffix(".new")
        with contextlib.suppress(OSError):  # a hint: without it, a conversation that begins in an outage knows of none
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new.write_text(str(number), encoding="ascii")
            new.replace(self._file)
