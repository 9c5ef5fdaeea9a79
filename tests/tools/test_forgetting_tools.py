"""Forgetting one thing, or everything, called by a model in a real session."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from cache import get_redis_cache, keys
from companion import Caller, use_caller
from companion.conversation.opening.greeting import make_plan
from companion.conversation.turn_log import TurnLog
from companion.memory.context import get_conversation_summary_async
from companion.memory.erasure import erase_user
from companion.memory.facts import find_facts_async
from companion.memory.forgetting import forget_fact_async, matching
from companion.memory.profile import get_user_profile_async, save_user_profile_async
from companion.runtime import Runtime
from companion.store import Memory, PersonData, StoreError, Summary, Turn
from companion.voice.agent import CompanionAgent
from tests.real.redis.redis_server import RedisServer
from tests.tools.conversation import Conversation, Userdata, conversation
from tests.wait import until
from tools import ProfileTools
from tools.profile_tools import ERASED

pytestmark = pytest.mark.integration
ADA = Caller("ada")
NOTHING = PersonData(None, [], [], [], [], None)


@pytest.fixture
async def log(runtime: Runtime) -> TurnLog:
    return TurnLog(ADA, runtime.write_behind)


@pytest.fixture
async def talk(runtime: Runtime, log: TurnLog) -> AsyncIterator[Conversation]:
    await runtime.store.save_summary("ada", Summary("before", "They said that they like chess.", datetime.now(UTC)))
    agent = CompanionAgent(tools=[ProfileTools()])
    async with conversation(agent=agent, userdata=Userdata(ADA)) as talk:
        await talk.session.run(user_input="hello")
        assert "chess" in talk.prompt
        talk.session.on("conversation_item_added", log.on_item)
        talk.session.on("function_tools_executed", log.on_tools)
        yield talk


async def cached_words(redis: RedisServer) -> str:
    """Everything in Redis that is about the person."""
    names = [name for pattern in ("*ada*",) for name in redis.cli("KEYS", pattern)]
    return " ".join(str(redis.cli("GET", name)) for name in names if redis.cli("TYPE", name) == "string")


async def test_a_line_is_forgotten_everywhere(talk: Conversation, runtime: Runtime, redis: RedisServer) -> None:
    store = runtime.store
    with use_caller(ADA):
        await save_user_profile_async("Name: Ada\nLikes: chess")
        await save_user_profile_async("Name: Ada\nLikes: chess\nLikes: tea")
        await store.save_summary("ada", Summary("c", "They talked about chess.", datetime.now(UTC)))
        await store.add_memory("ada", Memory("plays chess on Sundays", datetime.now(UTC)))
        for read in (get_user_profile_async(), get_conversation_summary_async(), find_facts_async("chess")):
            await read
        await (await get_redis_cache()).set(keys.greeting_instructions("ada"), {"topic": "chess"})
        await (await get_redis_cache()).set(keys.speech("ada", "1"), b"how was the chess?")
    assert "chess" in await cached_words(redis)
    answer = await talk.use("forgetFact", what="I like chess")
    assert answer == {
        "success": True,
        "message": "I have forgotten it.",
        "removed": ["Likes: chess"],
        "profile": "Name: Ada\nLikes: tea",
    }
    assert await talk.use("forgetFact", what="plays chess on Sundays") | {"message": ""} == {
        "success": True,
        "message": "",
        "removed": ["plays chess on Sundays"],
        "profile": "Name: Ada\nLikes: tea",
    }
    assert "chess" not in await cached_words(redis)
    with use_caller(ADA):
        assert await get_user_profile_async() == "Name: Ada\nLikes: tea"
        assert await get_conversation_summary_async() == ""
        assert (await find_facts_async("chess")).texts == []
    versions = await store.profile_versions("ada")
    assert len(versions) >= 3
    for version in versions:
        assert await store.restore_profile("ada", version.number)
        assert "chess" not in (await store.get_profile("ada") or "")
    assert "chess" not in talk.prompt


async def test_it_asks_which_one_if_several_fit(talk: Conversation, runtime: Runtime) -> None:
    for fact in ("My sister visits on Friday", "My sister lives in Rome"):
        await talk.use("rememberFact", fact=fact)
    answer = await talk.use("forgetFact", what="my sister")
    assert answer["success"] is False
    assert sorted(answer["candidates"]) == ["My sister lives in Rome", "My sister visits on Friday"]
    assert await runtime.store.count_memories("ada") == 2
    assert (await talk.use("forgetFact", what="My sister visits on Friday"))["removed"] == [
        "My sister visits on Friday"
    ]
    assert await runtime.store.count_memories("ada") == 1


async def test_it_does_not_read_out_all_that_fit(talk: Conversation) -> None:
    for number in range(8):
        await talk.use("rememberFact", fact=f"My sister has cat number {number}")
    answer = await talk.use("forgetFact", what="my sister")
    assert (len(answer["candidates"]), answer["shown"]) == (5, "5 of 8")


async def test_everything_about_a_thing_needs_no_question(talk: Conversation, runtime: Runtime) -> None:
    for fact in ("My sister visits on Friday", "My sister lives in Rome", "I like tea"):
        await talk.use("rememberFact", fact=fact)
    answer = await talk.use("forgetFact", what="everything about my sister")
    assert sorted(answer["removed"]) == ["My sister lives in Rome", "My sister visits on Friday"]
    assert [fact.text for fact in await runtime.store.search_memories("ada", "")] == ["I like tea"]


async def test_it_asks_if_something_is_only_similar(talk: Conversation, runtime: Runtime) -> None:
    await talk.use("rememberFact", fact="Meine Schwester kommt am Freitag")
    answer = await talk.use("forgetFact", what="die Sache mit meiner Schwester")
    assert answer["candidates"] == ["Meine Schwester kommt am Freitag"]
    assert await runtime.store.count_memories("ada") == 1
    for fact in ("Divorced in 2019", "寿司が好き", "Ama l'opera 🎻"):  # the store's search does not find them by these:
        await talk.use("rememberFact", fact=fact)
    for what, fact in {"the divorce": "Divorced in 2019", "寿司": "寿司が好き"}.items():
        assert (await talk.use("forgetFact", what=what))["candidates"] == [fact]
    assert (await talk.use("forgetFact", what="🎻"))["removed"] == ["Ama l'opera 🎻"]


async def test_nothing_is_removed_if_nothing_fits(talk: Conversation, runtime: Runtime) -> None:
    await talk.use("updateUserProfile", add=["Name: Ada"])
    await runtime.store.add_turn("ada", Turn("user", "I played chess today", datetime.now(UTC), "earlier", id="t"))
    answer = await talk.use("forgetFact", what="that I like chess")
    assert (answer["success"], list(answer)) == (False, ["success", "message"])
    assert "By these words I find nothing" in answer["message"], "it may be known by others"
    assert await runtime.store.get_profile("ada") == "Name: Ada"
    assert {turn.id: turn.skipped for turn in (await runtime.store.context("ada")).turns}["t"], "it is not brought up"


@pytest.mark.parametrize("what", ["everything", "everything you know about me", "all of it"])
async def test_a_wish_for_everything_is_for_the_other_tool(talk: Conversation, what: str) -> None:
    await talk.use("updateUserProfile", add=["Name: Ada"])
    answer = await talk.use("forgetFact", what=what)
    assert (answer["success"], answer["needs_confirmation"], answer["use"]) == (False, True, "forgetEverything")
    assert (await talk.use("getUserProfile"))["profile"] == "Name: Ada"


@pytest.mark.parametrize("what", ["", " ", "x" * 4001])
async def test_a_wish_that_is_none_forgets_nothing(talk: Conversation, what: str) -> None:
    await talk.use("updateUserProfile", add=["x"])
    assert (await talk.use("forgetFact", what=what))["success"] is False
    assert (await talk.use("getUserProfile"))["profile"] == "x"


async def test_with_the_store_away_it_says_so(
    talk: Conversation, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StoreError("forget", "away")

    await talk.use("updateUserProfile", add=["Likes: chess"])
    monkeypatch.setattr(runtime.store, "forget", fail)
    answer = await talk.use("forgetFact", what="I like chess")
    assert "cannot reach" in answer["message"]
    monkeypatch.undo()
    assert await runtime.store.get_profile("ada") == "Likes: chess"


async def test_an_unknown_caller_gets_the_reason(runtime: Runtime) -> None:
    async with conversation(agent=CompanionAgent(tools=[ProfileTools()]), userdata=Userdata(None)) as talk:
        for tool, arguments in (("forgetFact", {"what": "x"}), ("forgetEverything", {"confirm": True})):
            assert "do not know who you are" in (await talk.use(tool, **arguments))["message"]


KNOWN = ["Name: Ada", "Likes: chess", "Lives in: Oslo", "Work: as a nurse", "My sister lives in Oslo", "likes chess."]


@pytest.mark.parametrize(
    ("what", "meant"),
    [
        ("I like chess", ["Likes: chess", "likes chess."]),
        ("chess", ["Likes: chess", "likes chess."]),
        ("I love chess", ["Likes: chess", "likes chess."]),
        ("I live in Oslo", ["Lives in: Oslo"]),
        ("Oslo", ["Lives in: Oslo", "My sister lives in Oslo"]),
        ("where I live", ["Lives in: Oslo", "My sister lives in Oslo"]),
        ("my name", ["Name: Ada"]),
        ("my job", ["Work: as a nurse"]),
        ("I like chess and I am called Ada", ["Name: Ada", "Likes: chess", "likes chess."]),
        ("LIKES CHESS!", ["likes chess.", "Likes: chess"]),
        ("my dog", []),
        ("it", []),
        ("?", []),
    ],
)
def test_what_is_meant(what: str, meant: list[str]) -> None:
    assert matching(what, KNOWN) == meant


ALIKE = ["Likes: C++", "Likes: C#", "Likes: 🎂", "Likes: chess", "I do not like chess"]


@pytest.mark.parametrize(
    ("what", "meant"),
    [
        ("I like C++", ["Likes: C++"]),
        ("I like C", ["Likes: C++", "Likes: C#"]),
        ("I like 🎉", []),
        ("I like 🎂", ["Likes: 🎂"]),
        ("I like it", []),
        ("I like chess", ["Likes: chess"]),
        ("that I don't like chess", ["I do not like chess"]),
        ("chess", ["Likes: chess", "I do not like chess"]),
    ],
)
def test_what_merely_has_the_same_words_stays(what: str, meant: list[str]) -> None:
    assert matching(what, ALIKE) == meant


async def test_of_things_that_differ_in_signs_it_asks_which(talk: Conversation, runtime: Runtime) -> None:
    await runtime.store.save_profile("ada", "Likes: C++\nLikes: C#")
    assert (await talk.use("forgetFact", what="I like C"))["candidates"] == ["Likes: C++", "Likes: C#"]


async def test_a_conversation_that_does_not_know_of_it_says_what_it_left_out(
    talk: Conversation, runtime: Runtime
) -> None:
    assert (await talk.use("updateUserProfile", add=["Likes: chess"]))["success"]
    with use_caller(Caller("ada")):
        await forget_fact_async("I like chess")
    change = {"old": "Likes: chess", "new": "Likes: chess and go"}
    answer = await talk.use("updateUserProfile", replace=[change])
    assert not answer["success"]
    assert "elsewhere to forget" in answer["message"]
    assert answer["profile"] == ""
    answer = await talk.use("updateUserProfile", add=["Likes: chess and go"])
    assert answer["success"]
    assert await runtime.store.get_profile("ada") == "Likes: chess and go"


async def test_words_that_everything_has_forget_no_summary(talk: Conversation, runtime: Runtime) -> None:
    await runtime.store.save_profile("ada", "Likes: 🎂\nLikes: tea")
    await runtime.store.save_summary("ada", Summary("c", "They said that they like tea.", datetime.now(UTC)))
    assert (await talk.use("forgetFact", what="I like 🎂"))["removed"] == ["Likes: 🎂"]
    summary = await runtime.store.latest_summary("ada")
    assert summary is not None
    assert summary.text == "They said that they like tea."


async def test_a_store_that_raises_its_own_exceptions(
    talk: Conversation, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The person hears what is done of what they asked for, and the log holds none of the exception."""

    async def fail(*_: object, **__: object) -> None:
        raise KeyError("a secret")

    with monkeypatch.context() as patch:
        for name in ("search_memories", "count_memories", "add_memory", "forget", "forgotten", "erase_user"):
            patch.setattr(runtime.store, name, fail)
        for tool, arguments in (
            ("getUserProfile", {}),
            ("recallFacts", {"query": "chess"}),
            ("rememberFact", {"fact": "The key is under the mat."}),
            ("forgetFact", {"what": "chess"}),
        ):
            assert "cannot reach" in (await talk.use(tool, **arguments))["message"], tool
        assert not await erase_user("ada"), "the wish waits"
    assert "a secret" not in caplog.text


# -- what the next conversation begins with ----------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["forgetFact", "forgetEverything"])
async def test_the_call_of_the_tool_marks_the_turn_in_any_language(
    talk: Conversation, runtime: Runtime, log: TurnLog, tool: str
) -> None:
    log.add(Turn("user", "Meine Schwester kommt am Freitag", datetime.now(UTC), log.conversation_id))
    await talk.use("getUserProfile")
    await talk.use(tool, **({"what": "Schach"} if tool == "forgetFact" else {}))
    await talk.session.run(user_input="nein")
    await talk.session.run(user_input="Am Samstag auch")
    assert [turn.skipped for turn in log.turns] == [*[False] * (len(log.turns) - 6), *[True] * 4, False, False]

    async def stored() -> list[bool]:
        return [turn.skipped for turn in (await runtime.store.context("ada", 20)).turns]

    assert await log.close() == 0
    assert await stored() == [turn.skipped for turn in log.turns]
    plan, _ = await make_plan("ada")
    assert plan.last_words == "Am Samstag auch"


@pytest.mark.parametrize("tool", ["forgetFact", "forgetEverything"])
async def test_a_profile_that_comes_late_brings_nothing_back(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    read, gate = runtime.store.context, asyncio.Event()

    async def late(*given: Any) -> Any:
        found = await read(*given)
        await gate.wait()
        return found

    await runtime.store.save_profile("ada", "Likes: chess")
    with monkeypatch.context() as slow:
        slow.setattr(runtime.store, "context", late)
        async with conversation(agent=CompanionAgent(tools=[ProfileTools()]), userdata=Userdata(ADA)) as talk:
            await talk.session.run(user_input="hello")
            done = await talk.use(tool, **({"what": "chess"} if tool == "forgetFact" else {"confirm": True}))
            assert done["success"]
            gate.set()
            await asyncio.sleep(0.1)
            assert "chess" not in talk.prompt


async def test_nothing_stays_under_an_id_of_before(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller's earlier ids could not be taken over when the call began: the next call must not find them."""
    caller = Caller("ada", earlier=("sip_5551", "sip_+5551"))

    async def fail(*_: object) -> None:
        raise StoreError("move_user", "timeout")

    async with conversation(agent=CompanionAgent(tools=[ProfileTools()]), userdata=Userdata(caller)) as talk:
        await runtime.store.save_profile("sip_5551", "Likes: chess")
        assert (await talk.use("forgetEverything", confirm=True))["success"]
        assert await runtime.store.export_user("sip_5551") == NOTHING
        number = await runtime.store.latest_erasure()
        await runtime.store.save_profile("sip_5551", "Likes: chess", since=number)
        with monkeypatch.context() as outage:
            outage.setattr(runtime.store, "move_user", fail)
            assert (await talk.use("forgetEverything", confirm=True))["success"]
        for each in ("ada", *caller.earlier):
            assert await runtime.store.export_user(each) == NOTHING


async def test_everything_is_erased_after_a_confirmation(talk: Conversation, runtime: Runtime, log: TurnLog) -> None:
    await talk.use("updateUserProfile", add=["Name: Ada"])
    await talk.use("rememberFact", fact="My sister visits")
    asked = await talk.use("forgetEverything")
    assert asked["needs_confirmation"] is True
    assert await runtime.store.get_profile("ada") == "Name: Ada"
    answer = await talk.use("forgetEverything", confirm=True)
    message = "I have erased everything about you. I keep nothing more of this conversation."
    assert answer == {"success": True, "message": message}
    assert "Ada" not in talk.prompt
    assert "chess" not in talk.prompt
    items = talk.session.current_agent.chat_ctx.items
    assert not any("sister" in json.dumps(item.model_dump(mode="json")) for item in items)
    assert await runtime.store.export_user("ada") == NOTHING
    answer = await talk.use("rememberFact", fact="My brother visits")
    assert answer == {"success": False, "message": ERASED}
    answer = await talk.use("updateUserProfile", add=["Name: Bob"])
    assert answer == {"success": False, "message": ERASED}
    await talk.session.run(user_input="And now something new")
    await until(lambda: any(turn.text == "And now something new" for turn in log.turns))
    assert await log.close() == 0
    assert await runtime.store.export_user("ada") == NOTHING
    agent = CompanionAgent(tools=[ProfileTools()])
    async with conversation(agent=agent, userdata=Userdata(Caller("ada"))) as again:  # they call again
        assert (await again.use("rememberFact", fact="My brother visits"))["success"]
