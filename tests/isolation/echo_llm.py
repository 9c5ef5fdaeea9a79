"""A model that echoes the user markers in its prompt, so that leaked ones are spoken, stored and cached."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from livekit.agents import llm

from companion import current_caller
from companion.prompts import FOLLOW_UP_PROMPT
from tests.isolation.log_capture import MARKER
from tests.tools.conversation import PlayedLLM

_MARKERS: Final = re.compile(rf"{MARKER}\d\dq")


def markers(text: str) -> set[str]:
    """The user markers in ``text``."""
    return set(_MARKERS.findall(text))


@dataclass(frozen=True)
class Request:
    """One request to the model: the caller in context and the full prompt."""

    user_id: str | None
    text: str


class EchoLLM(PlayedLLM):
    """Answers ``CALL {"tool": {arguments}, ...}`` with these tool calls, all in one turn; anything else with the user
    markers found in the prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []

    def emit(self, *_: Any) -> None:
        """Suppress metrics events: every session in the loop would receive the requests of all others."""

    def notice(self, chat_ctx: llm.ChatContext, tools: list[Any]) -> None:
        caller = current_caller()
        self.requests.append(Request(caller and caller.user_id, str([item.model_dump() for item in chat_ctx.items])))


class _EchoStream(llm.LLMStream):
    async def _run(self) -> None:
        delta, last = llm.ChoiceDelta(role="assistant"), self._chat_ctx.items[-1]
        known = " ".join(sorted(markers(str([item.model_dump() for item in self._chat_ctx.items]))))
        prompt = last.text_content or "" if isinstance(last, llm.ChatMessage) and last.role == "user" else ""
        if prompt.startswith("CALL "):
            delta.tool_calls = [
                llm.FunctionToolCall(name=name, arguments=json.dumps(arguments), call_id=uuid4().hex)
                for name, arguments in json.loads(prompt.removeprefix("CALL ")).items()
            ]
        elif any(FOLLOW_UP_PROMPT in (message.text_content or "") for message in self._chat_ctx.messages()):
            delta.content = json.dumps({"follow_up": True, "confidence": 0.9, "topic": f"topic of {known}"})
        else:
            delta.content = f"I know {known}."
        self._event_ch.send_nowait(llm.ChatChunk(id="1", delta=delta))


EchoLLM.stream = _EchoStream
