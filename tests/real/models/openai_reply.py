"""Scripted replies of the stand-in model to chat requests, faults included."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Fault = Literal["none", "cut", "malformed", "silent"]

_numbers = itertools.count(1)


def _pieces(text: str, count: int) -> list[str]:
    """`text` in at most `count` pieces of about the same length, none of them empty."""
    size = max(1, -(-len(text) // count))
    return [text[start : start + size] for start in range(0, len(text), size)]


@dataclass(frozen=True)
class ToolCall:
    """One function call of the model. `arguments` is sent as it is, so it may be broken JSON."""

    name: str
    arguments: str
    id: str = field(default_factory=lambda: f"call_{next(_numbers)}")


@dataclass(frozen=True)
class Reply:
    """One scripted answer. Build it with `say`, `call`, `calls` or one of the faults.

    `delay` and `pause` are seconds: before the first byte, and between two pieces of the stream.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    status: int = 200
    fault: Fault = "none"
    delay: float = 0.0
    pause: float = 0.0
    code: str = ""

    @classmethod
    def say(cls, text: str) -> Reply:
        """Plain text, streamed in several pieces."""
        return cls(text=text)

    @classmethod
    def call(cls, name: str, /, **arguments: Any) -> Reply:
        """One tool call, its arguments streamed in several pieces."""
        return cls.calls((name, arguments))

    @classmethod
    def calls(cls, *calls: tuple[str, Mapping[str, Any] | str], text: str = "") -> Reply:
        """Several calls in one answer, each (name, arguments); a string of arguments is sent as it is."""
        return cls(
            text=text,
            tool_calls=tuple(
                ToolCall(name, arguments if isinstance(arguments, str) else json.dumps(dict(arguments)))
                for name, arguments in calls
            ),
        )

    @classmethod
    def error(cls, status: int = 500, reason: str = "", code: str = "") -> Reply:
        """An HTTP error with the body OpenAI sends."""
        return cls(reason, status=status, code=code)

    @classmethod
    def cut(cls, text: str = "") -> Reply:
        """The stream is cut after `text`, without its end marker."""
        return cls(text=text, fault="cut")

    @classmethod
    def malformed(cls, text: str = "") -> Reply:
        """After `text` comes a piece that is not JSON."""
        return cls(text=text, fault="malformed")

    @classmethod
    def silent(cls) -> Reply:
        """The request is never answered, until the caller disconnects or the server stops."""
        return cls(fault="silent")

    def after(self, delay: float) -> Reply:
        """The same answer, its first byte `delay` seconds later."""
        return replace(self, delay=delay)

    def slowly(self, pause: float) -> Reply:
        """The same answer with `pause` seconds between its pieces."""
        return replace(self, pause=pause)

    def deltas(self) -> Iterator[dict[str, Any]]:
        """The pieces a streaming client sees, in order."""
        yield {"role": "assistant", "content": ""}
        for piece in _pieces(self.text, 4):
            yield {"content": piece}
        for index, call in enumerate(self.tool_calls):
            function = {"name": call.name, "arguments": ""}
            yield {"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": function}]}
            for piece in _pieces(call.arguments, 3):
                yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}

    @property
    def finish_reason(self) -> str:
        return "tool_calls" if self.tool_calls else "stop"

    def message(self) -> dict[str, Any]:
        """The whole answer, as a client that does not stream sees it."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in self.tool_calls
            ]
        return message
