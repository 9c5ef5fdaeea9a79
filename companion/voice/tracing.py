"""Traces the start of a conversation, up to the first token or a prepared greeting, as OpenTelemetry spans.

Each conversation has one span ``companion.start``, under LiveKit's own tracer. Its children are ``companion.context``
(the prefetch) and ``companion.connect``; its events ``job received``, ``lookup started``, ``connected``, ``context
ready``, ``greeting asked`` and ``first token``; a prepared greeting has ``greeting said`` instead. No span
holds anything about the caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final

from livekit.agents.telemetry import tracer
from opentelemetry import trace as otel

ROOT: Final = "companion.start"


class StartTrace:
    """The trace of one start, from construction to the first token or :meth:`end`.

    Attributes:
        moments: when each moment was, by ``time.perf_counter``. Spans cannot be read back.
    """

    def __init__(self) -> None:
        self.moments: dict[str, float] = {}
        self._root = tracer.start_span(ROOT)
        self._context = otel.set_span_in_context(self._root)
        self._ended = False
        self.mark("job received")

    def mark(self, moment: str) -> None:
        """Add the event ``moment``, now."""
        if not self._ended:
            self.moments.setdefault(moment, perf_counter())
            self._root.add_event(moment)

    def begin(self, name: str) -> otel.Span:
        """Start the child span ``companion.{name}``; the caller ends it."""
        return tracer.start_span(f"companion.{name}", context=self._context)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The child span ``companion.{name}`` around a ``with`` block."""
        span = self.begin(name)
        try:
            yield
        finally:
            span.end()

    def first_token(self) -> None:
        """Add the event ``first token`` and end the trace."""
        self.mark("first token")
        self.end()

    def end(self) -> None:
        """End the trace, once."""
        if not self._ended:
            self._ended = True
            self._root.end()
