"""The offline voice, which answers without API keys."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from livekit.agents import llm

from companion.conversation.opening.follow_up import decide_follow_up
from companion.conversation.opening.plan import Plan
from companion.offline.intent import Call, command, profile_with
from companion.offline.llm import OfflineLLM
from companion.offline.replies import HELP, NOTICE, answer, name_in
from companion.offline.tool_replies import tell
from companion.prompts import GREETING, instructions, profile_in, remembered
from companion.store import Turn
from tools import CacheTools

pytestmark = pytest.mark.unit


# -- what a sentence asks for ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "call"),
    [
        ("cache stats", Call("getRedisCacheStats")),
        ("Show me the cache statistics, please.", Call("getRedisCacheStats")),
        ("How is the cache doing?", Call("getRedisCacheStats")),
        ("What's the hit rate?", Call("getRedisCacheStats")),
        ("clear my cache", Call("clearUserCache")),
        ("Please flush the cache!", Call("clearUserCache")),
        ("invalidate the cache", Call("clearUserCache")),
        ("never mind, clear my cache", Call("clearUserCache")),
        ("invalidate user:*:profile", Call("invalidateCache", {"pattern": "user:*:profile"})),
        ("Invalidate the cache for “user:12?:*”.", Call("invalidateCache", {"pattern": "user:12?:*"})),
        ("invalidate *", Call("invalidateCache", {"pattern": "*"})),
        ("remember that my sister visits on Friday", Call("rememberFact", {"fact": "my sister visits on Friday"})),
        ("Could you remember I hate olives?", Call("rememberFact", {"fact": "I hate olives"})),
        ("Do you remember my sister?", Call("recallFacts", {"query": "my sister"})),
        ("What did I tell you about the key?", Call("recallFacts", {"query": "the key"})),
        ("When does my sister visit?", Call("recallFacts", {"query": "my sister visit"})),
        ("What do you know about me?", Call("getUserProfile")),
        ("Do you remember me?", Call("getUserProfile")),
        ("What’s my name?", Call("getUserProfile")),
        ("don't clear my cache", None),
        ("do not invalidate user:*", None),
        ("That would invalidate the argument", None),
        ("I remember that day", None),
        ("remember", None),
        ("My profile is my business", None),
        ("", None),
    ],
)
def test_words_ask_for_tools(said: str, call: Call | None) -> None:
    assert command(said) == call


@pytest.mark.parametrize(
    ("said", "learnt"),
    [
        ("My name is Ada Lovelace.", "Name: Ada Lovelace"),
        ("my name is ada and I like chess", "Name: Ada\nLikes: chess"),
        ("Hi, I’m Ada! I live in London, and I work as a nurse.", "Name: Ada\nLives in: London\nWork: as a nurse"),
        ("call me Ishmael", "Name: Ishmael"),
        ("I really love my dog, Rex", "Likes: my dog"),
        ("My favorite colour is blue.", "Favourite: colour is blue"),
        ("Call me later", None),
        ("My name is not important", None),
        ("I'm happy", None),
        ("I like it", None),
        ("I don't like chess", "Dislikes: chess"),
        ("Do I like chess?", None),
        ("I would like to know the time", None),
        ("", None),
    ],
)
def test_words_tell_about_the_person(said: str, learnt: str | None) -> None:
    assert profile_with(said, "") == learnt


def test_a_profile_grows_and_is_corrected() -> None:
    profile = "Name: Ada\nMet at a conference.\nLives in: Rome\nLikes: chess"
    assert profile_with("I like chess", profile) is None
    assert profile_with("I like tea", profile) == f"{profile}\nLikes: tea"
    assert profile_with("Call me Bea", profile) == profile.replace("Ada", "Bea")
    assert profile_with("I live in Oslo", profile) == ("Name: Ada\nMet at a conference.\nLikes: chess\nLives in: Oslo")


def test_a_nationality_does_not_replace_the_name() -> None:
    assert profile_with("I am German.", "Name: Ada") == "Name: Ada\nIs: German"
    assert profile_with("I am Groot.", "Name: Ada") is None
    assert profile_with("No, my name is Bea.", "Name: Ada") == "Name: Bea"


def test_an_endless_sentence_takes_no_time() -> None:
    begun = time.process_time()
    for word in ("clear ", "cache ", "I like ", "invalidate ", "how ", "my favourite ", "a"):
        command(word * 100_000)
        profile_with(word * 100_000, "")
    assert time.process_time() - begun < 1


# -- what it says ------------------------------------------------------------------------------------------------


def heard(*said: str, profile: str = "", tools: Iterable[str] = ()) -> str | Call:
    """The answer to the last of these user turns."""
    context = llm.ChatContext.empty()
    context.add_message(role="system", content=instructions())
    context.add_message(role="system", content=remembered(profile))
    for words in said:
        context.add_message(role="user", content=words)
    return answer(context, set(tools))


def greeted(plan: Plan, profile: str = "") -> str:
    """The first message."""
    context = llm.ChatContext.empty()
    context.add_message(role="system", content=instructions())
    context.add_message(role="system", content=remembered(profile))
    context.add_message(role="system", content=plan.instructions(GREETING))
    said = answer(context, set())
    assert isinstance(said, str)
    return said


def test_its_first_line_says_what_brings_the_real_thing() -> None:
    for plan in (Plan("first_meeting"), Plan("fresh_start"), Plan("follow_up", topic="chess")):
        first, _, rest = greeted(plan).partition("\n")
        assert first == NOTICE
        assert rest
    assert all(name in NOTICE for name in ("OPENAI_API_KEY", "LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"))


def test_it_greets_as_instructed() -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    assert "What is your name?" in greeted(Plan("first_meeting"))
    assert "Hello Ada," in greeted(Plan("first_meeting"), "Name: Ada")
    assert "Welcome back, Ada!" in greeted(Plan("fresh_start", yesterday), "Name: Ada\nLikes: chess")
    follow_up = greeted(Plan("follow_up", yesterday, "my sister visits"))
    assert "Welcome back! Last time, 1 day ago, you said: “my sister visits”." in follow_up


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Hello!", "Hello"),
        ("good evening", "Hello"),
        ("help", HELP),
        ("Thank you.", "You are welcome."),
        ("Goodbye", "Goodbye"),
        ("I am so tired today", "That sounds hard."),
        ("It was wonderful", "I am glad"),
        ("Why is the sky blue?", "without a real model"),
        ("The train was late", "I see."),
        ("", "I see."),
    ],
)
def test_it_talks(said: str, words: str) -> None:
    answered = heard(said)
    assert isinstance(answered, str)
    assert words in answered


def test_it_does_not_ask_the_same_thing_twice_in_a_row() -> None:
    talk = ["The train was late", "So I walked", "It rained"]
    assert len({heard(*talk[: count + 1]) for count in range(3)}) == 3


def test_it_knows_what_was_said() -> None:
    assert "“The train was late”" in str(heard("The train was late", "What did I say?"))
    assert "first thing" in str(heard("What did we talk about?"))


def test_it_repeats_no_secret() -> None:
    """Also one that a model has let pass. Where the last words may not be repeated, it says none."""
    said = "I live in Oslo and my password is hunter2"
    assert "hunter2" not in str(heard(said, "What did we talk about?"))
    now = datetime.now(UTC).isoformat()
    cut_off = greeted(Plan("fresh_start", now))  # all that was said is skipped: where nothing was, there is no plan
    assert cut_off.endswith("There you are again! We were cut off. Shall we go on?")
    assert greeted(Plan("fresh_start", now, last_words=said)) == cut_off
    assert greeted(Plan("follow_up", topic=said)) == greeted(Plan("fresh_start"))


def test_it_calls_only_tools_that_are_there() -> None:
    assert heard("cache stats", tools={"getRedisCacheStats"}) == Call("getRedisCacheStats")
    assert "do not have it" in str(heard("cache stats"))
    assert heard("My name is Bea", profile="Likes: tea", tools={"updateUserProfile"}) == Call(
        "updateUserProfile", {"profile": "Name: Bea\nLikes: tea"}
    )
    assert isinstance(heard("My name is Bea"), str)


def test_it_finds_the_profile_and_the_name_in_it() -> None:
    assert profile_in(remembered("Name: Ada\nLikes: chess")) == "Name: Ada\nLikes: chess"
    assert profile_in(remembered("")) == ""
    assert profile_in("Something else altogether") == ""
    assert name_in("Likes: chess\nName: Ada Lovelace, countess") == "Ada Lovelace"
    assert name_in("Her name is Ada.") == "Ada"
    assert name_in("Likes: chess") == ""


@pytest.mark.parametrize(
    ("tool", "result", "words"),
    [
        (
            "getRedisCacheStats",
            {"status": "healthy", "hit_rate": "85.3%", "cache_hits": 1234, "cache_misses": 213, "redis_memory": "2.4M"},
            "The cache is healthy: 1234 of 1447 lookups were answered from it, a hit rate of 85.3%, "
            "with 2.4M of memory in use.",
        ),
        ("getRedisCacheStats", {"status": "disabled"}, "switched off"),
        ("getRedisCacheStats", {"status": "disconnected"}, "not reachable"),
        ("clearUserCache", {"success": True, "message": "Cleared 5 cached entries"}, "Cleared 5 cached entries"),
        ("clearUserCache", {"success": False, "message": "I cannot."}, "I cannot."),
        ("getUserProfile", {"success": True, "profile": "", "facts": []}, "do not know anything about you yet"),
        (
            "getUserProfile",
            {"success": True, "profile": "Name: Ada\nLikes: tea", "facts": ["x", "y"]},
            "This is what I know: Name: Ada; Likes: tea. You asked me to remember: x; y.",
        ),
        ("getUserProfile", {"success": True, "profile": "A", "facts": [], "message": "No facts now."}, "No facts now."),
        ("recallFacts", {"success": True, "facts": ["The key is here"]}, "Yes: The key is here."),
        ("recallFacts", {"success": True, "facts": []}, "do not remember"),
        ("rememberFact", {"success": True, "message": "I will."}, "I will."),
        ("somethingElse", {}, "Done."),
    ],
)
def test_it_tells_results_in_words(tool: str, result: dict[str, Any], words: str) -> None:
    said = tell(tool, json.dumps(result))
    assert words in said
    assert "{" not in said


def test_it_tells_what_it_learnt() -> None:
    done = json.dumps({"success": True, "message": "..."})
    assert "Nice to meet you, Ada." in tell("updateUserProfile", done, [("Name", "Ada")])
    assert tell("updateUserProfile", done, [("Likes", "tea"), ("Lives in", "Rome")]) == (
        "I will remember that you like tea and you live in Rome."
    )
    assert tell("updateUserProfile", done) == "I will remember that."


@pytest.mark.parametrize("output", ["An internal error occurred", "[1, 2]", '"text"', "", "null"])
def test_a_result_that_is_none_is_survived(output: str) -> None:
    assert tell("getRedisCacheStats", output)


# -- follow-up or fresh start ------------------------------------------------------------------------------------


def turns(*said: str) -> list[Turn]:
    now = datetime.now(UTC)
    both = [(words, role) for words in said for role in ("user", "assistant")]
    return [Turn(role, words, now, "1") for words, role in both]


async def test_a_follow_up_is_about_a_statement_of_the_user() -> None:
    decision = await decide_follow_up(turns("My sister visits on Friday", "cache stats"), "", OfflineLLM())
    assert (decision.follow_up, decision.topic, decision.certain) == (True, "My sister visits on Friday", True)


async def test_without_a_statement_a_follow_up_is_about_the_request() -> None:
    assert (await decide_follow_up(turns("cache stats"), "", OfflineLLM())).topic == "cache stats"


async def test_a_greeting_alone_is_no_thread() -> None:
    only_greeting = [Turn("assistant", "Hello, what is your name?", datetime.now(UTC), "1")]
    assert not (await decide_follow_up(only_greeting, "", OfflineLLM())).follow_up


# -- as a model of a session -------------------------------------------------------------------------------------


async def test_it_streams_and_names_itself() -> None:
    model = OfflineLLM()
    assert (model.model, model.provider) == ("offline", "companion")
    context = llm.ChatContext.empty()
    context.add_message(role="user", content="help")
    async with model.chat(chat_ctx=context) as stream:
        pieces = [chunk.delta.content async for chunk in stream if chunk.delta]
    assert len(pieces) > 5
    assert "".join(map(str, pieces)) == HELP


async def test_asked_not_to_use_tools_it_uses_none() -> None:
    context = llm.ChatContext.empty()
    context.add_message(role="user", content="cache stats")
    response = await OfflineLLM().chat(chat_ctx=context, tools=CacheTools().tools, tool_choice="none").collect()
    assert not response.tool_calls
    assert response.text
