"""The Store protocol: what a store can do, and how it fails."""

from collections.abc import Sequence
from typing import Any, Protocol

from .erasures import Erasures, PendingErasure
from .forgetting import Forgetting
from .outbox import Outbox
from .profile_history import ProfileHistory
from .records import Context, Memory, Opening, PersonData, Summary, Turn


class StoreError(Exception):
    """A store could not do what it was asked. The text holds nothing a user said, and is safe to log.

    Attributes:
        operation: the method that failed, such as ``save_profile``.
        reason: the kind of failure, such as the name of an exception class or a status code.
    """

    def __init__(self, operation: str, reason: str) -> None:
        super().__init__(operation, reason)
        self.operation = operation
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.operation} failed: {self.reason}"


class PersonErased(StoreError):
    """A write was refused for good: the person was erased, or moved to another id, after its conversation had begun."""

    def __init__(self, operation: str) -> None:
        super().__init__(operation, "the person was erased")


class Store(ProfileHistory, Forgetting, Outbox, Erasures, Protocol):
    """What every store can do.

    Every method raises StoreError, and nothing else, when it fails. A write whose caller is cancelled may still be
    done; since every write may be repeated, that does no harm. A write raises PersonErased, and has no effect, if the
    person was erased after the erasure number ``since`` (0 for a writer who does not know of any).
    """

    async def context(self, user_id: str, turns: int = 12) -> Context:
        """Read profile, last ``turns`` turns (``recent_turns``), latest summary, state and opening, in one request."""
        ...

    async def add_turn(self, user_id: str, turn: Turn) -> None:
        """Store a turn. One whose id this user already has changes nothing, unless it is ``skipped``."""
        ...

    async def recent_turns(self, user_id: str, limit: int = 20) -> list[Turn]:
        """Read the user's last ``limit`` turns, oldest first.

        Conversations are in the order in which the store got their last turns, whatever the workers' clocks said.
        Within one, its own times count, then the order of the writes: turns that waited for the store come in any
        order. The store looks at the 200 turns that it got last, or at ``limit`` of them where that is more.
        """
        ...

    async def expire_turns(self, days: int, limit: int) -> int:
        """Delete turns of all users that are older than ``days`` days, the oldest first.

        Ages are by the store's own clock. A turn that is dated in the future, by a clock that was wrong, counts from
        now on.

        Args:
            days: at least one.
            limit: the most turns to delete.

        Returns:
            How many were deleted; fewer than ``limit`` when none is left, or when another worker is deleting.
        """
        ...

    async def add_memory(self, user_id: str, memory: Memory) -> None:
        """Store a memory. One whose id or whose fact (``fact_key``) this user already has changes nothing."""
        ...

    async def search_memories(self, user_id: str, query: str, limit: int = 5) -> list[Memory]:
        """Find the user's memories that share a word with ``query``, best match first.

        A query without a word to search for (empty, punctuation, "what is it?") finds the newest.
        """
        ...

    async def count_memories(self, user_id: str, query: str = "") -> int:
        """Count what ``search_memories`` finds without a limit: by default, all of the user's memories."""
        ...

    async def remove_memory(self, user_id: str, text: str) -> int:
        """Delete the user's memories of a fact (``fact_key``).

        Returns:
            How many there were.
        """
        ...

    async def save_summary(self, user_id: str, summary: Summary) -> None:
        """Store a summary; it replaces an earlier one of the same conversation."""
        ...

    async def latest_summary(self, user_id: str) -> Summary | None:
        """Read the user's summary with the latest time; None when there is none.

        A time in the future (of a clock that was wrong) is the latest only if there is no other.
        """
        ...

    async def save_state(self, user_id: str, state: dict[str, Any], *, since: int = 0) -> None:
        """Replace the user's state, a JSON object.

        Raises:
            TypeError, ValueError: it is not a JSON object. Raised before the store is asked.
        """
        ...

    async def get_state(self, user_id: str) -> dict[str, Any] | None:
        """Read the user's state; None when there is none."""
        ...

    async def save_opening(self, user_id: str, opening: Opening) -> None:
        """Replace the user's opening; one that has a plan, and is not of the current version, changes nothing."""
        ...

    async def claim_openings(self, prompt: str, *, older_than: float, limit: int) -> list[str]:
        """Take over openings whose texts a killed job has not written: they have none from now on, but empty ones.

        Args:
            prompt: the hash of the prompt of those to take.
            older_than: seconds; younger ones, and those of users who have said something since, are left to their
                jobs.
            limit: the most to take.

        Returns:
            The users, those of the latest openings first.
        """
        ...

    async def export_user(self, user_id: str) -> PersonData:
        """Read all that is kept of a person, in one snapshot."""
        ...

    async def move_user(self, earlier: Sequence[str], user_id: str) -> list[PendingErasure]:
        """Move all that is kept of a person under earlier ids to another id, and erase those, in one transaction.

        The openings are not moved: they are made anew. A write under an earlier id is refused from then on,
        with PersonErased; ``moved`` says where it belongs.

        Args:
            earlier: the ids. Those that they, or ``user_id``, were moved to before are moved as well.
            user_id: the id to move to. Of what it has already, its own stays; lines of the profiles are joined.

        Returns:
            The erasures of those ids that had anything.
        """
        ...

    async def close(self) -> None:
        """Close every connection. May be called twice.

        Every other method of a closed store raises StoreError with the reason "closed".
        """
        ...
