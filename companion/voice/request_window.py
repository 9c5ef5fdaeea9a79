"""Keeps requests to the model below a token budget: older turns leave the request, and a note stands in for them.

After 200 turns, a request would carry 400 messages: slower and dearer with each turn, until the model refuses it. The
request holds the instructions, the note, and the last turns. The note is made in the background, before the budget is
used up, so that no answer waits for it; what it stands in for leaves all at once, because providers cache a request's
unchanged beginning. The session's own history keeps everything.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Any, Final

from livekit.agents import llm

from cache import BackgroundTasks

from ..prompts import RUNNING_SUMMARY_PROMPT, earlier_turns, running_summary_material, transcript_line
from .model_query import ask
from .provider_errors import describe

logger = logging.getLogger("companion")
MAX_TOKENS: Final = 6000
"""Estimated tokens of the turns in a request. Instructions, tools and the note, which are bounded too, come on top."""
SUMMARISE_AT: Final = 4500
"""Estimated tokens of turns from which the older ones are summarised."""
KEEP_TOKENS: Final = 2500
"""Estimated tokens of turns that stay, at most, when the older ones leave."""
MAX_NOTE: Final = 1500
"""Characters of the note."""
_BYTES_PER_TOKEN: Final = 3  # English has four, Chinese three: an estimate on the high side
_LARGE: Final = 2000  # characters of one item in a note's material
_SHORTENED: Final = (2000, 400, 80)  # characters to which items are shortened if the current turn alone is too large
_NOTE_TIMEOUT: Final = 30.0
_MAX_MATERIAL: Final = 24_000  # characters of turns that are summarised at a time
_SYSTEM: Final = ("system", "developer")


class RequestWindow:
    """The part of one conversation that its requests hold."""

    def __init__(self) -> None:
        self._first = ""
        self._note = ""
        self._background = BackgroundTasks()

    def fit(self, context: llm.ChatContext, model: llm.LLM[Any] | None) -> llm.ChatContext:
        """The context of a request, below the budget.

        Args:
            context: the whole context; it is not changed.
            model: makes the note, in the background; None makes none.

        Returns:
            ``context`` itself if nothing has to leave it.
        """
        head = _instructions(context.items)
        turns = context.items[len(head) :]
        start = next((index for index, item in enumerate(turns) if item.id == self._first), 0)
        if not start:  # what the note stands in for has been erased
            self._note = self._first = ""
        size = sum(map(estimate_tokens, turns[start:]))
        if size > SUMMARISE_AT and (keep := _first_to_keep(turns, start)) > start:
            if model is not None and not len(self._background):
                lines = _lines(turns[start:keep])
                self._background.spawn(self._summarise(model, lines, turns[keep].id), name="request-note")
            if size > MAX_TOKENS:  # the note is late, or could not be made
                start = keep
        kept = _bounded(turns[start:])
        if start == 0 and all(new is old for new, old in zip(kept, turns, strict=True)):
            return context
        note = (
            [llm.ChatMessage(id="earlier_turns", role="system", content=[earlier_turns(self._note)])] if start else []
        )
        return llm.ChatContext([*head, *note, *kept])

    async def close(self) -> None:
        """Stop making a note."""
        await self._background.cancel(timeout=1.0)

    async def _summarise(self, model: llm.LLM[Any], lines: Sequence[str], first: str) -> None:
        material = running_summary_material(self._note, "\n".join(lines))
        try:
            async with asyncio.timeout(_NOTE_TIMEOUT):
                note = " ".join((await ask(model, RUNNING_SUMMARY_PROMPT, material)).split())[:MAX_NOTE]
        except Exception as problem:  # whatever a model's client raises; the next request tries it again
            logger.warning("the older turns of a conversation could not be summarised (%s)", describe(problem))
            return
        if note:
            self._note, self._first = note, first


def estimate_tokens(item: llm.ChatItem) -> int:
    """How many tokens an item has, estimated on the high side."""
    return 4 + len(_text(item).encode(errors="replace")) // _BYTES_PER_TOKEN


def _text(item: llm.ChatItem) -> str:
    if isinstance(item, llm.ChatMessage):
        return item.text_content or ""
    if isinstance(item, llm.FunctionCall):
        return item.name + item.arguments
    return item.output if isinstance(item, llm.FunctionCallOutput) else ""


def _instructions(items: Sequence[llm.ChatItem]) -> list[llm.ChatItem]:
    """The items before the first turn."""
    for index, item in enumerate(items):
        if isinstance(item, llm.FunctionCall) or (isinstance(item, llm.ChatMessage) and item.role not in _SYSTEM):
            return list(items[:index])
    return list(items)


def _first_to_keep(turns: Sequence[llm.ChatItem], start: int) -> int:
    """The index of the first item that stays: a message of the user, so that a tool's call and output stay together."""
    begins = [
        index for index in range(start, len(turns)) if (item := turns[index]).type == "message" and item.role == "user"
    ]
    size = 0
    for index in range(len(turns) - 1, start - 1, -1):
        size += estimate_tokens(turns[index])
        if size > KEEP_TOKENS:
            return next((begin for begin in begins if begin > index), begins[-1] if begins else start)
    return start


def _lines(items: Sequence[llm.ChatItem]) -> list[str]:
    """The turns of the user and the companion among the items."""
    said = [item for item in items if isinstance(item, llm.ChatMessage) and item.role not in _SYSTEM]
    fair = _MAX_MATERIAL // max(1, len(said))
    return [transcript_line(item.role, _text(item)[: min(_LARGE, max(fair, 20))]) for item in said if _text(item)]


def _bounded(items: list[llm.ChatItem]) -> list[llm.ChatItem]:
    """The items, the largest ones shortened if they are too large together."""
    items = list(items)
    size = sum(map(estimate_tokens, items))
    for limit in _SHORTENED:
        for index in sorted(range(len(items)), key=lambda index: -estimate_tokens(items[index])):
            if size <= MAX_TOKENS:
                return items
            before = estimate_tokens(items[index])
            items[index] = _shortened(items[index], limit)
            size += estimate_tokens(items[index]) - before
    return items


def _shortened(item: llm.ChatItem, limit: int) -> llm.ChatItem:
    """A copy of an item with the beginning and the end of its text; an item without much text itself."""
    text = item.arguments if isinstance(item, llm.FunctionCall) else _text(item)
    if len(text) <= limit:
        return item
    half = limit // 2
    text = f"{text[:half]} [...] {text[-half:]}"
    if isinstance(item, llm.ChatMessage):
        return item.model_copy(update={"content": [text]})
    if isinstance(item, llm.FunctionCall):  # providers want JSON
        return item.model_copy(update={"arguments": json.dumps({"shortened": text}, ensure_ascii=False)})
    return item.model_copy(update={"output": text}) if isinstance(item, llm.FunctionCallOutput) else item
