"""Cases over real sessions: a manipulated model that emits hostile calls, and the offline model with hostile input."""

from __future__ import annotations

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
from tests.isolation.fixture_data import CALLERS, marker
from tests.isolation.hostile.hostile_calls import malformed_call
from tests.isolation.hostile.hostile_texts import hostile_text
from tests.isolation.runner import BATCH, Runner
from tests.tools.conversation import Conversation, PlayedLLM, Userdata, conversation
from tools import CacheTools, ProfileTools


class ManipulatedLLM(PlayedLLM):
    """Emits the call in ``next`` (tool, raw arguments) at the next turn, and "Done." at every other turn."""

    def __init__(self) -> None:
        super().__init__()
        self.next: tuple[str, str] | None = None


class _Stream(llm.LLMStream):
    async def _run(self) -> None:
        delta, model = llm.ChoiceDelta(role="assistant"), self._llm
        assert isinstance(model, ManipulatedLLM)
        if model.next is not None and self._tools:
            (tool, raw), model.next = model.next, None
            delta.tool_calls = [llm.FunctionToolCall(name=tool, arguments=raw, call_id=uuid4().hex)]
        else:
            delta.content = "Done."
        self._event_ch.send_nowait(llm.ChatChunk(id="1", delta=delta))


ManipulatedLLM.stream = _Stream


async def conversations(runner: Runner, rng: Random, count: int) -> int:
    """After any input and any call, the session holds only the caller's data and accepts the next turn."""
    done = 0
    while done < count and not runner.timed_out:
        user, offline = rng.choice(CALLERS), rng.random() < 0.3
        async with runner.acting_as(user), _session(user, OfflineLLM() if offline else ManipulatedLLM()) as talk:
            for _ in range(min(BATCH, count - done)):
                case: object = None
                try:
                    case = await _run_case(talk, user, rng)
                except Exception as problem:
                    runner.record_crash(user, case, problem)
                runner.check_unchanged(user, case)
                done += 1
            items = [str(item.model_dump()) for item in talk.session.history.items]
            runner.check_shown(user, "".join(items) + talk.prompt, "session history")
    return done


async def _run_case(talk: Conversation, user: str, rng: Random) -> object:
    words = hostile_text(marker(user), rng)[:2_000]
    if not isinstance(talk.model, ManipulatedLLM):
        await talk.session.run(user_input=words)
        return words
    call = malformed_call(marker(user), rng)
    talk.model.next = call.tool, call.raw
    await talk.session.run(user_input=words)
    return call


@asynccontextmanager
async def _session(user: str, model: llm.LLM[Any]) -> AsyncIterator[Conversation]:
    caller = Caller(user)
    agent = CompanionAgent(tools=[CacheTools(), ProfileTools()])
    with use_caller(caller), patch.object(companion.offline.llm, "PACE", 0.0):
        async with conversation(agent=agent, model=model, userdata=Userdata(caller)) as talk:
            yield talk
