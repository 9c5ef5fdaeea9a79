"""A scripted model whose answers tests can delay."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions, llm


class ScriptedLLM(llm.LLM[Any]):
    """Streams ``says``, after ``gate`` is set; raises ``fails`` if there is one. Records its requests."""

    def __init__(self, says: str = "", *, fails: Exception | None = None) -> None:
        super().__init__()
        self.says = says
        self.fails = fails
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: list[llm.ChatContext] = []

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        **_: Any,
    ) -> llm.LLMStream:
        self.asked.append(chat_ctx)
        return _Stream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _Stream(llm.LLMStream):
    _llm: ScriptedLLM

    async def _run(self) -> None:
        await self._llm.gate.wait()
        if self._llm.fails is not None:
            raise self._llm.fails
        delta = llm.ChoiceDelta(role="assistant", content=self._llm.says)
        self._event_ch.send_nowait(llm.ChatChunk(id=uuid4().hex, delta=delta))
