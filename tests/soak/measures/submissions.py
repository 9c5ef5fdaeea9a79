"""Informs the expected state of the profiles that are submitted for writing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from companion.identity import current_caller
from companion.writes import Profile, Write
from companion.writes.order import Date, Stored
from companion.writes.queue import WriteQueue
from tests.soak.measures.expected_state import ExpectedState


@contextmanager
def recorded_profiles(expected: ExpectedState) -> Iterator[None]:
    """Inform ``expected``, during the block, of each profile, and of what its queue shows from then on.

    At the moment at which the queue takes it: two that are submitted together wait in the order of that.
    """
    write, add = WriteQueue.write, WriteQueue.add

    def record(queue: WriteQueue, what: Write) -> None:
        if isinstance(what, Profile) and (caller := current_caller()) is not None:
            expected.submit(caller.user_id, what.text, what.made_from)
            if (pending := queue.pending_profile) is not None:
                expected.submit(caller.user_id, what.applied_to(pending), pending)

    async def recorded_write(queue: WriteQueue, what: Write, date: Date | None = None) -> Stored | None:
        record(queue, what)
        return await write(queue, what, date)

    def recorded_add(queue: WriteQueue, what: Write, date: Date | None = None) -> None:
        record(queue, what)
        add(queue, what, date)

    with patch.multiple(WriteQueue, write=recorded_write, add=recorded_add):
        yield
