"""The store in an SQLite file, for a machine without a Supabase project.

The outbox is written by triggers (``schema``), so that a row changed by hand is counted as well.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ...text import storable
from ..base import StoreError
from ..erasures import AS_OF_NOW, Moved, PendingErasure
from ..forgetting import Forgotten, Removed, Thing, known_to_be_forgotten
from ..outbox import DataKind, OutboxRow
from ..profile_history import ProfileAuthor, ProfileVersion, StoredProfile
from ..records import MAX_TURN_TEXT, Context, Memory, Opening, PersonData, Summary, Turn
from ..state_json import state_from_json, state_to_json
from . import erasure as erasures
from . import facts, forgetting, moving, openings, profiles, tombstones
from .export import export
from .thread import SqliteThread
from .times import NOW, from_microseconds, to_microseconds
from .turns import expire_turns, last_turns

_T = TypeVar("_T")


class SqliteStore:
    """A Store in the SQLite file at ``path``, created with its directory (mode 0700) on first use."""

    def __init__(self, path: Path) -> None:
        # Two, so that a read does not wait behind a write that waits for another process's lock.
        self._reading, self._writing = SqliteThread(path), SqliteThread(path)

    async def context(self, user_id: str, turns: int = 12) -> Context:
        return await self._reading.read(
            "context",
            lambda db: Context(
                profile=profiles.text_of(db, user_id),
                turns=last_turns(db, user_id, turns, MAX_TURN_TEXT),
                summary=_summary(db, user_id),
                state=_state(db, user_id),
                version=openings.version_of(db, user_id),
                opening=openings.read(db, user_id),
            ),
        )

    async def get_profile(self, user_id: str) -> str | None:
        return await self._reading.read("get_profile", lambda db: profiles.text_of(db, user_id))

    async def save_profile(
        self, user_id: str, text: str, *, author: ProfileAuthor = "code", write_id: str | None = None, since: int = 0
    ) -> None:
        new = profiles.Write(user_id, storable(text), to_microseconds(datetime.now(UTC)), author, write_id)
        await self._write("save_profile", user_id, since, new.replace)

    async def profile_for_write(self, user_id: str, write_id: str) -> StoredProfile:
        return await self._reading.read(
            "profile_for_write",
            lambda db: StoredProfile(profiles.text_of(db, user_id), profiles.has_write(db, user_id, write_id)),
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
        new = profiles.Write(user_id, storable(text), to_microseconds(at), author, write_id)
        old = None if instead_of is None else storable(instead_of)
        return await self._write("swap_profile", user_id, since, lambda db: new.swap(db, old))

    async def profile_versions(self, user_id: str, limit: int = 100) -> list[ProfileVersion]:
        return await self._reading.read("profile_versions", lambda db: profiles.versions(db, user_id, limit))

    async def restore_profile(self, user_id: str, number: int) -> bool:
        now = to_microseconds(datetime.now(UTC))
        restore = partial(profiles.restore, user_id=user_id, number=number, now=now)
        return await self._write("restore_profile", user_id, AS_OF_NOW, restore)

    async def add_turn(self, user_id: str, turn: Turn) -> None:
        at = to_microseconds(turn.at)
        statement = (
            "INSERT INTO turns (user_id, id, conversation_id, role, text, at, skipped) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (user_id, id) DO UPDATE SET skipped = 1 WHERE excluded.skipped AND NOT skipped"
        )
        row = (user_id, turn.id, turn.conversation_id, turn.role, storable(turn.text), at, int(turn.skipped))
        await self._write("add_turn", user_id, turn.since, lambda db: db.execute(statement, row).rowcount)

    async def recent_turns(self, user_id: str, limit: int = 20) -> list[Turn]:
        return await self._reading.read("recent_turns", lambda db: last_turns(db, user_id, limit))

    async def expire_turns(self, days: int, limit: int) -> int:
        return await self._writing.change("expire_turns", lambda db: expire_turns(db, days, max(limit, 0)))

    async def add_memory(self, user_id: str, memory: Memory) -> None:
        row = user_id, memory.id, storable(memory.text), to_microseconds(memory.at)
        await self._write("add_memory", user_id, memory.since, lambda db: facts.add(db, *row))

    async def search_memories(self, user_id: str, query: str, limit: int = 5) -> list[Memory]:
        found = await self._reading.read("search_memories", lambda db: facts.search(db, user_id, query, limit))
        return [Memory(text, from_microseconds(at), id) for text, at, id in found]

    async def count_memories(self, user_id: str, query: str = "") -> int:
        return await self._reading.read("count_memories", lambda db: facts.count(db, user_id, query))

    async def remove_memory(self, user_id: str, text: str) -> int:
        return await self._writing.write("remove_memory", facts.REMOVE, (user_id, storable(text)))

    async def forget(self, user_id: str, things: Sequence[Thing]) -> Removed:
        return await self._write("forget", user_id, AS_OF_NOW, lambda db: forgetting.forget(db, user_id, things))

    async def forgotten(self, user_id: str) -> Forgotten:
        return await self._reading.read("forgotten", lambda db: tombstones.forgotten(db, user_id))

    async def save_summary(self, user_id: str, summary: Summary) -> None:
        statement = (
            "INSERT INTO summaries (user_id, conversation_id, text, at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (user_id, conversation_id) DO UPDATE SET text = excluded.text, at = excluded.at"
        )
        row = (user_id, summary.conversation_id, storable(summary.text), to_microseconds(summary.at))
        await self._write("save_summary", user_id, summary.since, lambda db: db.execute(statement, row).rowcount)

    async def latest_summary(self, user_id: str) -> Summary | None:
        return await self._reading.read("latest_summary", lambda db: _summary(db, user_id))

    async def save_state(self, user_id: str, state: dict[str, Any], *, since: int = 0) -> None:
        statement = (
            "INSERT INTO states (user_id, state, updated_at) VALUES (?, ?, ?)"
            " ON CONFLICT (user_id) DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at"
        )
        row = (user_id, state_to_json(state), to_microseconds(datetime.now(UTC)))
        await self._write("save_state", user_id, since, lambda db: db.execute(statement, row).rowcount)

    async def get_state(self, user_id: str) -> dict[str, Any] | None:
        return await self._reading.read("get_state", lambda db: _state(db, user_id))

    async def save_opening(self, user_id: str, opening: Opening) -> None:
        await self._write("save_opening", user_id, opening.since, lambda db: openings.save(db, user_id, opening))

    async def claim_openings(self, prompt: str, *, older_than: float, limit: int) -> list[str]:
        return await self._writing.change(
            "claim_openings", lambda db: openings.claim(db, prompt, older_than, max(limit, 0))
        )

    async def pending_changes(self, limit: int = 100, older_than: float = 0) -> list[OutboxRow]:
        # The age of a row that is dated in the future is unknown: the clock was set back, and it may be old.
        return await self._outbox_rows(
            "pending_changes",
            f"version > delivered AND (? <= 0 OR written_at <= {NOW} - ? OR written_at > {NOW})"
            " ORDER BY written_at LIMIT ?",
            older_than,
            int(older_than * 1e6),
            max(limit, 0),
        )

    async def pending_changes_of(self, user_id: str, kinds: Iterable[DataKind]) -> list[OutboxRow]:
        wanted = list(kinds)
        condition = f"user_id = ? AND version > delivered AND what IN ({', '.join('?' * len(wanted))})"
        return await self._outbox_rows("pending_changes_of", condition, user_id, *wanted)

    async def recent_changes(self, within: float, limit: int) -> list[OutboxRow]:
        condition = f"written_at >= {NOW} - ? ORDER BY written_at DESC LIMIT ?"
        return await self._outbox_rows("recent_changes", condition, int(within * 1e6), max(limit, 0))

    async def register_cache(self, cache_id: str, *, take_over: bool) -> bool:
        return True  # this machine alone has the file, and its processes share one configuration

    async def acknowledge(self, rows: Sequence[OutboxRow], cache_id: str | None = None) -> None:
        if rows:
            await self._writing.write(
                "acknowledge",
                "UPDATE outbox SET delivered = ? WHERE user_id = ? AND what = ? AND ? > delivered AND ? <= version",
                *((row.version, row.user_id, row.kind, row.version, row.version) for row in rows),
            )

    async def erase_user(self, user_id: str, request: str) -> int:
        number = await self._writing.change("erase_user", lambda db: erasures.erase(db, user_id, request))
        await self._writing.maintain("erase_user", erasures.scrub)  # also again: the first time may have been cut short
        return number

    async def export_user(self, user_id: str) -> PersonData:
        return await self._reading.read("export_user", lambda db: export(db, user_id))

    async def move_user(self, earlier: Sequence[str], user_id: str) -> list[PendingErasure]:
        moved = await self._writing.change("move_user", lambda db: moving.move(db, earlier, user_id))
        if moved:
            with suppress(StoreError):  # they are moved; what another process is reading is rewritten by the next one
                await self._writing.maintain("move_user", erasures.scrub)
        return moved

    async def moved(self, user_id: str, since: int = AS_OF_NOW) -> Moved | None:
        return await self._reading.read("moved", lambda db: erasures.moved(db, user_id, since))

    async def latest_erasure(self, within: float | None = None) -> int:
        return await self._reading.read("latest_erasure", lambda db: erasures.latest(db, within))

    async def is_erased(self, user_id: str, since: int) -> bool:
        return await self._reading.read("is_erased", lambda db: erasures.is_erased(db, user_id, since))

    async def pending_erasures(self, within: float) -> list[PendingErasure]:
        return await self._writing.change("pending_erasures", lambda db: erasures.pending(db, within))

    async def acknowledge_erasure(self, erasure: PendingErasure) -> None:
        await self._writing.change("acknowledge_erasure", lambda db: erasures.acknowledge(db, erasure))

    async def close(self) -> None:
        await self._writing.close()
        await self._reading.close()

    async def _write(self, operation: str, user_id: str, since: int, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Write in one transaction, unless the person was erased after ``since``, or has had more forgotten."""
        known = known_to_be_forgotten()

        def unless_erased(db: sqlite3.Connection) -> _T:
            with erasures.guarded(db, operation, user_id, since):
                if known is not None:
                    tombstones.refuse_forgotten(db, operation, user_id, known)
                return work(db)

        return await self._writing.change(operation, unless_erased)

    async def _outbox_rows(self, operation: str, condition: str, *parameters: str | float) -> list[OutboxRow]:
        def work(db: sqlite3.Connection) -> list[OutboxRow]:
            rows = db.execute(f"SELECT user_id, what, version FROM outbox WHERE {condition}", parameters)
            return [OutboxRow(*row) for row in rows]

        return await self._reading.read(operation, work)


def _summary(db: sqlite3.Connection, user_id: str) -> Summary | None:
    # Other processes of this machine may be ahead by moments; a minute and more is a clock that was wrong.
    row = db.execute(
        "SELECT conversation_id, text, at FROM summaries WHERE user_id = ?"
        f" ORDER BY at > {NOW} + 60000000, at DESC LIMIT 1",
        (user_id,),
    ).fetchone()
    return None if row is None else Summary(row[0], row[1], from_microseconds(row[2]))


def _state(db: sqlite3.Connection, user_id: str) -> dict[str, Any] | None:
    row = db.execute("SELECT state FROM states WHERE user_id = ?", (user_id,)).fetchone()
    return None if row is None else state_from_json(row[0])
