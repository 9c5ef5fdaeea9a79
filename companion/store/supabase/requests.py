"""The requests of the Supabase store, each within its time: calls of functions, reads of a row, and upserts.

Nothing a user said leaves this file in an error or a log line.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

from postgrest.types import ReturnMethod
from supabase import AsyncClient

from ..base import PersonErased, StoreError
from . import rows as answers
from .client import Query, SupabaseClient, dated, reason_of

_T = TypeVar("_T")
_ERASED: Final = "HTTP 410 PT410"  # what the database's guards answer


class Requests:
    """Sends requests to a Supabase project. Each may raise StoreError, and one that writes PersonErased.

    Args:
        url: the project's address.
        key: its secret key.
        timeout: seconds for each request as a whole.
    """

    def __init__(self, url: str, key: str, timeout: float) -> None:
        self._client = SupabaseClient(url, key, timeout)
        self._timeout = timeout

    async def close(self) -> None:
        """Close the connections. A request that is under way fails."""
        await self._client.close()

    async def call(
        self,
        operation: str,
        function: str,
        arguments: dict[str, Any],
        answer: Callable[[object], _T],
        since: int | None = None,
    ) -> _T:
        """Call a function. A write names the erasures it knows of, ``since``."""
        return await self._ask(operation, lambda db: dated(db.rpc(function, arguments), since), answer)

    async def call_list(
        self, operation: str, function: str, arguments: dict[str, Any], row: Callable[[object], _T]
    ) -> list[_T]:
        """Read a list, from a function that returns JSON: PostgREST cuts what a table, or a set of rows, holds."""
        return await self.call(operation, function, arguments, answers.all_of(row))

    async def row_of(
        self, operation: str, table: str, columns: str, user_id: str, row: Callable[[object], _T]
    ) -> _T | None:
        """Read the row of a user in a table with one for each."""
        return await self._ask(
            operation,
            lambda db: db.table(table).select(columns).eq("user_id", user_id).limit(1),
            answers.first_of(row),
        )

    async def put(
        self, operation: str, table: str, row: dict[str, Any], since: int, *, key: str, keep_first: bool = False
    ) -> None:
        """Insert a row, or replace the one with the same ``key``; with ``keep_first``, keep that instead."""

        def query(db: AsyncClient) -> Query:
            minimal = ReturnMethod.minimal
            upsert = db.table(table).upsert(row, returning=minimal, on_conflict=key, ignore_duplicates=keep_first)
            return dated(upsert, since)

        await self._ask(operation, query, answers.nothing)

    async def _ask(self, operation: str, query: Callable[[AsyncClient], Query], answer: Callable[[object], _T]) -> _T:
        if self._client.closed:
            raise StoreError(operation, "closed")
        try:
            async with asyncio.timeout(self._timeout):
                return answers.decoded(await self._client.execute(query), answer)
        except Exception as error:  # three libraries' exceptions become one type
            reason = "closed" if self._client.closed else reason_of(error)
        # Outside the handler, so that it has no __context__: those errors quote rows and filters.
        raise PersonErased(operation) if reason == _ERASED else StoreError(operation, reason)
