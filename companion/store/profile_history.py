"""The history of profiles: every accepted version, by whom it was written, and which write it came from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol, get_args

ProfileAuthor = Literal["tool", "code", "dashboard", "merge", "restore"]
KEPT_DAYS: Final = 30
"""Days for which a version is kept after a later one has replaced it."""


@dataclass(frozen=True, slots=True)
class ProfileVersion:
    """One version of a profile.

    Attributes:
        number: its number; later versions have greater ones.
        text: the whole text; empty for a profile that was deleted.
        at: when its author wrote it, which may be before an earlier version was stored.
        author: ``tool`` for the model's tool, ``code`` for a call of the API, ``dashboard`` for a change by another
            program or by hand, ``merge`` for two authors' texts combined, ``restore`` for an earlier version.

    Raises:
        ValueError: there is no such author.
    """

    number: int
    text: str
    at: datetime
    author: ProfileAuthor

    def __post_init__(self) -> None:
        if self.author not in get_args(ProfileAuthor):
            raise ValueError("no profile has this author")


@dataclass(frozen=True, slots=True)
class StoredProfile:
    """What a writer has to know of the stored profile.

    Attributes:
        text: the text; None when there is no profile.
        has_write: whether the write that was asked for is one of the kept versions already.
    """

    text: str | None
    has_write: bool


class ProfileHistory(Protocol):
    """Profiles and their versions in a store. Every method raises StoreError."""

    async def get_profile(self, user_id: str) -> str | None:
        """Read the user's profile; None when there is none."""
        ...

    async def save_profile(
        self, user_id: str, text: str, *, author: ProfileAuthor = "code", write_id: str | None = None, since: int = 0
    ) -> None:
        """Replace the user's profile, whatever it is.

        Args:
            user_id: whose profile.
            text: the new text.
            author: by whom.
            write_id: names the write; one that was stored already changes nothing.
            since: the erasures that the author knew of (``erasures``).
        """
        ...

    async def profile_for_write(self, user_id: str, write_id: str) -> StoredProfile:
        """Read the user's profile and whether a write was stored already, in one snapshot."""
        ...

    async def swap_profile(
        self,
        user_id: str,
        text: str,
        *,
        instead_of: str | None,
        at: datetime,
        author: ProfileAuthor = "code",
        write_id: str | None = None,
        since: int = 0,
    ) -> bool:
        """Replace the user's profile by compare-and-swap.

        Args:
            user_id: whose profile.
            text: the new text.
            instead_of: the text to replace; None if there must be none.
            at: when the new text was written, which may be long ago.
            author: by whom.
            write_id: names the write; one that was stored already changes nothing.
            since: the erasures that the author knew of (``erasures``).

        Returns:
            Whether it is stored now: the stored profile was ``instead_of``, and ``write_id`` was not stored before.
        """
        ...

    async def profile_versions(self, user_id: str, limit: int = 100) -> list[ProfileVersion]:
        """Read the versions of the user's profile that are kept (see ``KEPT_DAYS``), the newest first.

        Args:
            user_id: whose profile.
            limit: the most versions to return.
        """
        ...

    async def restore_profile(self, user_id: str, number: int) -> bool:
        """Make an earlier version the user's profile again, as a new version.

        Args:
            user_id: whose profile.
            number: the version's.

        Returns:
            Whether there is such a version of this user.
        """
        ...
