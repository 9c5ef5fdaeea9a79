"""The number of requests that the Supabase store makes, and the answers that it accepts."""

from __future__ import annotations

import pytest

from companion.store import StoreError, SupabaseStore
from companion.store.supabase.client import SupabaseClient
from tests.companion.store.supabase.test_supabase import OPERATIONS, PRIVATE, WRITES
from tests.real.supabase.postgrest import PostgREST

pytestmark = pytest.mark.integration


async def test_the_whole_context_is_one_request(supabase_store: SupabaseStore, api: PostgREST, user: str) -> None:
    for operation in (*WRITES, "save_profile"):
        await OPERATIONS[operation](supabase_store, user)
    before = api.requests
    context = await supabase_store.context(user)
    assert (context.profile, context.state) == (f"about {PRIVATE}", {PRIVATE: PRIVATE})
    assert api.requests == before + 1


async def test_reading_and_acknowledging_take_one_request_each(
    supabase_store: SupabaseStore, api: PostgREST, user: str
) -> None:
    users = [f"{user}-{number}" for number in range(5)]
    for one in users:
        await supabase_store.save_state(one, {})
    before = api.requests
    rows = await supabase_store.pending_changes(1_000_000)
    await supabase_store.acknowledge(rows)
    assert {one.user_id for one in rows} >= set(users)
    assert api.requests == before + 2
    await supabase_store.acknowledge([])
    assert api.requests == before + 2


ANSWERS: dict[str, list[object]] = {
    "context": [
        None,
        {},
        {"profile": None, "turns": [], "summary": None},
        {"profile": 1, "turns": [], "summary": None, "state": None},
        {"profile": None, "turns": None, "summary": None, "state": None},
        {"profile": None, "turns": [{}], "summary": None, "state": None},
        {"profile": None, "turns": [], "summary": {"text": "x"}, "state": None},
        {"profile": None, "turns": [], "summary": None, "state": []},
    ],
    "get_state": [None, {}, ["x"], [{}], [{"state": None}], [{"state": "{}"}]],
    "latest_summary": [[{"conversation_id": "c", "text": "x", "at": "yesterday"}]],
    "pending_changes": [
        [{"user_id": "u", "what": "weather", "version": 1}],
        [{"user_id": "u", "what": "turn", "version": "1"}],
        [{"user_id": "u", "what": "turn"}],
    ],
    "acknowledge": [None, "1", {}, []],
    "save_profile": [None, [], "true"],
    "profile_for_write": [None, [], {}, {"text": 1, "has_write": True}, {"text": None}, {"has_write": True}],
    "profile_versions": [[{"version": 1, "text": "x", "at": "2026-03-01T12:00:00+00:00", "author": "king"}]],
}


@pytest.mark.parametrize("operation", ANSWERS)
async def test_an_answer_of_another_shape_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, user: str, operation: str
) -> None:
    store = SupabaseStore("http://127.0.0.1:1", "sb_secret_x")
    for answer in ANSWERS[operation]:

        async def execute(_: object, query: object, answer: object = answer) -> object:
            return answer

        monkeypatch.setattr(SupabaseClient, "execute", execute)
        with pytest.raises(StoreError, match=f"^{operation} failed: unexpected answer$"):
            await OPERATIONS[operation](store, user)
    await store.close()
