"""The offline voice, by what people say: what is stored, what is not, and what it answers."""

from __future__ import annotations

import json
import re
from typing import Final

import pytest
from livekit.agents import llm

from companion.offline.intent import Call
from companion.offline.replies import answer
from companion.prompts import instructions, remembered

from .sayings import PLAIN

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
    "time": r"It is \d\d:\d\d\.$",
    "date": r"It is \w+day, \d+ \w+ \d{4}\.$",
    "well": "I am well",
    "self": "I am the offline voice",
    "thanks": "You are welcome",
    "goodbye": "Goodbye",
    "hello": "Hello",
}


def conversation(*said: str, profile: str = "") -> tuple[str, str]:
    """What the profile has after these turns, and the last answer; the name of a tool that was called instead of it."""
    turns: list[llm.ChatItem] = []
    reply: str | Call = ""
    for words in said:
        turns.append(llm.ChatMessage(role="user", content=[words]))
        reply = _answer(turns, profile)
        if isinstance(reply, Call) and reply.tool == "updateUserProfile":
            profile = reply.arguments["profile"]
            output = json.dumps({"success": True, "profile": profile})
            turns.append(llm.FunctionCallOutput(name=reply.tool, call_id="1", output=output, is_error=False))
            reply = _answer(turns, profile)
        turns.append(llm.ChatMessage(role="assistant", content=[str(reply)]))
    return profile, reply.tool if isinstance(reply, Call) else reply


def _answer(turns: list[llm.ChatItem], profile: str) -> str | Call:
    context = llm.ChatContext.empty()
    context.add_message(role="system", content=instructions())
    context.add_message(role="system", content=remembered(profile))
    return answer(llm.ChatContext([*context.items, *turns]), TOOLS)


@pytest.mark.parametrize(("said", "stored", "kind"), PLAIN)
def test_what_is_said_once(said: str, stored: tuple[str, ...], kind: str) -> None:
    profile, reply = conversation(said)
    assert tuple(profile.splitlines()) == stored
    assert reply == kind or re.match(KINDS.get(kind, "$."), reply), reply


@pytest.mark.parametrize(("said", "stored", "kind"), [saying for saying in PLAIN if saying[1]])
def test_the_same_thing_is_stored_once(said: str, stored: tuple[str, ...], kind: str) -> None:
    profile, reply = conversation(said, said.upper().rstrip(".") + "!", said.lower().rstrip("."), said)
    assert tuple(profile.splitlines()) == stored
    assert reply.startswith(KINDS["known"])
