"""A model that repeats what it was shown: whatever reaches it of somebody else is heard, stored and cached."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from livekit.agents import llm

from companion import current_caller
from companion.prompts import FOLLOW_UP_PROMPT
from tests.isolation.ear import MARK
from tests.tools.conversation import PlayedLLM

_MARKS: Final = re.compile(rf"{MARK}\d\dq")


def marks(text: str) -> set[str]:
    """The words in it by which people are known."""
    return set(_MARKS.findall(text))


@dataclass(frozen=True)
class Asked:
    """One request to the model: in whose name, and all that stood in it."""

    user_id: str | None
    text: str


class Echo(PlayedLLM):
    """Told ``CALL {"tool": {arguments}, ...}`` it calls these tools, all at once; at everything else it says by which
    words people are known in it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Asked] = []

    def emit(self, *_: Any) -> None:
        """Nothing. Every session in the loop would be told of every request of all the others."""

    def notice(self, chat_ctx: llm.ChatContext, tools: list[Any]) -> None:
        caller = current_caller()
        self.asked.append(Asked(caller and caller.user_id, str([item.model_dump() for item in chat_ctx.items])))


class _EchoStream(llm.LLMStream):
    async def _run(self) -> None:
        delta, last = llm.ChoiceDelta(role="assistant"), self._chat_ctx.items[-1]
        known = " ".join(sorted(marks(str([item.model_dump() for item in self._chat_ctx.items]))))
        told = last.text_content or "" if isinstance(last, llm.ChatMessage) and last.role == "user" else ""
        if told.startswith("CALL "):
            delta.tool_calls = [
                llm.FunctionToolCall(name=name, arguments=json.dumps(arguments), call_id=uuid4().hex)
                for name, arguments in json.loads(told.removeprefix("CALL ")).items()
            ]
        elif any(FOLLOW_UP_PROMPT in (message.text_content or "") for message in self._chat_ctx.messages()):
            delta.content = json.dumps({"follow_up": True, "confidence": 0.9, "topic": f"topic of {known}"})
        else:
            delta.content = f"I know {known}."
        self._event_ch.send_nowait(llm.ChatChunk(id="1", delta=delta))


Echo.stream = _EchoStream
