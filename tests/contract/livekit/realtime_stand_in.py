"""A speech-to-speech model that says nothing, and records its instructions."""

from __future__ import annotations

import asyncio
from typing import Any

from livekit.agents import llm


class SilentRealtime(llm.RealtimeModel):
    """``prompts`` holds the instructions of its ``sessions``, in order."""

    def __init__(self, *, mutable: bool = True) -> None:
        super().__init__(
            capabilities=llm.RealtimeCapabilities(
                message_truncation=False,
                turn_detection=True,
                user_transcription=True,
                auto_tool_reply_generation=False,
                audio_output=False,
                manual_function_calls=True,
                mutable_chat_context=True,
                mutable_instructions=mutable,
                mutable_tools=True,
            )
        )
        self.prompts: list[str] = []
        self.asked: list[Any] = []
        self.sessions: list[llm.RealtimeSession[Any]] = []

    def session(self, *, turn_detection_disabled: bool = False) -> llm.RealtimeSession[Any]:
        """A session that keeps what it gets."""
        self.sessions.append(_Session(self))
        return self.sessions[-1]

    async def aclose(self) -> None:
        """Nothing is open."""


class _Session(llm.RealtimeSession[Any]):
    _realtime_model: SilentRealtime

    def __init__(self, model: SilentRealtime) -> None:
        super().__init__(model)
        self._context, self._tools = llm.ChatContext.empty(), llm.ToolContext.empty()

    @property
    def chat_ctx(self) -> llm.ChatContext:
        return self._context

    @property
    def tools(self) -> llm.ToolContext:
        return self._tools

    async def update_instructions(self, instructions: str) -> None:
        self._realtime_model.prompts.append(instructions)

    async def update_chat_ctx(self, chat_ctx: llm.ChatContext) -> None:
        self._context = chat_ctx

    async def update_tools(self, tools: list[llm.Tool]) -> None:
        self._tools = llm.ToolContext(tools)

    def generate_reply(self, *, instructions: Any = None, **_: Any) -> asyncio.Future[Any]:
        self._realtime_model.asked.append(instructions)
        answer: asyncio.Future[Any] = asyncio.Future()
        answer.set_exception(llm.RealtimeError("it says nothing"))
        return answer

    def update_options(self, **_: Any) -> None: ...
    def push_audio(self, frame: Any) -> None: ...
    def push_video(self, frame: Any) -> None: ...
    def commit_audio(self) -> None: ...
    def clear_audio(self) -> None: ...
    def interrupt(self) -> None: ...
    def truncate(self, **_: Any) -> None: ...

    async def aclose(self) -> None: ...
