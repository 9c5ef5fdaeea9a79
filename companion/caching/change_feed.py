"""What others have changed in a Supabase project, told so that nothing is missed.

The database's function `companion_changes_since` says how: a reader that goes on where the snapshot of its last
answer ended sees every transaction, in whatever order they became visible.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

LOOK_BACK: Final = 25 * 3600
"""Seconds of the past a new feed begins with. What it tells of later than that, no cache holds any more: a profile is
kept for an hour, and for a day longer as the last good one while the store fails."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change to `what` (profile, turn, memory, summary or state) of a user, in the transaction `xact`.

    `user_id` is as it stands in the database: anything.
    """

    user_id: str
    kind: str
    xact: int


class FeedFailed(Exception):
    """The database did not answer, or not with changes. Its text is safe to log."""


class ChangeFeed:
    """The changes made elsewhere in the project at `url`, for its secret key.

    `timeout` (seconds) bounds each request, `page` is how many changes one brings at most.
    """

    def __init__(self, url: str, key: str, *, timeout: float = 10.0, page: int = 1000) -> None:
        self._address = f"{url.rstrip('/')}/rest/v1/rpc/companion_changes_since"
        self._headers = {"apikey": key, "Authorization": f"Bearer {key}"}
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._page = page
        self._next = 0
        self._told: set[Change] = set()

    async def read(self, http: aiohttp.ClientSession, apply: Callable[[list[Change]], Awaitable[None]]) -> None:
        """Hands what is new to `apply`, page by page. If that raises, or this does, all of it is told again.

        Raises FeedFailed, or what aiohttp or `apply` raise.
        """
        arguments: dict[str, Any] = {"p_xact": self._next, "p_limit": self._page}
        if not self._next:
            arguments["p_seconds"] = LOOK_BACK
        ends_at: int | None = None
        told: set[Change] = set()
        while True:
            reached, changes = await self._ask(http, arguments)
            # The first page's snapshot counts: what became visible while others were fetched is for the next time.
            ends_at = reached if ends_at is None else ends_at
            if new := [change for change in changes if change not in self._told]:
                await apply(new)
            # While a transaction that began before these is open, they are in the next answer too.
            told.update(change for change in changes if change.xact >= ends_at)
            if len(changes) < self._page:
                break
            last = changes[-1]
            arguments |= {"p_xact": last.xact, "p_user_id": last.user_id, "p_what": last.kind}
        self._next, self._told = ends_at, told

    async def _ask(self, http: aiohttp.ClientSession, arguments: dict[str, Any]) -> tuple[int, list[Change]]:
        async with http.post(self._address, json=arguments, headers=self._headers, timeout=self._timeout) as response:
            if response.status != 200:
                unknown = "; are all migrations applied?" if response.status == 404 else ""
                raise FeedFailed(f"HTTP {response.status}{unknown}")
            try:
                answer = await response.json()
                changes = [Change(str(row["user_id"]), str(row["what"]), int(row["xact"])) for row in answer["changes"]]
                return int(answer["xact"]), changes
            except (ValueError, TypeError, LookupError, aiohttp.ContentTypeError):
                raise FeedFailed("unexpected answer") from None
