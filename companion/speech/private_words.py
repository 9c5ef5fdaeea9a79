"""What is known of the callers of this process, and what they say: no phrase that a ``CachedTTS`` shares holds it.

It is kept by the process and not by a voice: a voice may be anywhere, inside an adapter or in an agent's own node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final
from weakref import ref

from livekit.agents import AgentSession, llm

_known: Final[list[Callable[[], str | None]]] = []


def keep_private(session: AgentSession[Any], known: Callable[[], str]) -> None:
    """Let no voice share a text with a word that is known of the caller of a session, until it is closed.

    Args:
        session: the session.
        known: returns what is known of the caller at that moment.
    """
    its_session = ref(session, lambda _: _drop(words))

    def words() -> str | None:
        session = its_session()
        return None if session is None else "\n".join([known(), *_said(session.history)])

    keep_out(words)
    session.on("close", lambda _: _drop(words))


def keep_out(known: Callable[[], str | None]) -> None:
    """Let no voice share a text with a word of what ``known`` returns; it is asked until it returns None."""
    _known.append(known)


def private_words() -> str:
    """All that is known, and said, at this moment."""
    found = []
    for known in tuple(_known):
        if (words := known()) is not None:
            found.append(words)
        else:
            _drop(known)
    return "\n".join(found)


def _drop(known: Callable[[], str | None]) -> None:
    with suppress(ValueError):  # it is removed already
        _known.remove(known)


def _said(history: llm.ChatContext) -> Iterator[str]:
    """What the caller said, and what tools were asked and found for them."""
    for item in history.items:
        if isinstance(item, llm.ChatMessage) and item.role == "user":
            yield item.text_content or ""
        elif isinstance(item, llm.FunctionCall):
            yield item.arguments
        elif isinstance(item, llm.FunctionCallOutput):
            yield item.output
