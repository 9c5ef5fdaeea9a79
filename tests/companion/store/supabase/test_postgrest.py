"""The stand-in is strict: it answers as PostgREST, or with 501."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from postgrest import APIError
from supabase import AsyncClient

from companion.store import Memory, SupabaseStore, Turn
from tests.real.supabase.postgrest import PostgREST

pytestmark = pytest.mark.integration


@pytest.fixture
async def service(api: PostgREST) -> AsyncIterator[AsyncClient]:
    supabase = api.client(api.secret_key)
    yield supabase
    await supabase.postgrest.aclose()


ROW = {"user_id": "u", "text": "x"}
UNKNOWN = {
    "update": lambda db: db.table("companion_profiles").update({"text": "x"}).eq("user_id", "u"),
    "delete": lambda db: db.table("companion_profiles").delete().eq("user_id", "u"),
    "rows back": lambda db: db.table("companion_profiles").insert(ROW),
    "defaults": lambda db: db.table("companion_profiles").insert([ROW], returning="minimal", default_to_null=False),
    "upsert without a key": lambda db: db.table("companion_profiles").upsert(ROW, returning="minimal"),
    "single": lambda db: db.table("companion_profiles").select("*").single(),
    "csv": lambda db: db.table("companion_profiles").select("*").csv(),
    "or": lambda db: db.table("companion_profiles").select("*").or_("user_id.eq.a,user_id.eq.b"),
    "in": lambda db: db.table("companion_profiles").select("*").in_("user_id", ["a"]),
    "not": lambda db: db.table("companion_profiles").select("*").not_.eq("user_id", "a"),
    "embedding": lambda db: db.table("companion_profiles").select("*, companion_turns(*)"),
    "renaming": lambda db: db.table("companion_profiles").select("name:user_id"),
    "json path": lambda db: db.table("companion_profiles").select("text->a"),
    "nulls first": lambda db: db.table("companion_profiles").select("*").order("text", nullsfirst=True),
    "offset": lambda db: db.table("companion_profiles").select("*").range(0, 1),
    "count": lambda db: db.table("companion_profiles").insert(ROW, returning="minimal", count="exact"),
    "rpc by GET": lambda db: db.rpc("companion_context", {"p_user_id": "u"}, get=True),
    "rpc with a filter": lambda db: db.rpc("companion_search", {"p_user_id": "u", "p_query": "x"}).eq("id", "1"),
    "schema": lambda db: db.table('profiles"; drop table x').select("*"),
}


@pytest.mark.parametrize("what", UNKNOWN)
async def test_what_it_does_not_know_it_refuses(service: AsyncClient, what: str) -> None:
    with pytest.raises(APIError, match="stand-in does not know"):
        await UNKNOWN[what](service).execute()


KNOWN_FAILURES: dict[str, tuple[str, Any]] = {
    "no such table": ("PGRST205", lambda db: db.table("absent").select("*")),
    "no such column": ("42703", lambda db: db.table("companion_profiles").select("absent")),
    "no such column to write": (
        "PGRST204",
        lambda db: db.table("companion_profiles").insert({"absent": 1}, returning="minimal"),
    ),
    "no such function": ("PGRST202", lambda db: db.rpc("absent", {})),
    "an argument is missing": ("PGRST202", lambda db: db.rpc("companion_context", {})),
    "an argument too many": ("PGRST202", lambda db: db.rpc("companion_context", {"p_user_id": "u", "p_x": 1})),
    "a trigger's function": ("PGRST202", lambda db: db.rpc("companion_touch", {})),
    "not null": ("23502", lambda db: db.table("companion_profiles").insert({"user_id": "u"}, returning="minimal")),
    "a wrong type": ("22P02", lambda db: db.table("companion_turns").select("*").eq("seq", "many")),
    "a generated column": (
        "428C9",
        lambda db: db.table("companion_memories").insert({"user_id": "u", "words": "x"}, returning="minimal"),
    ),
}


@pytest.mark.parametrize("what", KNOWN_FAILURES)
async def test_failures_have_postgrests_codes(service: AsyncClient, what: str) -> None:
    code, request = KNOWN_FAILURES[what]
    with pytest.raises(APIError) as caught:
        await request(service).execute()
    assert caught.value.code == code


async def test_a_row_that_exists_is_a_conflict(service: AsyncClient, user: str) -> None:
    insert = service.table("companion_profiles").insert({"user_id": user, "text": "x"}, returning="minimal")
    await insert.execute()
    with pytest.raises(APIError) as caught:
        await insert.execute()
    assert caught.value.code == "23505"


@pytest.mark.parametrize(
    ("key", "token", "code"),
    [
        ("publishable_key", lambda api: api.token("authenticated", sub="u", seconds=-1), "PGRST303"),
        ("publishable_key", lambda api: "not.a.token", "PGRST301"),
        ("publishable_key", lambda api: PostgREST("").token("service_role"), "PGRST301"),
        ("publishable_key", lambda api: api.secret_key, "PGRST301"),
        ("secret_key", lambda api: api.secret_key, "PGRST301"),
    ],
)
async def test_tokens_are_checked(api: PostgREST, key: str, token: Any, code: str | None) -> None:
    supabase = api.client(getattr(api, key), token(api))
    with pytest.raises(APIError) as caught:
        await supabase.table("companion_profiles").select("*").limit(1).execute()
    assert caught.value.code == code
    await supabase.postgrest.aclose()


async def test_a_list_is_cut_without_a_word(project: str, user: str) -> None:
    """PostgREST's ``db-max-rows``: 1,000 at Supabase. It is not applied to a function that returns one value."""
    async with PostgREST(project, max_rows=3) as api:
        assert PostgREST("").max_rows == 1000
        client, store = api.client(api.secret_key), SupabaseStore(api.url, api.secret_key)
        for number in range(5):
            await store.add_turn(user, Turn("user", f"{number}", datetime(2026, 3, 1, 12, number, tzinfo=UTC), "c"))
        rows = await client.table("companion_turns").select("id").eq("user_id", user).limit(5).execute()
        assert len(rows.data) == 3
        assert len((await client.rpc("companion_last_turns", {"p_user_id": user, "p_turns": 5}).execute()).data) == 3
        assert len((await client.rpc("companion_context", {"p_user_id": user}).execute()).data["turns"]) == 5
        await store.close()
        await client.postgrest.aclose()


@pytest.mark.parametrize("body", ["", "{}"])
async def test_a_function_whose_arguments_have_defaults(api: PostgREST, body: str) -> None:
    async with httpx.AsyncClient(headers={"apikey": api.secret_key}) as http:
        answer = await http.post(f"{api.url}/rest/v1/rpc/companion_owed", content=body)
    assert (answer.status_code, type(answer.json())) == (200, list)


async def test_an_upsert_that_only_updates_is_no_creation(api: PostgREST, user: str) -> None:
    merge, keep = "resolution=merge-duplicates", "resolution=ignore-duplicates"
    async with httpx.AsyncClient(headers={"apikey": api.secret_key}) as http:
        statuses = [
            (
                await http.post(
                    f"{api.url}/rest/v1/companion_profiles?on_conflict=user_id",
                    json={"user_id": user, "text": "x"},
                    headers={"Prefer": f"return=minimal,{resolution}"},
                )
            ).status_code
            for resolution in (merge, merge, keep)
        ]
    assert statuses == [201, 200, 201]


async def test_full_text_filters_and_comparisons(
    service: AsyncClient, supabase_store: SupabaseStore, user: str
) -> None:
    for day, text in enumerate(["has a dog", "likes dogs and cats", "plays chess"], start=1):
        await supabase_store.add_memory(user, Memory(text, datetime(2026, 3, day, tzinfo=UTC)))

    async def found(build: Any) -> list[str]:
        query = build(service.table("companion_memories").select("text").eq("user_id", user))
        return [row["text"] for row in (await query.order("at").execute()).data]

    assert await found(lambda q: q.text_search("words", "dog & !cat", {"config": "english"})) == ["has a dog"]
    assert len(await found(lambda q: q.text_search("words", "dogs", {"type": "plain", "config": "english"}))) == 2
    assert await found(lambda q: q.text_search("words", "dog or chess", {"type": "web_search"})) != []
    assert await found(lambda q: q.gt("at", "2026-03-02").neq("text", "x")) == ["plays chess"]
    assert await found(lambda q: q.lte("at", "2026-03-01")) == ["has a dog"]
