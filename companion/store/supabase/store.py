"""The store in a Supabase project (its tables: ``supabase/migrations``).

Every request may be repeated: reads are plain, writes are upserts by natural keys.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from ...text import storable
from ..erasures import AS_OF_NOW, Moved, PendingErasure
from ..forgetting import Forgotten, Removed, Thing
from ..outbox import DataKind, OutboxRow
from ..profile_history import ProfileAuthor, ProfileVersion, StoredProfile
from ..records import MAX_TURN_TEXT, Context, Memory, Opening, PersonData, Summary, Turn
from ..search_terms import search_words
from ..state_json import state_to_json
from . import payloads
from . import rows as answers
from .api_key import public_kind
from .requests import Requests


class SupabaseStore:
    """A Store in a Supabase project, for the event loop that uses it first.

    Args:
        url: the project's address.
        key: its secret key (``sb_secret_...``) or its legacy service_role key.
        timeout: seconds for each operation as a whole.

    Raises:
        ValueError: the key is meant for browsers; row level security would hide every user from it.
    """

    def __init__(self, url: str, key: str, *, timeout: float = 5.0) -> None:
        if kind := public_kind(key):
            raise ValueError(f"this is the project's {kind} key, which is public: the companion needs the secret key")
        self._db = Requests(url, key, timeout)

    async def context(self, user_id: str, turns: int = 12) -> Context:
        arguments = {"p_user_id": user_id, "p_turns": max(turns, 0), "p_chars": MAX_TURN_TEXT}
        return await self._db.call("context", "companion_open", arguments, answers.context)

    async def get_profile(self, user_id: str) -> str | None:
        return await self._db.row_of("get_profile", "companion_profiles", "text", user_id, answers.profile)

    async def save_profile(
        self, user_id: str, text: str, *, author: ProfileAuthor = "code", write_id: str | None = None, since: int = 0
    ) -> None:
        now = datetime.now(UTC)
        await self._write_profile("save_profile", user_id, text, now, author, write_id, None, since, any_text=True)

    async def profile_for_write(self, user_id: str, write_id: str) -> StoredProfile:
        arguments = {"p_user_id": user_id, "p_write_id": write_id}
        return await self._db.call(
            "profile_for_write", "companion_profile_for_write", arguments, answers.profile_for_write
        )

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
        return await self._write_profile(
            "swap_profile", user_id, text, at, author, write_id, instead_of, since, any_text=False
        )

    async def profile_versions(self, user_id: str, limit: int = 100) -> list[ProfileVersion]:
        arguments = {"p_user_id": user_id, "p_limit": max(limit, 0)}
        return await self._db.call_list(
            "profile_versions", "companion_profile_versions_json", arguments, answers.profile_version
        )

    async def restore_profile(self, user_id: str, number: int) -> bool:
        arguments = {"p_user_id": user_id, "p_version": number}
        # A version that is there was written after any erasure.
        return await self._db.call(
            "restore_profile", "companion_restore_profile", arguments, answers.yes_or_no, AS_OF_NOW
        )

    async def add_turn(self, user_id: str, turn: Turn) -> None:
        row, first = payloads.turn(user_id, turn), not turn.skipped
        await self._db.put("add_turn", "companion_turns", row, turn.since, key="user_id,id", keep_first=first)

    async def recent_turns(self, user_id: str, limit: int = 20) -> list[Turn]:
        arguments = {"p_user_id": user_id, "p_turns": max(limit, 0)}
        return await self._db.call_list("recent_turns", "companion_last_turns_json", arguments, answers.turn)

    async def expire_turns(self, days: int, limit: int) -> int:
        arguments = {"p_days": days, "p_limit": max(limit, 0)}
        # It is about persons who may have been erased or moved before, and adds nothing.
        return await self._db.call("expire_turns", "companion_expire_turns", arguments, answers.count, AS_OF_NOW)

    async def add_memory(self, user_id: str, memory: Memory) -> None:
        row = payloads.memory(user_id, memory)
        await self._db.put("add_memory", "companion_memories", row, memory.since, key="user_id,id", keep_first=True)

    async def search_memories(self, user_id: str, query: str, limit: int = 5) -> list[Memory]:
        # A function, because only the database can rank the matches; and its arguments are in the body, which the
        # servers on the way do not log.
        arguments = {"p_user_id": user_id, "p_query": " ".join(search_words(query)), "p_limit": max(limit, 0)}
        return await self._db.call_list("search_memories", "companion_search_json", arguments, answers.memory)

    async def count_memories(self, user_id: str, query: str = "") -> int:
        arguments = {"p_user_id": user_id, "p_query": " ".join(search_words(query))}
        return await self._db.call("count_memories", "companion_count", arguments, answers.count)

    async def remove_memory(self, user_id: str, text: str) -> int:
        arguments = {"p_user_id": user_id, "p_text": storable(text)}
        return await self._db.call("remove_memory", "companion_forget", arguments, answers.count)

    async def forget(self, user_id: str, things: Sequence[Thing]) -> Removed:
        arguments = {"p_user_id": user_id, "p_things": payloads.things(things)}
        # It adds nothing, so no erasure is in its way.
        return await self._db.call("forget", "companion_forget_things", arguments, answers.removed, AS_OF_NOW)

    async def forgotten(self, user_id: str) -> Forgotten:
        arguments = {"p_user_id": user_id}
        stones = await self._db.call_list("forgotten", "companion_forgotten_json", arguments, answers.tombstone)
        return Forgotten(stones)

    async def save_summary(self, user_id: str, summary: Summary) -> None:
        row = payloads.summary(user_id, summary)
        await self._db.put("save_summary", "companion_summaries", row, summary.since, key="user_id,conversation_id")

    async def latest_summary(self, user_id: str) -> Summary | None:
        arguments = {"p_user_id": user_id}
        return await self._db.call(
            "latest_summary", "companion_latest_summary", arguments, answers.first_of(answers.summary)
        )

    async def save_state(self, user_id: str, state: dict[str, Any], *, since: int = 0) -> None:
        row = {"user_id": user_id, "state": json.loads(state_to_json(state))}
        await self._db.put("save_state", "companion_states", row, since, key="user_id")

    async def get_state(self, user_id: str) -> dict[str, Any] | None:
        return await self._db.row_of("get_state", "companion_states", "state", user_id, answers.state)

    async def save_opening(self, user_id: str, opening: Opening) -> None:
        row = payloads.opening(user_id, opening)
        await self._db.call("save_opening", "companion_save_opening", row, answers.yes_or_no, opening.since)

    async def claim_openings(self, prompt: str, *, older_than: float, limit: int) -> list[str]:
        chosen = {"p_prompt": prompt, "p_older_than": older_than, "p_limit": max(limit, 0)}
        # As expire_turns.
        return await self._db.call("claim_openings", "companion_claim_openings", chosen, answers.user_ids, AS_OF_NOW)

    async def pending_changes(self, limit: int = 100, older_than: float = 0) -> list[OutboxRow]:
        arguments = {"p_limit": max(limit, 0), "p_older_than": older_than}
        return await self._db.call_list("pending_changes", "companion_pending_json", arguments, answers.outbox_row)

    async def pending_changes_of(self, user_id: str, kinds: Iterable[DataKind]) -> list[OutboxRow]:
        arguments = {"p_user_id": user_id, "p_whats": list(kinds)}
        return await self._db.call_list("pending_changes_of", "companion_owed_by", arguments, answers.outbox_row)

    async def recent_changes(self, within: float, limit: int) -> list[OutboxRow]:
        arguments = {"p_within": within, "p_limit": max(limit, 0)}
        return await self._db.call_list("recent_changes", "companion_written_json", arguments, answers.outbox_row)

    async def register_cache(self, cache_id: str, *, take_over: bool) -> bool:
        arguments = {"p_cache": cache_id, "p_take_over": take_over}
        return await self._db.call("register_cache", "companion_register_cache", arguments, answers.yes_or_no)

    async def acknowledge(self, rows: Sequence[OutboxRow], cache_id: str | None = None) -> None:
        if rows:
            pending = [{"user_id": row.user_id, "what": row.kind, "version": row.version} for row in rows]
            if cache_id is None:
                await self._db.call("acknowledge", "companion_settle", {"p_owed": pending}, answers.count)
            else:
                arguments = {"p_owed": pending, "p_cache": cache_id}
                await self._db.call("acknowledge", "companion_settle_in", arguments, answers.count)

    async def erase_user(self, user_id: str, request: str) -> int:
        arguments = {"p_user_id": user_id, "p_request": request}
        return await self._db.call("erase_user", "companion_erase", arguments, answers.count)

    async def export_user(self, user_id: str) -> PersonData:
        return await self._db.call("export_user", "companion_export_all", {"p_user_id": user_id}, answers.person_data)

    async def move_user(self, earlier: Sequence[str], user_id: str) -> list[PendingErasure]:
        arguments = {"p_earlier": list(earlier), "p_user_id": user_id}
        return await self._db.call("move_user", "companion_move", arguments, answers.all_of(answers.pending_erasure))

    async def moved(self, user_id: str, since: int = AS_OF_NOW) -> Moved | None:
        arguments = {"p_user_id": user_id, "p_since": since}
        return await self._db.call("moved", "companion_moved", arguments, answers.first_of(answers.moved))

    async def latest_erasure(self, within: float | None = None) -> int:
        return await self._db.call("latest_erasure", "companion_latest_erasure", {"p_within": within}, answers.count)

    async def is_erased(self, user_id: str, since: int) -> bool:
        arguments = {"p_user_id": user_id, "p_since": since}
        return await self._db.call("is_erased", "companion_is_erased", arguments, answers.yes_or_no)

    async def pending_erasures(self, within: float) -> list[PendingErasure]:
        name = "companion_pending_erasures_json"
        return await self._db.call_list("pending_erasures", name, {"p_within": within}, answers.pending_erasure)

    async def acknowledge_erasure(self, erasure: PendingErasure) -> None:
        arguments = {"p_user_id": erasure.user_id, "p_number": erasure.number}
        await self._db.call("acknowledge_erasure", "companion_erasure_delivered", arguments, answers.yes_or_no)

    async def close(self) -> None:
        await self._db.close()

    async def _write_profile(
        self,
        operation: str,
        user_id: str,
        text: str,
        at: datetime,
        author: ProfileAuthor,
        write_id: str | None,
        instead_of: str | None,
        since: int,
        *,
        any_text: bool,
    ) -> bool:
        arguments = {
            "p_user_id": user_id,
            "p_text": storable(text),
            "p_at": at.isoformat(),
            "p_author": author,
            "p_write_id": write_id,
            "p_instead_of": None if instead_of is None else storable(instead_of),
            "p_any": any_text,
        }
        return await self._db.call(operation, "companion_write_profile", arguments, answers.yes_or_no, since)
