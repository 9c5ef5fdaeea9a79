"""The way to the first word, as OpenTelemetry spans: what was waited for, and what was ready by then.

One span ``companion.start`` for each conversation, under LiveKit's own tracer; below it ``companion.context`` (from
the first look-up until everything is known) and ``companion.connect``, and the moments ``job received``, ``lookup
started``, ``connected``, ``context ready``, ``greeting asked`` and ``first token`` as events. No span holds anything
about the person.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from livekit.agents.telemetry import tracer
from opentelemetry import trace as otel

ROOT: Final = "companion.start"


class StartTrace:
    """The trace of one start. Made when the entrypoint begins, ended by the first token or by ``end``."""

    def __init__(self) -> None:
        self._root = tracer.start_span(ROOT)
        self._context = otel.set_span_in_context(self._root)
        self._ended = False
        self.mark("job received")

    def mark(self, moment: str) -> None:
        """Something happened now."""
        if not self._ended:
            self._root.add_event(moment)

    def begin(self, name: str) -> otel.Span:
        """A span below this start; whoever asked for it ends it."""
        return tracer.start_span(f"companion.{name}", context=self._context)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A span for the time of a ``with`` block."""
        span = self.begin(name)
        try:
            yield
        finally:
            span.end()

    def first_token(self) -> None:
        """The model has begun to answer: the start is over."""
        self.mark("first token")
        self.end()

    def end(self) -> None:
        """End the trace, if nothing has yet."""
        if not self._ended:
            self._ended = True
            self._root.end()
