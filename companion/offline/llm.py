"""The stand-in model for a machine with no keys: a plain conversation, and the real tools.

It is a real LiveKit LLM: it streams, it calls tools, it reads the instructions and the history it is given. What
it says comes from rules (see ``replies``), not from a model, and it says so.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, Final
from uuid import uuid4

from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, APIConnectOptions, NotGivenOr, llm

from . import replies
from .intent import Call


class OfflineLLM(llm.LLM[Any]):
    """Answers from rules. Needs no network and no key."""

    @property
    def model(self) -> str:
        """The name shown in metrics."""
        return "offline"

    @property
    def provider(self) -> str:
        """The name shown in metrics."""
        return "companion"

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[llm.ToolChoice] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> llm.LLMStream:
        """Answer the conversation so far; see :class:`livekit.agents.llm.LLM`."""
        usable = [] if tool_choice == "none" else tools or []
        return _OfflineStream(self, chat_ctx=chat_ctx, tools=usable, conn_options=conn_options)


PACE: Final = 0.15
"""Seconds of thought before an answer to the user. A voice that answers within a millisecond interrupts, and a
terminal would show the answer before the question."""


class _OfflineStream(llm.LLMStream):
    async def _run(self) -> None:
        names = {tool.info.name for tool in self._tools if isinstance(tool, llm.FunctionTool)}
        last = self._chat_ctx.items[-1] if self._chat_ctx.items else None
        pace = PACE if isinstance(last, llm.ChatMessage) and last.role == "user" and self._tools else 0
        # In a thread: the first answer compiles the rules, which takes as long as the pause.
        answer, _ = await asyncio.gather(asyncio.to_thread(replies.answer, self._chat_ctx, names), asyncio.sleep(pace))
        chunk_id = uuid4().hex
        if isinstance(answer, Call):
            call = llm.FunctionToolCall(
                name=answer.tool, arguments=json.dumps(answer.arguments), call_id=f"call_{chunk_id[:12]}"
            )
            delta = llm.ChoiceDelta(role="assistant", tool_calls=[call])
            self._event_ch.send_nowait(llm.ChatChunk(id=chunk_id, delta=delta))
            return
        for piece in re.findall(r"\S+\s*", answer):
            delta = llm.ChoiceDelta(role="assistant", content=piece)
            self._event_ch.send_nowait(llm.ChatChunk(id=chunk_id, delta=delta))
