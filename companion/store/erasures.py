"""Erasures: everything that is kept of a person is deleted, and a tombstone stays.

A tombstone is a keyed hash of the user id with the erasure's number. The store numbers the erasures of all persons in
the order in which they were done; no clock is involved. A write says how many erasures its conversation knew of when it
began; the store refuses it if the person was erased after that. The tombstone of an id that was moved names the new
id, where the refused write belongs. So nothing that was on its way (in another process, in
a spool, in a conversation that goes on) brings anything back, and a person who comes again is remembered anew.
"""

from dataclasses import dataclass
from typing import Final, Protocol

AS_OF_NOW: Final = 2**63 - 1
"""The erasures that a writer knows of who writes after all of them."""


@dataclass(frozen=True, slots=True)
class PendingErasure:
    """An erasure that the caches may not know of yet. Only until then the store keeps the user id with it.

    Attributes:
        user_id: whose data was erased.
        number: the number of the erasure.
    """

    user_id: str
    number: int


@dataclass(frozen=True, slots=True)
class Moved:
    """Where a person was moved to.

    Attributes:
        user_id: the id by which they are known now.
        number: the number of the latest erasure of any person: a write that is moved too is as of now.
    """

    user_id: str
    number: int


class Erasures(Protocol):
    """The erasures of a store. Every method raises StoreError."""

    async def erase_user(self, user_id: str, request: str) -> int:
        """Delete everything that is kept of a person, in one transaction, and leave a tombstone.

        Args:
            user_id: the person. Of one who was moved, what is kept under the new id is deleted too, which has an
                erasure of its own.
            request: names the request to erase; one that was the person's last already deletes nothing.

        Returns:
            The number of the erasure.
        """
        ...

    async def latest_erasure(self, within: float | None = None) -> int:
        """Read the number of the latest erasure of any person; 0 when there was none.

        Args:
            within: seconds; of erasures before that, none counts.
        """
        ...

    async def is_erased(self, user_id: str, since: int) -> bool:
        """Read whether a person was erased after the erasure number ``since``."""
        ...

    async def moved(self, user_id: str, since: int = AS_OF_NOW) -> Moved | None:
        """Read where a person was moved to (``Store.move_user``), and so where a refused write of theirs belongs.

        Args:
            user_id: the id in the write.
            since: the erasures that the write knows of.

        Returns:
            None if the person was erased after ``since``, under this id or the new one, or was not moved.
        """
        ...

    async def pending_erasures(self, within: float) -> list[PendingErasure]:
        """Read the erasures that the caches have not acknowledged.

        Args:
            within: seconds; of older ones no cache can hold anything, and they are acknowledged by this call.
        """
        ...

    async def acknowledge_erasure(self, erasure: PendingErasure) -> None:
        """Record that the caches hold nothing of an erased person, and delete the user id from the tombstone."""
        ...
