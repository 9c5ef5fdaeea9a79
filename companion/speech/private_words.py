"""Keeps what is known of a caller, and what they say, out of the phrases that a ``CachedTTS`` shares."""

from __future__ import annotations

from asyncio import Event
from collections.abc import Callable, Iterator
from typing import Any
from weakref import ref

from livekit.agents import AgentSession, ConversationItemAddedEvent, llm

from .cached_tts import CachedTTS


def keep_private(session: AgentSession[Any], known: Callable[[], str]) -> None:
    """Let the voices of a session, and of its agents, share no text with a word that is known of its caller.

    Args:
        session: the session.
        known: returns what is known of the caller at that moment.
    """
    its_session, closed = ref(session), Event()

    def words() -> str | None:
        session = None if closed.is_set() else its_session()
        return None if session is None else "\n".join([known(), *_said(session.history)])

    def keep_out_of(voice: object) -> None:
        if isinstance(voice, CachedTTS):
            voice.keep_out(words)

    def on_item(event: ConversationItemAddedEvent) -> None:
        if isinstance(event.item, llm.AgentHandoff) and (session := its_session()) is not None:
            keep_out_of(session.current_agent.tts)

    keep_out_of(session.tts)
    session.on("conversation_item_added", on_item)
    session.on("close", lambda _: closed.set())


def _said(history: llm.ChatContext) -> Iterator[str]:
    """What the caller said, and what tools were asked and found for them."""
    for item in history.items:
        if isinstance(item, llm.ChatMessage) and item.role == "user":
            yield item.text_content or ""
        elif isinstance(item, llm.FunctionCall):
            yield item.arguments
        elif isinstance(item, llm.FunctionCallOutput):
            yield item.output
