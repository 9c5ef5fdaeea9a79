"""The offline voice, by what people say: what is stored, what is not, and what it answers."""

from __future__ import annotations

import json
import re
from typing import Final

import pytest
from livekit.agents import llm

from companion.offline.intent import Call
from companion.offline.replies import NO_SECRETS, answer
from companion.prompts import FOLLOW_UP_PROMPT, SUMMARY_PROMPT, instructions, remembered

from .sayings import PLAIN, QUESTIONS, ROUGH, SEQUENCES

pytestmark = pytest.mark.unit

TOOLS: Final = {
    "updateUserProfile",
    "getUserProfile",
    "rememberFact",
    "recallFacts",
    "forgetFact",
    "forgetEverything",
    "getConversationContext",
}
KINDS: Final = {
    "any": "",
    "learnt": r"(?:Nice to meet you|I will remember)",
    "known": "I know that",
    "cannot": r"(?=.*offline voice)(?=.*OPENAI_API_KEY)",
    "secret": "I keep no passwords",
    "learnt beside a secret": r"I keep no passwords.*\. (?:Nice to meet you|I will remember)",
    "time": r"It is \d\d:\d\d\.$",
    "date": r"It is \w+day, \d+ \w+ \d{4}\.$",
    "well": "I am well",
    "self": "I am the offline voice",
    "thanks": "You are welcome",
    "goodbye": "Goodbye",
    "hello": "Hello",
    "glad": "I am glad",
}


def conversation(*said: str, profile: str = "") -> tuple[str, str]:
    """What the profile has after these turns, and the last answer; or the name of a tool of which no more is played."""
    turns: list[llm.ChatItem] = []
    reply: str | Call = ""
    for words in said:
        turns.append(_user(words))
        reply = _answer(turns, profile)
        while isinstance(reply, Call) and reply.tool in ("updateUserProfile", "forgetFact"):
            lines = reply.arguments.get("profile", profile).splitlines()
            gone = [*reply.arguments.get("remove", []), reply.arguments.get("what")]
            if gone == ["I like chess"]:
                gone = ["Likes: chess"]  # as the store finds it
            elif gone == ["I live in Oslo"]:
                gone = ["Lives in: Oslo"]
            profile = "\n".join([*(line for line in lines if line not in gone), *reply.arguments.get("add", [])])
            output = json.dumps({"success": True, "profile": profile})
            turns.append(llm.FunctionCallOutput(name=reply.tool, call_id="1", output=output, is_error=False))
            reply = _answer(turns, profile)
        turns.append(llm.ChatMessage(role="assistant", content=[str(reply)]))
    return profile, reply.tool if isinstance(reply, Call) else reply


def _user(said: str) -> llm.ChatMessage:
    return llm.ChatMessage(role="user", content=[said])


def _answer(turns: list[llm.ChatItem], profile: str) -> str | Call:
    context = llm.ChatContext.empty()
    context.add_message(role="system", content=instructions())
    context.add_message(role="system", content=remembered(profile))
    return answer(llm.ChatContext([*context.items, *turns]), TOOLS)


@pytest.mark.parametrize(("said", "stored", "kind"), [*PLAIN, *ROUGH])
def test_what_is_said_once(said: str, stored: tuple[str, ...], kind: str) -> None:
    profile, reply = conversation(said)
    assert tuple(profile.splitlines()) == stored
    assert reply == kind or re.match(KINDS.get(kind, "$."), reply), reply


@pytest.mark.parametrize(("said", "stored", "kind"), [one for one in [*PLAIN, *ROUGH] if one[1]])
def test_the_same_thing_is_stored_once(said: str, stored: tuple[str, ...], kind: str) -> None:
    profile, reply = conversation(said, said.rstrip(".") + "!", said.lower().rstrip("."), said)
    assert tuple(profile.splitlines()) == stored
    assert reply.removeprefix(f"{NO_SECRETS} " if "secret" in kind else "").startswith(KINDS["known"])


@pytest.mark.parametrize(("said", "stored"), SEQUENCES)
def test_what_is_said_after_each_other(said: tuple[str, ...], stored: tuple[str, ...]) -> None:
    assert tuple(conversation(*said)[0].splitlines()) == stored


@pytest.mark.parametrize(("profile", "question", "reply"), QUESTIONS)
def test_what_is_asked_of_the_profile(profile: str, question: str, reply: str) -> None:
    assert conversation(question, profile=profile) == (profile, reply)


@pytest.mark.parametrize("said", ["ada", "Ada.", "it's ada", "hi, I’m Ada!", "im ada", "Ada here", "this is Ada"])
def test_a_name_alone_answers_the_question_for_it(said: str) -> None:
    asked = llm.ChatMessage(role="assistant", content=["What is your name?"])
    assert _answer([asked, _user(said)], "") == Call("updateUserProfile", {"profile": "Name: Ada"})
    assert not isinstance(_answer([_user("ada")], ""), Call)


@pytest.mark.parametrize(
    "said", ["no", "Hello!", "why?", "not telling you", "I'm fine, thanks", "what's yours", "my cat"]
)
def test_what_is_no_name_is_not_taken_for_one(said: str) -> None:
    asked = llm.ChatMessage(role="assistant", content=["What is your name?"])
    assert not isinstance(_answer([asked, _user(said)], ""), Call)


def test_a_search_that_finds_no_fact_finds_the_profile() -> None:
    found = llm.FunctionCallOutput(
        name="recallFacts", call_id="1", output='{"success":true,"facts":[]}', is_error=False
    )
    profile = "People: my brother moved to Rome"
    assert _answer([_user("Where does my brother live?"), found], profile) == (
        "All I know of that is that your brother moved to Rome."
    )
    assert _answer([_user("Where is my key?"), found], profile) == "I do not remember anything about that."
    assert "OPENAI_API_KEY" in str(_answer([_user("Who is the king of Norway?"), found], profile))


@pytest.mark.parametrize("prompt", [FOLLOW_UP_PROMPT, SUMMARY_PROMPT])
def test_no_secret_and_no_small_talk_is_brought_up(prompt: str) -> None:
    lines = ("My sister visits on Friday", "my password is hunter2", "how are you today", "What is the sky?", "bye")
    context = llm.ChatContext.empty()
    context.add_message(role="system", content=prompt)
    context.add_message(role="user", content="<transcript>\n" + "\n".join(f"user: {line}" for line in lines))
    answered = str(answer(context, set()))
    assert "My sister visits on Friday" in answered
    assert not any(line in answered for line in lines[1:])


def test_another_name_is_asked_about() -> None:
    assert conversation("My name is Ada", "I'm Groot") == (
        "Name: Ada",
        "I know you as Ada: say “call me Groot” if that has changed.",
    )


@pytest.mark.parametrize(
    ("said", "name"), [("Everyone calls me Beth but my name is Eva", "Eva"), ("I'm Ada but call me Addie", "Addie")]
)
def test_of_two_names_the_stored_one_is_said(said: str, name: str) -> None:
    profile, reply = conversation(said)
    assert profile == f"Name: {name}"
    assert reply.startswith(f"Nice to meet you, {name}.")
