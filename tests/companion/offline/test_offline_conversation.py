"""The offline voice in a session, with all tools."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from livekit.agents import AgentSession

from companion import Caller, attach
from companion.conversation.opening.greeting import make_plan
from companion.offline.llm import OfflineLLM
from companion.runtime import Runtime, acquire_runtime
from companion.transcript import to_bring_up
from companion.voice.agent import CompanionAgent
from tests.wait import until
from tools import CacheTools, ProfileTools

pytestmark = pytest.mark.integration

Talk = Callable[..., AbstractAsyncContextManager[AgentSession[Any]]]


@pytest.fixture
def talk(runtime: Runtime) -> Talk:
    """Opens a session with the offline voice and all tools."""

    userdata = SimpleNamespace(caller=Caller("ada", operator=True))

    @asynccontextmanager
    async def open_session(turns: bool = False) -> AsyncIterator[AgentSession[Any]]:
        async with AgentSession(
            llm=OfflineLLM(), vad=None, turn_handling={"turn_detection": None}, userdata=userdata
        ) as session:
            acquire_runtime()  # the test's, which it closes itself
            memory = await attach(session, caller=userdata.caller, turns=turns, wrap_up=False)
            await session.start(CompanionAgent(tools=[CacheTools(), ProfileTools()]))
            await memory.greet()
            await until(lambda: session.history.messages())
            yield session
        await memory.aclose()

    return open_session


async def ask(session: AgentSession[Any], said: str) -> tuple[list[str], str]:
    """The tools that were called, and the answer."""
    events = (await session.run(user_input=said)).events
    calls = [event.item.name for event in events if event.type == "function_call"]
    messages = [event.item.text_content for event in events if event.type == "message"]
    return calls, str(messages[-1])


async def test_a_conversation_from_hello_to_goodbye(talk: Talk, runtime: Runtime) -> None:
    async with talk() as session:
        assert "What is your name?" in session.history.messages()[-1].text_content
        assert await ask(session, "My name is Ada and I like chess") == (
            ["updateUserProfile"],
            "Nice to meet you, Ada. I will remember your name, and that you like chess.",
        )
        assert await ask(session, "Remember that my sister visits on Friday.") == (
            ["rememberFact"],
            "I will remember that.",
        )
        assert await ask(session, "When does my sister visit?") == (
            ["recallFacts"],
            "Yes: my sister visits on Friday.",
        )
        calls, said = await ask(session, "What do you know about me?")
        assert calls == ["getUserProfile"]
        assert "Name: Ada; Likes: chess." in said
        assert "my sister visits on Friday" in said
        calls, said = await ask(session, "cache stats")
        assert calls == ["getRedisCacheStats"]
        assert said.startswith("The cache is healthy")
        calls, said = await ask(session, "clear my cache")
        assert calls == ["clearUserCache"]
        assert re.fullmatch(r"Cleared [1-9] cached entries for user ada", said)
        assert await ask(session, "invalidate user:*:profile") == (
            ["invalidateCache"],
            "Invalidated 0 cache entries matching 'user:*:profile'",
        )
        assert await ask(session, "Goodbye") == ([], "Goodbye, Ada. I will remember what you told me.")
    assert await runtime.store.get_profile("ada") == "Name: Ada\nLikes: chess"


async def test_it_forgets_what_it_is_asked_to(talk: Talk, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.offline.llm.PACE", 0)
    async with talk() as session:
        await ask(session, "My name is Ada, I like chess")
        assert await ask(session, "I don't like chess") == (
            ["forgetFact"],
            "I have forgotten it. It was: Likes: chess.",
        )
        assert await ask(session, "I don't like chess") == (
            ["updateUserProfile"],
            "I will remember that you do not like chess.",
        ), "it is a dislike when nothing says otherwise"
        assert (await ask(session, "I don't like chess")) == ([], "I know that you do not like chess.")
        await ask(session, "Forget that")
        await ask(session, "I live in Oslo")
        assert await ask(session, "I no longer live in Oslo, I live in Rome") == (
            ["forgetFact", "updateUserProfile"],
            "I will remember that you live in Rome.",
        )
        for fact in ("visits on Friday", "sings in a choir", "has a dog"):
            await ask(session, f"Remember that my sister {fact}")
        calls, said = await ask(session, "Please forget my sister")
        assert calls == ["forgetFact"]
        assert "Which one" in said
        assert "my sister visits on Friday" in said
        assert await ask(session, "The one with the dog") == (
            ["forgetFact"],
            "I have forgotten it. It was: my sister has a dog.",
        )
        await ask(session, "Forget my sister")
        assert (await ask(session, "No, never mind")) == ([], "All right, I keep it.")
        await ask(session, "Forget my sister")
        assert "; " in (await ask(session, "Both of them"))[1]
        assert await runtime.store.count_memories("ada") == 0
        await ask(session, "My favourite colour is blue")
        assert await ask(session, "Forget that") == (
            ["forgetFact"],
            "I have forgotten it. It was: Favourite: colour is blue.",
        )
        assert await ask(session, "Forget it") == ([], "All right.")
        await ask(session, "I work as a nurse and I like tea")
        assert (await ask(session, "Forget my job. Also forget that I like tea. I like go"))[0] == [
            *(["forgetFact"] * 2),
            "updateUserProfile",
        ]
        assert await runtime.store.get_profile("ada") == "Name: Ada\nLives in: Rome\nLikes: go"


async def test_it_erases_everything_only_after_a_yes(
    talk: Talk, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("companion.offline.llm.PACE", 0)
    async with talk() as session:
        await ask(session, "My name is Ada")
        for refusal in ("no", "don't", "Yes, but keep my name", "No, wait"):
            assert (await ask(session, "Delete my data"))[0] == ["forgetEverything"]
            assert (await ask(session, refusal))[0] == []
        assert await runtime.store.get_profile("ada") == "Name: Ada"
        await ask(session, "yes")  # to nothing
        assert await runtime.store.get_profile("ada") == "Name: Ada"
        assert "Shall I really" in (await ask(session, "forget everything about me"))[1]
        calls, said = await ask(session, "Yes, please.")
        assert calls == ["forgetEverything"]
        assert said.startswith("I have erased everything about you.")
        assert await runtime.store.get_profile("ada") is None
        assert "do not know anything about you" in (await ask(session, "What do you know about me?"))[1]


async def test_a_secret_that_it_refuses_to_keep_is_not_brought_up(
    talk: Talk, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says is true: the record of what was said has it, and nothing else, in this conversation or the next."""
    monkeypatch.setattr("companion.offline.llm.PACE", 0)
    async with talk(turns=True) as session:
        await ask(session, "I went to the sea today")
        secrets = {
            "My password is hunter2.": [],
            "Remember that my password is hunter2": [],
            "My name is Ann and my password is hunter2": ["updateUserProfile"],  # beside what it keeps
            "Cache stats, and my password is hunter2": ["getRedisCacheStats"],  # beside what it does
        }
        for said, expected in secrets.items():
            calls, answered = await ask(session, said)
            assert calls == expected
            assert "only in the record of what we said" in answered
        assert (await ask(session, "What did we talk about?"))[1] == "You said “I went to the sea today”."
    turns = (await runtime.store.context("ada", 20)).turns
    assert [turn.skipped for turn in turns] == [*[False] * 3, *[True] * 8, False, False]
    assert "hunter2" not in repr(to_bring_up(turns))
    plan, _ = await make_plan("ada")
    assert plan.kind == "dropped_call"
    assert "hunter2" not in plan.instructions("")


async def test_only_a_choice_chooses_what_is_forgotten(talk: Talk, runtime: Runtime) -> None:
    two = "Likes: chess\nMy sister plays chess"
    answers = dict.fromkeys(("Keep both", "not the first one", "I like sister chess"), two)
    answers |= {"forget the sister one": "Likes: chess", "both, please": ""}
    async with talk() as session:
        for said, left in answers.items():
            await runtime.store.save_profile("ada", two)
            calls, answer = await ask(session, "Forget chess")
            assert calls == ["forgetFact"]
            assert "My sister plays chess" in answer
            await ask(session, said)
            assert (await runtime.store.get_profile("ada") or "").replace("\nLikes: sister chess", "") == left, said
