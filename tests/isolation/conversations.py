"""Real sessions: a model that calls whatever it was talked into, and the offline one, told whatever comes to mind."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any
from unittest.mock import patch
from uuid import uuid4

from livekit.agents import llm

import companion.offline.llm
from companion import Caller, use_caller
from companion.offline.llm import OfflineLLM
from companion.voice.agent import CompanionAgent
from tests.isolation.calls import odd_call
from tests.isolation.stage import BATCH, Stage
from tests.isolation.texts import hostile_text
from tests.isolation.town import CALLERS, mark
from tests.tools.conversation import Conversation, PlayedLLM, Userdata, conversation
from tools import CacheTools, ProfileTools


class TalkedRound(PlayedLLM):
    """Calls ``tool`` with ``raw`` at the next turn, and says "Done." at all others."""

    def __init__(self) -> None:
        super().__init__()
        self.next: tuple[str, str] | None = None


class _Stream(llm.LLMStream):
    async def _run(self) -> None:
        delta, model = llm.ChoiceDelta(role="assistant"), self._llm
        assert isinstance(model, TalkedRound)
        if model.next is not None and self._tools:
            (tool, raw), model.next = model.next, None
            delta.tool_calls = [llm.FunctionToolCall(name=tool, arguments=raw, call_id=uuid4().hex)]
        else:
            delta.content = "Done."
        self._event_ch.send_nowait(llm.ChatChunk(id="1", delta=delta))


TalkedRound.stream = _Stream


async def conversations(stage: Stage, draw: Random, count: int) -> int:
    """Whatever is said and called: everything the session then holds is the caller's, and it goes on."""
    done = 0
    while done < count and not stage.over:
        user, offline = draw.choice(CALLERS), draw.random() < 0.3
        async with stage.turn_of(user), _session(user, OfflineLLM() if offline else TalkedRound()) as talk:
            for _ in range(min(BATCH, count - done)):
                case: object = None
                try:
                    case = await _one(talk, user, draw)
                except Exception as problem:
                    stage.crashed(user, case, problem)
                stage.unchanged(user, case)
                done += 1
            items = [str(item.model_dump()) for item in talk.session.history.items]
            stage.shows_nothing(user, "".join(items) + talk.session.current_agent.instructions, "all that was said")
    return done


async def _one(talk: Conversation, user: str, draw: Random) -> object:
    words = hostile_text(mark(user), draw)[:2_000]
    if not isinstance(talk.model, TalkedRound):
        await talk.session.run(user_input=words)
        return words
    call = odd_call(mark(user), draw)
    # Half a character as it is ends the turn within the framework, before any tool is looked for.
    talk.model.next = call.tool, _escaped(call.raw)
    await talk.session.run(user_input=words)
    return call


def _escaped(raw: str) -> str:
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half.group()):04x}", raw)


@asynccontextmanager
async def _session(user: str, model: llm.LLM[Any]) -> AsyncIterator[Conversation]:
    caller = Caller(user)
    agent = CompanionAgent(profile=f"Name: {mark(user)}", tools=[CacheTools(), ProfileTools()])
    with use_caller(caller), patch.object(companion.offline.llm, "PACE", 0.0):
        async with conversation(agent=agent, model=model, userdata=Userdata(caller)) as talk:
            yield talk
