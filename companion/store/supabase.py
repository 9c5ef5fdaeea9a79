"""The source of truth in a hosted Supabase project (its tables: `supabase/migrations`).

Every request is one that may be repeated: reads are plain, writes are upserts by natural keys. Nothing a user said
leaves this file in an error or a log line.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, TypeVar, cast

from postgrest.types import ReturnMethod
from supabase import AsyncClient

from .base import Memory, StoreError, Turn, storable
from .supabase_key import is_public_key
from .supabase_link import Query, SupabaseLink, UnexpectedAnswer, reason_of
from .words import search_words

_T = TypeVar("_T")
_Row = dict[str, Any]


class SupabaseStore:
    """A Store in the Supabase project at `url`.

    `key` is the project's secret key (`sb_secret_...`) or its legacy service_role key. `timeout` bounds every
    operation as a whole, in seconds. Bound to the event loop that uses it first.

    Raises ValueError for a key that is meant for browsers: with it, every user would seem unknown.
    """

    def __init__(self, url: str, key: str, *, timeout: float = 5.0) -> None:
        if is_public_key(key):
            raise ValueError("the Supabase key is a public one: the companion needs the secret (service role) key")
        self._link = SupabaseLink(url, key, timeout)
        self._timeout = timeout

    async def get_profile(self, user_id: str) -> str | None:
        return await self._ask(
            "get_profile",
            lambda db: db.table("companion_profiles").select("text").eq("user_id", user_id).limit(1),
            lambda rows: _string(rows[0], "text") if rows else None,
        )

    async def save_profile(self, user_id: str, text: str) -> None:
        row = {"user_id": user_id, "text": storable(text)}
        await self._put("save_profile", "companion_profiles", row, key="user_id")

    async def add_turn(self, user_id: str, turn: Turn) -> None:
        row = {
            "user_id": user_id,
            "id": turn.id,
            "conversation_id": turn.conversation_id,
            "role": turn.role,
            "text": storable(turn.text),
            "at": turn.at.isoformat(),
        }
        await self._put("add_turn", "companion_turns", row, key="user_id,id", keep_first=True)

    async def recent_turns(self, user_id: str, limit: int = 20) -> list[Turn]:
        return await self._ask(
            "recent_turns",
            lambda db: (
                db.table("companion_turns")
                .select("role", "text", "at", "conversation_id", "id")
                .eq("user_id", user_id)
                .order("at", desc=True)
                .order("seq", desc=True)
                .limit(max(limit, 0))
            ),
            lambda rows: [_turn(row) for row in reversed(rows)],
        )

    async def add_memory(self, user_id: str, memory: Memory) -> None:
        row = {
            "user_id": user_id,
            "id": memory.id,
            "text": storable(memory.text),
            "at": memory.at.isoformat(),
        }
        await self._put("add_memory", "companion_memories", row, key="user_id,id", keep_first=True)

    async def search_memories(self, user_id: str, query: str, limit: int = 5) -> list[Memory]:
        # A function, because only the database can put the best first; its arguments travel in the body, and so
        # stay out of the logs on the way.
        arguments = {"p_user_id": user_id, "p_query": " ".join(search_words(query)), "p_limit": max(limit, 0)}
        return await self._ask(
            "search_memories",
            lambda db: db.rpc("companion_search", arguments),
            lambda rows: [_memory(row) for row in rows],
        )

    async def close(self) -> None:
        await self._link.close()

    async def _put(self, operation: str, table: str, row: _Row, *, key: str, keep_first: bool = False) -> None:
        await self._ask(
            operation,
            lambda db: db.table(table).upsert(
                row, returning=ReturnMethod.minimal, on_conflict=key, ignore_duplicates=keep_first
            ),
            _nothing,
        )

    async def _ask(self, operation: str, query: Callable[[AsyncClient], Query], read: Callable[[list[_Row]], _T]) -> _T:
        if self._link.closed:
            raise StoreError(operation, "closed")
        try:
            async with asyncio.timeout(self._timeout):
                return _read(await self._link.execute(query), read)
        except Exception as error:  # whatever three libraries may raise, the caller knows one type
            reason = "closed" if self._link.closed else reason_of(error)
        # Raised out here, it carries no context: those errors quote rows and filters.
        raise StoreError(operation, reason)


def _read(data: object, read: Callable[[list[_Row]], _T]) -> _T:
    # Text that is not JSON (a proxy's page, an answer cut short) arrives here as a str.
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise UnexpectedAnswer
    try:
        return read(cast(list[_Row], data))
    except ValueError:
        raise UnexpectedAnswer from None


def _nothing(rows: list[_Row]) -> None:
    if rows:
        raise UnexpectedAnswer


def _string(row: _Row, column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise UnexpectedAnswer
    return value


def _turn(row: _Row) -> Turn:
    return Turn(
        role=cast(Literal["user", "assistant"], _string(row, "role")),  # Turn refuses anything else
        text=_string(row, "text"),
        at=datetime.fromisoformat(_string(row, "at")),
        conversation_id=_string(row, "conversation_id"),
        id=_string(row, "id"),
    )


def _memory(row: _Row) -> Memory:
    return Memory(_string(row, "text"), datetime.fromisoformat(_string(row, "at")), _string(row, "id"))
