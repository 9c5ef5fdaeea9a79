"""The feed of external changes: what other clients have written to a Supabase project, without gaps.

The database's function ``companion_changes_after`` defines the cursor: a reader that continues where the snapshot of
its last answer ended sees every transaction, in whatever order they became visible.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from ..store import explain_answer, key_headers
from .cached_data import MAX_LIFETIME

INITIAL_WINDOW: Final = MAX_LIFETIME
"""Seconds of the past that a new feed begins with: no cache holds a value from before that."""


@dataclass(frozen=True, slots=True)
class Change:
    """One external change.

    Attributes:
        user_id: whose data changed, as the database holds it: any text.
        kind: the kind of data, as the database names it: ``profile``, ``turn``, ``memory``, ``summary``, ``state``, or
            one that a newer version added.
        xact: the transaction that made the change.
    """

    user_id: str
    kind: str
    xact: int


class FeedFailed(Exception):
    """The database did not answer, or not with changes. The text is safe to log."""


class ChangeFeed:
    """Reads the external changes page by page, and remembers how far.

    Args:
        url: the project's address.
        key: its secret (service role) key.
        timeout: seconds for each request.
        page: the most changes in one answer.
    """

    def __init__(self, url: str, key: str, *, timeout: float = 10.0, page: int = 1000) -> None:
        self._address = f"{url.rstrip('/')}/rest/v1/rpc/companion_changes_after"
        self._headers = key_headers(key)
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._page = page
        self._cursor = 0
        self._seen: set[Change] = set()

    async def read(self, http: aiohttp.ClientSession, apply: Callable[[list[Change]], Awaitable[None]]) -> None:
        """Pass every new change to ``apply``, page by page.

        The cursor moves only when all of it has been applied: after an error the next call passes it again.

        Args:
            http: the session for the requests.
            apply: receives a page of changes.

        Raises:
            FeedFailed: the database answered, but not with changes.
            aiohttp.ClientError: the request failed. What ``apply`` raises is raised as well.
        """
        arguments: dict[str, Any] = {"p_xact": self._cursor, "p_limit": self._page}
        if not self._cursor:
            arguments["p_seconds"] = INITIAL_WINDOW
        ends_at: int | None = None
        seen: set[Change] = set()
        while True:
            reached, changes = await self._request(http, arguments)
            # The first page's snapshot counts: what becomes visible while further pages are read is for the next call.
            ends_at = reached if ends_at is None else ends_at
            if new := [change for change in changes if change not in self._seen]:
                await apply(new)
            # While a transaction that began before these is open, they are in the next answer too.
            seen.update(change for change in changes if change.xact >= ends_at)
            if len(changes) < self._page:
                break
            last = changes[-1]
            arguments |= {"p_xact": last.xact, "p_user_id": last.user_id, "p_what": last.kind}
        self._cursor, self._seen = ends_at, seen

    async def _request(self, http: aiohttp.ClientSession, arguments: dict[str, Any]) -> tuple[int, list[Change]]:
        async with http.post(self._address, json=arguments, headers=self._headers, timeout=self._timeout) as response:
            if response.status != 200:
                raise FeedFailed(explain_answer(response.status, await response.read()))
            try:
                answer = await response.json()
                changes = [Change(str(row["user_id"]), str(row["what"]), int(row["xact"])) for row in answer["changes"]]
                return int(answer["xact"]), changes
            except (ValueError, TypeError, LookupError, aiohttp.ContentTypeError):
                raise FeedFailed("unexpected answer") from None
