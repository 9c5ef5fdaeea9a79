"""Makes what a model is sent and what it answers storable, so that half a character cannot end a conversation.

The framework parses a tool's arguments before the tool is called, and fails on a raw surrogate (``TypeError``, and the
model gets no answer); a client of a model fails on one in anything that was said, at every request from then on.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from livekit.agents import FlushSentinel, llm

from ..text import storable, storable_json

Piece = llm.ChatChunk | str | FlushSentinel


def storable_context(context: llm.ChatContext) -> llm.ChatContext:
    """A context whose texts are storable: ``context`` itself where they are; else a copy, which shares other items."""
    items = [_storable_item(item) for item in context.items]
    same = all(new is old for new, old in zip(items, context.items, strict=True))
    return context if same else llm.ChatContext(items)


async def storable_pieces(pieces: AsyncIterable[Piece]) -> AsyncIterator[Piece]:
    """The pieces of an answer, made storable. A character whose halves are in two pieces comes with the second one."""
    half = ""
    async for piece in pieces:
        text = piece if isinstance(piece, str) else _text_of(piece)
        if text is None:
            yield piece
            continue
        text, half = half + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, half = text[:-1], text[-1]
        yield _with_text(piece, storable(text))
    if half:
        yield storable(half)


def storable_arguments(arguments: str) -> str:
    """A tool call's arguments as the model wrote them, without half characters, neither raw nor in JSON's escapes."""
    arguments = storable(arguments)
    if "\\u" not in arguments:
        return arguments
    try:
        read = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments  # the framework repairs it or refuses it
    mended = storable_json(read)
    return arguments if mended == read else json.dumps(mended, ensure_ascii=False)


def _text_of(piece: llm.ChatChunk | FlushSentinel) -> str | None:
    """The text in a piece that has no more than text; the calls in another one are made storable in place."""
    if not isinstance(piece, llm.ChatChunk) or piece.delta is None:
        return None
    for call in piece.delta.tool_calls:
        call.name, call.arguments = storable(call.name), storable_arguments(call.arguments)
    return piece.delta.content


def _with_text(piece: Piece, text: str) -> Piece:
    if isinstance(piece, str):
        return text
    if isinstance(piece, llm.ChatChunk) and piece.delta is not None:
        piece.delta.content = text
    return piece


def _storable_item(item: llm.ChatItem) -> llm.ChatItem:
    changed: dict[str, Any] = {}
    if isinstance(item, llm.ChatMessage):
        content = [storable(part) if isinstance(part, str) else part for part in item.content]
        changed = {"content": content} if content != item.content else {}
    elif isinstance(item, llm.FunctionCall):
        arguments = storable_arguments(item.arguments)
        changed = {"arguments": arguments} if arguments != item.arguments else {}
    elif isinstance(item, llm.FunctionCallOutput):
        output = storable(item.output)
        changed = {"output": output} if output != item.output else {}
    return item.model_copy(update=changed) if changed else item
