"""Facts: found from the moment they are said, kept once, and bounded in number."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from companion import Caller, use_caller
from companion.memory import facts as module
from companion.memory.context import add_memory_async, search_memories_async
from companion.memory.facts import FoundFacts, find_facts_async, remember_fact_async
from companion.runtime import Runtime
from companion.store import Memory, SqliteStore, StoreError, search_words, shares_word
from companion.writes.spool import Spool
from tests.lag import within

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ADA = Caller("ada")
METHODS = ("add_memory", "search_memories", "count_memories", "remove_memory")


class Switch:
    """Makes what the store does with facts fail or hang while it is off."""

    def __init__(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on = True
        self.hangs = False
        for name in METHODS:
            monkeypatch.setattr(runtime.store, name, self._switched(getattr(runtime.store, name), name))

    def _switched(self, method: Any, name: str) -> Any:
        async def switched(*args: Any) -> Any:
            if not self.on:
                if self.hangs:
                    await asyncio.Event().wait()
                raise StoreError(name, "timeout")
            return await method(*args)

        return switched


@pytest.fixture
def switch(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Switch:
    return Switch(runtime, monkeypatch)


@pytest.fixture(autouse=True)
def ada() -> Iterator[None]:
    with use_caller(ADA):
        yield


async def texts(runtime: Runtime, user_id: str = "ada") -> list[str]:
    return [memory.text for memory in await runtime.store.search_memories(user_id, "", 10_000)]


# -- found at once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hangs", [False, True])
async def test_what_waits_for_the_store_is_found(
    runtime: Runtime, switch: Switch, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr("companion.writes.queue.FIRST_TRY", 0.1)
    await remember_fact_async("My sister visits on Friday")
    switch.on, switch.hangs = False, hangs
    assert await remember_fact_async("My brother likes chess") == "waiting"
    assert await remember_fact_async("The code is blue") == "waiting"
    found = {
        "": ["The code is blue", "My brother likes chess"],
        "brother": ["My brother likes chess"],
        "Liking?": ["My brother likes chess"],
    }
    for query, expected in list(found.items())[: 1 if hangs else 3]:
        async with within(2.0):
            assert await find_facts_async(query) == FoundFacts(expected, None, complete=False)
    with pytest.raises(StoreError):
        await find_facts_async("sister")  # it may well be known
    switch.on = True
    found = await find_facts_async("")
    assert (found.texts, found.total) == (
        ["The code is blue", "My brother likes chess", "My sister visits on Friday"],
        3,
    )


async def test_a_cached_search_shows_what_waits_as_well(runtime: Runtime, switch: Switch) -> None:
    await remember_fact_async("My sister visits on Friday")
    assert await search_memories_async("visits") == ["My sister visits on Friday"]
    switch.on = False
    await remember_fact_async("My brother visits on Monday")
    assert await find_facts_async("visits") == FoundFacts(
        ["My brother visits on Monday", "My sister visits on Friday"], 2
    )
    switch.on = True


async def test_what_another_process_has_spooled_is_found_while_the_store_is_away(
    runtime: Runtime, switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("companion.writes.spool.keeper.GRACE", 60.0)  # what waits here is not in the spool yet
    spool = Spool(runtime.settings.home)
    spool.add("ada", [Memory("The code is blue", NOON + timedelta(seconds=1)), Memory("My dog is Rex", NOON)])
    spool.add("bob", [Memory("The code is red", NOON)])
    held = spool.new_file()
    held.hold(["nonsense"])
    assert await search_memories_async("") == []  # until the next replay
    switch.on = False
    runtime.write_behind.add("ada", Memory("My cat is Tom", NOON))
    assert (await find_facts_async("code dog cat")).texts == ["My cat is Tom", "The code is blue", "My dog is Rex"]
    held.release()


@pytest.mark.parametrize(
    ("query", "text", "shared"),
    [
        ("sister", "My sisters visit", True),
        ("visiting", "My sister visits", True),
        ("café", "The CAFE is closed", True),
        ("art", "The artichoke", False),
        ("chess", "My chest hurts", True),  # rather too much than too little
        ("what is it", "it is", False),
        ("dog", "My cat", False),
    ],
)
def test_words_of_what_waits(query: str, text: str, shared: bool) -> None:
    assert shares_word(search_words(query), text) is shared


# -- kept once -----------------------------------------------------------------------------------------------------


async def test_a_fact_said_twice_is_kept_once(runtime: Runtime, switch: Switch) -> None:
    switch.on = False
    assert await remember_fact_async("My sister visits") == "waiting"
    assert await remember_fact_async("my sister visits.") == "waiting"
    runtime.write_behind.add("ada", Memory("MY SISTER VISITS!", NOON))
    assert (await find_facts_async("")).texts == ["My sister visits"]
    switch.on = True
    assert await remember_fact_async("My  sister visits") == "stored"
    assert await remember_fact_async("My sister visits") == "stored"
    assert await texts(runtime) == ["My sister visits"]


async def test_a_fact_of_two_outages_is_kept_once(runtime: Runtime, switch: Switch) -> None:
    switch.on = False
    for text in ("My sister visits", "my sister visits!"):
        runtime.write_behind.begin_conversation("ada")
        await remember_fact_async(text)
        assert await runtime.write_behind.end_conversation("ada", 0) == 1
    assert (await find_facts_async("sister")).texts == ["my sister visits!"]
    switch.on = True
    assert await runtime.write_behind.spool_replay.replay() == 2
    assert await texts(runtime) == ["My sister visits"]


async def test_a_fact_said_in_two_processes_is_kept_once(runtime: Runtime) -> None:
    path = runtime.settings.home / "companion.db"
    stores = [SqliteStore(path) for _ in range(4)]
    await asyncio.gather(*(store.add_memory("ada", Memory("My sister visits", NOON)) for store in stores))
    assert await stores[0].count_memories("ada") == 1
    await asyncio.gather(*(store.close() for store in stores))


# -- bounded, and counted ------------------------------------------------------------------------------------------


async def test_a_listing_says_how_many_there_are(runtime: Runtime) -> None:
    for number in range(31):
        await add_memory_async(Memory(f"{'dog' if number % 3 else 'cat'} number {number}", NOON))
    found = await find_facts_async("")
    assert (len(found.texts), found.total) == (5, 31)
    assert (await find_facts_async("dogs")).total == 20
    assert (await find_facts_async("horse")).total == 0
    await add_memory_async(Memory("the horse", NOON))
    assert (await find_facts_async("")).total == 32


async def test_at_its_limit_it_asks_which_fact_may_go(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.MAX_KEPT_FACTS == 1000
    monkeypatch.setattr(module, "MAX_KEPT_FACTS", 3)
    for text in ("one", "two", "three"):
        assert await remember_fact_async(text) == "stored"
    assert await remember_fact_async("four") == "full"
    assert await remember_fact_async("Two.") == "stored"  # it is known
    assert await remember_fact_async("four", instead_of="five") == "not found"
    assert sorted(await texts(runtime)) == ["one", "three", "two"]
    assert await find_facts_async("one") == FoundFacts(["one"], 1)
    assert await remember_fact_async("four", instead_of="One!") == "stored"
    assert await find_facts_async("one") == FoundFacts([], 0)
    assert sorted(await texts(runtime)) == ["four", "three", "two"]


async def test_a_thousand_facts(runtime: Runtime) -> None:
    for number in range(999):
        await runtime.store.add_memory("ada", Memory(f"fact {number}", NOON))
    assert await remember_fact_async("fact 999") == "stored"
    assert await remember_fact_async("fact 1000") == "full"
    assert (await find_facts_async("")).total == 1000


async def test_what_was_promised_is_stored_beyond_the_limit(
    runtime: Runtime, switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_KEPT_FACTS", 3)
    switch.on = False
    for number in range(5):
        assert await remember_fact_async(f"fact {number}") == "waiting"  # how many there are is not known
    with pytest.raises(StoreError):
        await remember_fact_async("other", instead_of="fact 1")
    switch.on = True
    assert await remember_fact_async("fact 0") == "stored"
    assert await runtime.write_behind.end_conversation("ada", 5) == 0
    assert len(await texts(runtime)) == 5


async def test_a_stranger_has_no_facts(runtime: Runtime) -> None:
    with use_caller(None):
        assert await find_facts_async("") == FoundFacts([], 0)
        assert await remember_fact_async("x") == "full"
        assert await remember_fact_async("x", instead_of="y") == "not found"


@pytest.mark.parametrize("lost", ["the write", "its confirmation"])
async def test_a_fact_that_is_replaced_while_it_waits_does_not_come_back(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    add_memory, failing = runtime.store.add_memory, True

    async def unconfirmed(user_id: str, memory: Memory) -> None:
        if not failing or lost == "its confirmation":
            await add_memory(user_id, memory)
        if failing:
            raise StoreError("add_memory", "timeout")

    monkeypatch.setattr(runtime.store, "add_memory", unconfirmed)
    assert await remember_fact_async("The code is 1234") == "waiting"
    assert await remember_fact_async("The code is 9999", instead_of="the code is 1234.") == "waiting"
    assert (await find_facts_async("code")).texts == ["The code is 9999"]
    failing = False
    assert await runtime.write_behind.end_conversation("ada", 5) == 0
    assert await texts(runtime) == ["The code is 9999"]


async def test_a_fact_that_waits_stays_if_its_removal_fails(runtime: Runtime, switch: Switch) -> None:
    switch.on = False
    assert await remember_fact_async("The code is 1234") == "waiting"
    with pytest.raises(StoreError):
        await remember_fact_async("The code is 9999", instead_of="The code is 1234")
    switch.on = True
    assert await runtime.write_behind.end_conversation("ada", 5) == 0
    assert await texts(runtime) == ["The code is 1234"]


async def test_a_fact_is_kept_though_the_store_is_silent_about_the_one_that_it_replaces(
    runtime: Runtime, switch: Switch
) -> None:
    assert await remember_fact_async("The code is 1234") == "stored"
    switch.on, switch.hangs = False, True
    async with within(2.5):
        assert await remember_fact_async("The code is 9999", instead_of="The code is 1234") == "waiting"
    switch.on = True
    assert await runtime.write_behind.end_conversation("ada", 5) == 0
    assert "The code is 9999" in await texts(runtime)


async def test_a_fact_whose_process_was_killed_stays_removed(runtime: Runtime) -> None:
    """Killed after the store had it, and before its line was struck from the spool: the next process replays it."""
    fact = Memory("My sister visits", NOON)
    await runtime.store.add_memory("ada", fact)
    Spool(runtime.settings.home).add("ada", [fact])
    assert await remember_fact_async("My brother visits", instead_of=fact.text) == "stored"
    assert await runtime.write_behind.spool_replay.replay() == 1
    assert await texts(runtime) == ["My brother visits"]
