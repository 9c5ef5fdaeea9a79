"""Summary, state and memory searches: read through the cache, written to the store first."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from companion import Caller, use_caller
from companion.memory.context import (
    add_memory_async,
    get_conversation_summary_async,
    get_user_state_async,
    save_user_state_async,
    search_memories_async,
)
from companion.runtime import Runtime
from companion.store import Memory, StoreError, Summary
from tests.real.redis.redis_server import RedisServer

pytestmark = pytest.mark.integration


def remembered(text: str) -> Memory:
    return Memory(text=text, at=datetime.now(UTC))


async def test_summary(runtime: Runtime, redis_server: RedisServer) -> None:
    await runtime.store.save_summary("1", Summary("c1", "They plan a chess tournament.", datetime.now(UTC)))
    with use_caller(Caller("1")):
        assert await get_conversation_summary_async() == "They plan a chess tournament."
    assert redis_server.cli("GET", "user:1:summary") == "They plan a chess tournament."
    assert 1710 <= redis_server.cli("TTL", "user:1:summary") <= 1800


async def test_state(runtime: Runtime, redis_server: RedisServer) -> None:
    with use_caller(Caller("1")):
        assert await get_user_state_async() == {}
        assert await save_user_state_async({"stage": "new", "conversations": 1})
        assert redis_server.cli("EXISTS", "user:1:state") == 0
        assert await get_user_state_async() == {"stage": "new", "conversations": 1}
    assert 1710 <= redis_server.cli("TTL", "user:1:state") <= 1800


async def test_searches_for_the_same_words_are_one_search(runtime: Runtime, redis_server: RedisServer) -> None:
    with use_caller(Caller("1")):
        await add_memory_async(remembered("My sister visits on Friday"))
        assert await search_memories_async("When does my sister visit?") == ["My sister visits on Friday"]
        assert await search_memories_async("my SISTER... visit") == ["My sister visits on Friday"]
    names = redis_server.cli("KEYS", "user:1:memory:search-*")
    assert len(names) == 1
    assert 280 <= redis_server.cli("TTL", names[0]) <= 300


async def test_a_new_memory_is_found_at_once(runtime: Runtime) -> None:
    with use_caller(Caller("1")):
        assert await search_memories_async("sister") == []
        await add_memory_async(remembered("My sister visits on Friday"))
        assert await search_memories_async("sister") == ["My sister visits on Friday"]


async def test_an_unknown_caller_has_no_context(runtime: Runtime, redis_server: RedisServer) -> None:
    assert await get_conversation_summary_async() == ""
    assert await get_user_state_async() == {}
    assert await save_user_state_async({}) is False
    assert await search_memories_async("sister") == []
    assert await add_memory_async(remembered("x")) is False
    assert redis_server.cli("KEYS", "user:*") == []


async def test_a_cold_start_reads_the_store_once(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    from companion.conversation.briefing import Prefetch

    reads: list[str] = []
    read = runtime.store.context

    async def counted(user_id: str, *args: Any) -> Any:
        reads.append(user_id)
        return await read(user_id, *args)

    monkeypatch.setattr(runtime.store, "context", counted)
    await Prefetch(Caller("1")).result()
    assert reads == ["1"]
    await Prefetch(Caller("1")).result()
    assert reads == ["1"]


async def test_a_later_reader_gets_a_read_of_its_own(runtime: Runtime) -> None:
    first = asyncio.create_task(runtime.contexts.get("1"))
    await first
    await runtime.store.save_profile("1", "new")
    assert (await runtime.contexts.get("1")).profile == "new"


async def test_a_failing_store_is_an_empty_context(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise StoreError("context", "timeout")

    monkeypatch.setattr(runtime.store, "context", fail)
    monkeypatch.setattr(runtime.store, "save_state", fail)
    with use_caller(Caller("1")):
        assert await get_conversation_summary_async() == ""
        assert await get_user_state_async() == {}
        assert await save_user_state_async({"stage": "new"}) is False
