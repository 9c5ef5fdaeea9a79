"""Reading and updating the profile, remembering and recalling, called by a model in a real session."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from livekit.agents import llm

from cache import get_redis_cache
from companion import Caller, get_user_profile_async, use_caller
from companion.runtime import Runtime, close_runtime, set_runtime
from companion.settings import Settings
from companion.store import SqliteStore, StoreError
from companion.voice.agent import CompanionAgent
from tests.lag import within
from tests.real.redis.redis_server import RedisServer
from tests.tools.conversation import Conversation, ObedientLLM, Person, Userdata, conversation
from tools import ProfileTools

pytestmark = pytest.mark.integration
ADA = Caller("ada")


def talk_as(caller: Any) -> Any:
    """A conversation with the companion that has the profile tools."""
    return conversation(agent=CompanionAgent(tools=[ProfileTools()]), userdata=Userdata(caller))


@pytest.fixture
async def talk(runtime: Runtime) -> AsyncIterator[Conversation]:
    async with talk_as(ADA) as talk:
        yield talk


def assert_refused(answer: dict[str, Any]) -> None:
    """A failure with a message fit for speech."""
    assert list(answer) == ["success", "message"]
    assert answer["success"] is False
    assert re.fullmatch(r"[A-Z][^{}<>_\n]+[.!]", answer["message"]), answer["message"]


# -- the profile -------------------------------------------------------------------------------------------------


async def test_nothing_is_known_at_first(talk: Conversation) -> None:
    assert await talk.use("getUserProfile") == {"success": True, "profile": "", "facts": []}


async def test_the_next_read_sees_the_update(talk: Conversation, redis: RedisServer) -> None:
    await talk.use("getUserProfile")
    assert redis.cli("EXISTS", "user:ada:profile") == 1, "what was read is cached"
    answer = await talk.use("updateUserProfile", profile="  Name: Ada\nLikes: chess \n")
    stored = "Name: Ada\nLikes: chess"
    assert answer == {"success": True, "message": "I will remember that about you.", "profile": stored}
    assert redis.cli("EXISTS", "user:ada:profile") == 0, "no other process may read the old one"
    assert (await talk.use("getUserProfile"))["profile"] == "Name: Ada\nLikes: chess"
    with use_caller(ADA):
        assert await get_user_profile_async() == "Name: Ada\nLikes: chess"
    await talk.use("updateUserProfile", profile="Name: Ada")
    assert (await talk.use("getUserProfile"))["profile"] == "Name: Ada"


async def test_an_update_counts_in_this_conversation(talk: Conversation) -> None:
    await talk.use("updateUserProfile", profile="Name: Ada")
    assert "Name: Ada" in talk.prompt


@pytest.mark.parametrize("profile", ["", " \n ", "x" * 4001])
async def test_a_profile_that_is_none_replaces_nothing(talk: Conversation, profile: str) -> None:
    await talk.use("updateUserProfile", profile="Name: Ada")
    assert_refused(await talk.use("updateUserProfile", profile=profile))
    assert (await talk.use("getUserProfile"))["profile"] == "Name: Ada"


async def test_lines_are_added_removed_and_replaced(talk: Conversation) -> None:
    answer = await talk.use("updateUserProfile", add=["Name: Ada", "Likes: chess"])
    assert answer == {
        "success": True,
        "message": "I will remember that about you.",
        "profile": "Name: Ada\nLikes: chess",
    }
    answer = await talk.use("updateUserProfile", replace=[{"old": "likes: Chess", "new": "Likes: go"}], confirm=None)
    assert answer["profile"] == "Name: Ada\nLikes: go"
    answer = await talk.use("updateUserProfile", remove=["Likes: go", "Pet: cat"], add=["Work: nurse"], profile=None)
    assert (answer["profile"], answer["not_found"]) == ("Name: Ada\nWork: nurse", ["Pet: cat"])
    assert "Name: Ada\nWork: nurse" in talk.prompt
    answer = await talk.use("updateUserProfile", remove=["Pet: cat"])
    assert (answer["success"], answer["profile"], answer["not_found"]) == (
        False,
        "Name: Ada\nWork: nurse",
        ["Pet: cat"],
    )


@pytest.mark.parametrize("careless", [{"profile": "Likes: tea"}, {"remove": [f"Fact {n}: x" for n in range(4)]}])
async def test_four_lines_are_not_removed_without_a_confirmation(
    talk: Conversation, runtime: Runtime, careless: dict[str, Any]
) -> None:
    lines = [f"Fact {number}: x" for number in range(20)]
    await talk.use("updateUserProfile", add=lines)
    answer = await talk.use("updateUserProfile", **careless)
    assert (answer["success"], answer["would_remove"][:4]) == (False, lines[:4])
    assert await runtime.store.get_profile("ada") == "\n".join(lines)
    assert (await talk.use("updateUserProfile", remove=lines[:3]))["success"] is True
    assert (await talk.use("updateUserProfile", **careless, confirm=True))["success"] is True
    left = "Likes: tea" if "profile" in careless else "\n".join(lines[4:])
    assert await runtime.store.get_profile("ada") == left
    versions = [version.text for version in await runtime.store.profile_versions("ada")]
    assert "\n".join(lines) in versions, "an earlier version is kept"


@pytest.mark.parametrize(
    "careless",
    [
        {"profile": "Likes: tea"},
        {"replace": [{"old": "\n".join(f"Likes: {n}" for n in range(20)), "new": "Likes: tea"}]},
        {"replace": [{"old": f"Likes: {n}", "new": "Likes: tea"} for n in range(20)]},
    ],
)
async def test_one_line_is_no_successor_of_many(talk: Conversation, runtime: Runtime, careless: dict[str, Any]) -> None:
    lines = [f"Likes: {number}" for number in range(20)]
    await talk.use("updateUserProfile", add=lines)
    answer = await talk.use("updateUserProfile", **careless)
    assert (answer["success"], len(answer["would_remove"])) == (False, 19)
    assert await runtime.store.get_profile("ada") == "\n".join(lines)


async def test_lines_that_are_facts_are_not_removed_without_a_confirmation(
    talk: Conversation, runtime: Runtime
) -> None:
    facts = [f"Fact {number}" for number in range(5)]
    for fact in facts:
        await talk.use("rememberFact", fact=fact)
    await talk.use("updateUserProfile", add=["Name: Ada"])
    answer = await talk.use("updateUserProfile", remove=facts)
    assert (answer["success"], answer["would_remove"]) == (False, facts)
    assert await runtime.store.count_memories("ada") == 5
    assert (await talk.use("updateUserProfile", remove=facts, confirm=True))["success"] is True
    assert await runtime.store.count_memories("ada") == 0


async def test_lines_that_come_with_a_whole_text_are_kept(talk: Conversation, runtime: Runtime) -> None:
    lines = {"add": ["Likes: tea"], "replace": [{"old": "Lives in: Oslo", "new": "Lives in: Bonn"}]}
    assert (await talk.use("updateUserProfile", profile="Name: Ada\n", **lines))["success"] is True
    assert await runtime.store.get_profile("ada") == "Name: Ada\nLikes: tea\nLives in: Bonn"


async def test_a_line_that_is_named_twice_is_found(talk: Conversation) -> None:
    await talk.use("updateUserProfile", add=["Name: Ada", "Likes: tea"])
    answer = await talk.use("updateUserProfile", remove=["Likes: tea", "likes: tea."])
    assert answer == {"success": True, "message": "I will remember that about you.", "profile": "Name: Ada"}


async def test_a_line_is_removed_word_for_word_before_one_that_reads_the_same(
    talk: Conversation, runtime: Runtime
) -> None:
    await talk.use("updateUserProfile", add=["Password hint: Tea", "Password hint: tea", "Name: ada", "Name: Ada"])
    await talk.use("updateUserProfile", remove=["Password hint: tea"], replace=[{"old": "Name: Ada", "new": "Name: A"}])
    assert await runtime.store.get_profile("ada") == "Password hint: Tea\nName: ada\nName: A"


async def test_a_profile_beyond_the_limit_can_still_be_changed(talk: Conversation, runtime: Runtime) -> None:
    lines = [f"Fact {number:03}: {'x' * 85}" for number in range(400)]
    await runtime.store.save_profile("ada", "\n".join(lines))
    await talk.use("getUserProfile")
    assert len(talk.prompt) < 8000
    answer = await talk.use("updateUserProfile", remove=lines[:1], add=["Name: Ada"])
    assert answer["success"] is True
    assert answer["message"].startswith("I will remember that. My notes about you are full")
    assert len(answer["profile"]) <= 4000
    assert answer["profile"] == await runtime.store.get_profile("ada")


async def test_a_line_that_has_become_a_fact_can_be_removed(talk: Conversation, runtime: Runtime) -> None:
    await talk.use("rememberFact", fact="Pet: cat")
    answer = await talk.use("updateUserProfile", remove=["Pet: cat"])
    assert (answer["success"], answer["not_found"]) == (True, ["Pet: cat"])
    assert await runtime.store.search_memories("ada", "") == []


async def test_what_waits_is_not_said_to_be_stored(
    talk: Conversation, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise StoreError("swap_profile", "timeout")

    with monkeypatch.context() as patch:
        patch.setattr(runtime.store, "swap_profile", fail)
        answer = await talk.use("updateUserProfile", add=["Name: Ada"])
        assert_refused(answer)
        assert "as soon as I can" in answer["message"]
        assert "Name: Ada" in talk.prompt
    assert (await talk.use("updateUserProfile", add=["Likes: tea"]))["profile"] == "Name: Ada\nLikes: tea"


# -- facts -------------------------------------------------------------------------------------------------------


async def test_what_was_remembered_is_recalled(talk: Conversation) -> None:
    for fact in ("Her sister visits on Friday.", "The key is under the mat.", "Zoë spielt Geige 🎻"):
        answer = await talk.use("rememberFact", fact=f" {fact} ")
        assert answer == {"success": True, "message": "I will remember that."}
    assert await talk.use("recallFacts", query="when does my sister visit?") == {
        "success": True,
        "facts": ["Her sister visits on Friday."],
    }
    assert (await talk.use("recallFacts", query="Zoë"))["facts"] == ["Zoë spielt Geige 🎻"]
    assert (await talk.use("recallFacts", query="dragons"))["facts"] == []
    assert len((await talk.use("getUserProfile"))["facts"]) == 3


async def test_many_facts_are_not_all_read_out(talk: Conversation) -> None:
    for number in range(7):
        await talk.use("rememberFact", fact=f"Apple number {number}.")
    assert (await talk.use("getUserProfile"))["facts"] == [f"Apple number {n}." for n in (6, 5, 4, 3, 2)]
    assert len((await talk.use("recallFacts", query="apple " * 2000))["facts"]) == 5


async def test_a_listing_says_how_many_facts_there_are(talk: Conversation) -> None:
    for number in range(5):
        await talk.use("rememberFact", fact=f"Apple number {number}.")
    assert "shown" not in await talk.use("getUserProfile")
    for number in range(26):
        await talk.use("rememberFact", fact=f"Pear number {number}.")
    assert (await talk.use("getUserProfile"))["shown"] == "5 of 31"
    assert (await talk.use("recallFacts", query="pears"))["shown"] == "5 of 26"
    assert "shown" not in await talk.use("recallFacts", query="apple")


async def test_when_it_is_full_it_asks_which_fact_may_go(talk: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.memory.facts.MAX_KEPT_FACTS", 2)
    for fact in ("The key is under the mat.", "Likes tea."):
        assert (await talk.use("rememberFact", fact=fact))["success"] is True
    answer = await talk.use("rememberFact", fact="Likes chess.")
    assert_refused(answer)
    assert "which one may go" in answer["message"]
    assert_refused(await talk.use("rememberFact", fact="Likes chess.", instead_of="Likes coffee."))
    assert (await talk.use("rememberFact", fact="Likes chess.", instead_of="likes tea"))["success"] is True
    assert (await talk.use("getUserProfile"))["facts"] == ["Likes chess.", "The key is under the mat."]


@pytest.mark.parametrize("fact", ["", "\t", "x" * 4001])
async def test_a_fact_that_is_none_is_not_kept(talk: Conversation, fact: str) -> None:
    assert_refused(await talk.use("rememberFact", fact=fact))
    assert (await talk.use("recallFacts", query=""))["facts"] == []


async def test_text_that_no_database_takes_is_kept_as_well_as_it_can_be(talk: Conversation) -> None:
    await talk.use("rememberFact", fact="half \ud83d and nothing \0 here")
    assert (await talk.use("recallFacts", query="half"))["facts"] == ["half \ufffd and nothing \ufffd here"]
    await talk.use("updateUserProfile", profile="Name: \ud83d")
    assert (await talk.use("getUserProfile"))["profile"] == "Name: \ufffd"


# -- whose -------------------------------------------------------------------------------------------------------


async def test_two_people_at_once_never_mix(runtime: Runtime) -> None:
    async def live(name: str) -> None:
        async with talk_as(Caller(name)) as talk:
            for number in range(8):
                profile = f"Name: {name}\nRound: {number}"
                await talk.use("updateUserProfile", profile=profile, user_id="somebody-else")
                await talk.use("rememberFact", fact=f"The secret of {name} is {number}.")
                assert (await talk.use("getUserProfile", user_id="somebody-else"))["profile"] == profile
                facts = (await talk.use("recallFacts", query="secret"))["facts"]
                assert facts
                assert all(f"of {name} is" in fact for fact in facts)
                assert f"Name: {name}\n" in talk.prompt

    async with asyncio.TaskGroup() as group:
        for name in ("ada", "bea", "cy"):
            group.create_task(live(name))
    assert await runtime.store.get_profile("somebody-else") is None


@pytest.mark.parametrize("caller", [None, Person("ada"), "ada"], ids=repr)
async def test_an_unknown_caller_reads_and_writes_nothing(runtime: Runtime, redis: RedisServer, caller: Any) -> None:
    await runtime.store.save_profile("ada", "Name: Ada")
    async with talk_as(caller) as talk:
        assert_refused(await talk.use("getUserProfile"))
        assert_refused(await talk.use("updateUserProfile", profile="Name: Eve"))
        assert_refused(await talk.use("rememberFact", fact="Eve was here."))
        assert_refused(await talk.use("recallFacts", query="Eve"))
    assert await runtime.store.get_profile("ada") == "Name: Ada"
    assert redis.cli("KEYS", "user:*") == []


# -- when something is away --------------------------------------------------------------------------------------


@pytest.fixture
def short_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation does not wait long at its end for a store that stays away."""
    monkeypatch.setattr("companion.conversation.turn_log.TurnLog.close.__defaults__", (0.2,))


@pytest.fixture
async def broken(redis: RedisServer, tmp_path: Path, short_flush: None) -> AsyncIterator[Runtime]:
    """A runtime whose database cannot be opened: its path is a directory."""
    yield set_runtime(Runtime(Settings.from_env(), store=SqliteStore(tmp_path)))
    await close_runtime()


async def test_with_the_store_away_it_says_so(broken: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="companion")
    async with talk_as(ADA) as talk:
        assert_refused(await talk.use("getUserProfile"))
        assert_refused(await talk.use("updateUserProfile", profile="Name: Ada"))
        assert_refused(await talk.use("rememberFact", fact="Ada was here."))
        assert_refused(await talk.use("recallFacts", query="dragons"))
        found = await talk.use("recallFacts", query="Ada")
        assert found["facts"] == ["Ada was here."]
        assert "cannot reach the other facts" in found["message"]
    ours = [record.getMessage() for record in caplog.records if record.name == "companion"]
    assert ours, "somebody who runs this wants to know"
    assert not any("Ada" in line for line in ours), "what a user says is not for the log"


async def test_with_the_store_away_a_cached_profile_is_returned(broken: Runtime, redis: RedisServer) -> None:
    redis.cli("SET", "user:ada:profile", "Name: Ada")
    async with talk_as(ADA) as talk:
        answer = await talk.use("getUserProfile")
    assert (answer["success"], answer["profile"], answer["facts"]) == (True, "Name: Ada", [])
    assert "cannot reach" in answer["message"]


async def test_what_could_not_be_read_at_first_is_neither_lost_nor_unknown_for_long(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await runtime.store.save_profile("ada", "Name: Ada\nAllergic to: nuts")

    read = runtime.store.context

    async def fail(*_: object) -> None:
        raise StoreError("context", "timeout")

    monkeypatch.setattr(runtime.store, "context", fail)
    async with talk_as(ADA) as talk:
        await talk.session.run(user_input="hello")
        monkeypatch.setattr(runtime.store, "context", read)
        assert (await talk.use("updateUserProfile", profile="Lives in: Oslo"))["success"] is True
        assert (await talk.use("getUserProfile"))["profile"] == "Name: Ada\nAllergic to: nuts\nLives in: Oslo"
        assert "Allergic to: nuts\nLives in: Oslo" in talk.prompt


async def test_what_waits_is_not_said_to_be_all_that_is_known(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, short_flush: None
) -> None:
    await runtime.store.save_profile("ada", "Name: Ada\nAllergic to: nuts")

    async def fail(*_: object, **__: object) -> None:
        raise StoreError("context", "timeout")

    with monkeypatch.context() as patch:
        for name in ("context", "swap_profile", "profile_for_write"):
            patch.setattr(runtime.store, name, fail)
        async with talk_as(ADA) as talk:
            assert_refused(await talk.use("getUserProfile"))
            assert (await talk.use("updateUserProfile", add=["Likes: tea"]))["success"] is False
            answer = await talk.use("getUserProfile")
            assert answer["profile"] == "Likes: tea"
            assert "cannot reach the rest" in answer["message"]


async def test_what_another_conversation_has_stored_meanwhile_is_not_lost(runtime: Runtime) -> None:
    """Writes of two devices, or spooled by an earlier process and replayed by this one."""
    await runtime.store.save_profile("ada", "Name: Ada")
    agents = [CompanionAgent(tools=[ProfileTools()]) for _ in range(2)]
    runtime.write_behind.begin_conversation("ada")
    async with (
        conversation(agent=agents[0], userdata=Userdata(ADA)) as phone,
        conversation(agent=agents[1], userdata=Userdata(ADA)) as laptop,
    ):
        await phone.use("updateUserProfile", profile="Name: Ada\nLikes: chess")
        answer = await laptop.use("updateUserProfile", profile="Name: Ada\nLives in: Oslo")
        assert answer["success"] is True
        assert await runtime.store.get_profile("ada") == "Name: Ada\nLikes: chess\nLives in: Oslo"
        assert "Likes: chess\nLives in: Oslo" in laptop.prompt
        # The profile is replaced, not merged: an omitted line is removed.
        await laptop.use("updateUserProfile", profile="Name: Ada\nLives in: Oslo")
        assert await runtime.store.get_profile("ada") == "Name: Ada\nLives in: Oslo"


async def test_a_profile_is_made_from_what_the_model_knew_not_from_what_a_tool_found_meanwhile(
    runtime: Runtime,
) -> None:
    there = "Name: Ada\nAllergic to: nuts"
    await runtime.store.save_profile("ada", "Name: Ada")
    runtime.write_behind.begin_conversation("ada")
    agent = CompanionAgent(tools=[ProfileTools()])

    class Hasty(ObedientLLM):
        def notice(self, chat_ctx: llm.ChatContext, tools: list[Any]) -> None:
            if "updateUserProfile" in str(chat_ctx.items[-1]):
                talk.memory.known.profile = (
                    there  # another tool of the same answer has read it before this one is called
                )

    async with conversation(agent=agent, model=Hasty(), userdata=Userdata(ADA)) as talk:
        await talk.session.run(user_input="hello")
        await runtime.store.save_profile("ada", there)
        await talk.use("updateUserProfile", profile="Name: Ada\nLives in: Oslo")
    assert await runtime.store.get_profile("ada") == "Name: Ada\nAllergic to: nuts\nLives in: Oslo"


@pytest.mark.parametrize("tool", ["getUserProfile", "getConversationContext"])
async def test_what_cannot_be_read_now_is_not_said_to_be_nothing(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    await runtime.store.save_profile("ada", "Name: Ada")

    async def fail(*_: object) -> None:
        raise StoreError("context", "timeout")

    monkeypatch.setattr(runtime.store, "context", fail)
    async with talk_as(ADA) as talk:
        assert_refused(await talk.use(tool))


@pytest.mark.parametrize(
    ("tool", "arguments"), [("getUserProfile", {}), ("getConversationContext", {}), ("recallFacts", {"query": "Ada"})]
)
async def test_a_store_that_hangs_is_not_waited_for(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tool: str, arguments: dict[str, str]
) -> None:
    await runtime.store.save_profile("ada", "Name: Ada")

    async def hang(*_: object) -> None:
        while True:  # as a client does that swallows a cancellation
            with suppress(asyncio.CancelledError):
                await forever.wait()
                return

    forever = asyncio.Event()
    monkeypatch.setattr(runtime.store, "context", hang)
    monkeypatch.setattr(runtime.store, "search_memories", hang)
    async with talk_as(ADA) as talk:
        await talk.session.run(user_input="hello")  # which waits for the briefing
        async with within(2.0):
            assert_refused(await talk.use(tool, **arguments))
        forever.set()


async def test_with_the_cache_away_nothing_is_missing(runtime: Runtime) -> None:
    (await get_redis_cache()).disable()
    async with talk_as(ADA) as talk:
        await talk.use("updateUserProfile", profile="Name: Ada")
        assert (await talk.use("getUserProfile"))["profile"] == "Name: Ada"
