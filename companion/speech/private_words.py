"""What is known of the callers of this process, and what they say: no phrase that a ``CachedTTS`` shares holds it.

It is kept by the process and not by a voice: a voice may be anywhere, inside an adapter or in an agent's own node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Final
from weakref import ref

from livekit.agents import AgentSession, llm

from .shareable import KnownWords

Known = Callable[[], Iterable[KnownWords]]
_known: Final[list[Known]] = []


def keep_private(session: AgentSession[Any], known: Callable[[], str]) -> None:
    """Let no voice share a text with a word that is known of the caller of a session, until it is closed.

    Args:
        session: the session.
        known: returns what is known of the caller at that moment.
    """
    its_session = ref(session, lambda _: _drop(words))
    read: dict[str, KnownWords] = {}

    def words() -> Iterable[KnownWords]:
        nonlocal read
        if (session := its_session()) is not None:
            # The words of a text are found once: a sentence waits for this, and a history is long.
            texts = (known(), *_said(session.history))
            read = {text: read.get(text) or KnownWords(text) for text in texts}
        return read.values()

    _known.append(words)
    session.on("close", lambda _: _drop(words))


def private_words() -> Iterator[KnownWords]:
    """The words of all that is known, and said, at this moment."""
    for known in tuple(_known):
        yield from known()


def _drop(known: Known) -> None:
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
