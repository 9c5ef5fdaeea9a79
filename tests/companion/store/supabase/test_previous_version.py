"""A worker of the version before runs on for a while beside this one, on one database: its requests, as recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from postgrest.types import ReturnMethod
from supabase import AsyncClient

from companion.store import Summary, SupabaseStore, Turn
from tests.real.supabase.postgres import connection
from tests.real.supabase.postgrest import PostgREST

pytestmark = pytest.mark.integration
NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)


@pytest.fixture
async def before(api: PostgREST) -> AsyncIterator[AsyncClient]:
    """The client of a worker of the version before."""
    client = api.client(api.secret_key)
    yield client
    await client.postgrest.aclose()


async def call(client: AsyncClient, function: str, **arguments: Any) -> Any:
    return (await client.rpc(function, arguments).execute()).data


async def test_it_reads_what_this_version_writes(before: AsyncClient, supabase_store: SupabaseStore, user: str) -> None:
    """In the order that it knows: by time."""
    long = "x" * 5_000
    await supabase_store.save_profile(user, "Name: Ada")
    await supabase_store.add_turn(user, Turn("user", long, NOW + HOUR, "c1", id="t1"))
    await supabase_store.add_turn(user, Turn("user", "later", NOW, "c2", id="t2"))
    await supabase_store.save_summary(user, Summary("c1", "ahead", NOW + HOUR))
    await supabase_store.save_summary(user, Summary("c2", "right", NOW))
    context = await call(before, "companion_context", p_user_id=user, p_turns=12)
    assert context["profile"] == "Name: Ada"
    assert [turn["text"] for turn in context["turns"]] == ["later", long]
    assert context["summary"]["text"] == "ahead"
    turns = before.table("companion_turns").select("role", "text", "at", "conversation_id", "id").eq("user_id", user)
    found = (await turns.order("at", desc=True).order("seq", desc=True).limit(1).execute()).data
    assert [turn["text"] for turn in found] == [long]


async def test_this_version_reads_what_it_writes(
    before: AsyncClient, supabase_store: SupabaseStore, project: str, user: str
) -> None:
    turns = before.table("companion_turns")
    for number, at in enumerate((NOW + HOUR, NOW)):
        row = {"user_id": user, "id": f"t{number}", "conversation_id": f"c{number}", "at": at.isoformat()}
        row |= {"role": "user", "text": f"{number}"}
        minimal = ReturnMethod.minimal
        await turns.upsert(row, returning=minimal, on_conflict="user_id,id", ignore_duplicates=True).execute()
    assert [turn.text for turn in await supabase_store.recent_turns(user)] == ["0", "1"]
    assert [turn.text for turn in (await supabase_store.context(user)).turns] == ["0", "1"]
    async with connection(project) as db:
        await db.execute("update companion_outbox set written_at = now() + interval '1 hour' where user_id = $1", user)
    pending = {row.user_id for row in await supabase_store.pending_changes(1_000_000, 5.0)}
    assert user in pending


async def test_it_delivers_what_this_version_leaves_pending(
    before: AsyncClient, supabase_store: SupabaseStore, user: str
) -> None:
    await supabase_store.save_profile(user, "Name: Ada")
    rows = await call(before, "companion_owed", p_limit=1_000_000, p_older_than=0)
    (mine,) = [row for row in rows if row["user_id"] == user]
    assert mine == {"user_id": user, "what": "profile", "version": 1}
    assert await call(before, "companion_settle", p_owed=[mine]) == 1
    assert await supabase_store.pending_changes_of(user, ["profile"]) == []
