"""The preparation of the next opening, beside one conversation: noted at its first turn, done when it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from cache import BackgroundTasks

from ...identity import Caller, use_caller
from ...voice.prepared_speech import PreparedSpeech
from ..parts import Parts
from .next_opening import note_opening, prepare_left_over, prepare_opening
from .prompt import GreetingPrompt

IDLE_AFTER: Final = 5.0
"""Seconds from the greeting until the job looks for what others have left."""
_NOTE_TIMEOUT: Final = 1.0


class Preparation:
    """Prepares the next opening for the caller of one session.

    Args:
        speech: keeps the speech of what is prepared.
        language: finds the code of the language of speech.
        parts: what the memory does, and so what the agent receives.

    Attributes:
        speech: as above.
        prompt: what the session's greeting is written with; None as long as it has not greeted.
    """

    def __init__(
        self, speech: PreparedSpeech, language: Callable[[], str] = lambda: "en", parts: Parts | None = None
    ) -> None:
        self.speech = speech
        self._language, self._parts = language, parts or Parts()
        self.prompt: GreetingPrompt | None = None
        self._noting: asyncio.Task[bool] | None = None
        self._background = BackgroundTasks()

    def note_prompt(self, persona: str, instructions: str) -> GreetingPrompt:
        """Note what the greeting is written with; when the job is idle, prepare with it what killed jobs have left.

        Args:
            persona: the lasting instructions of the agent.
            instructions: how to greet anybody.
        """
        parts, begun = self._parts, self.prompt
        self.prompt = GreetingPrompt(persona, instructions, self._language(), parts.profile, parts.earlier)
        if begun is None:
            self._background.spawn(self._prepare_left_over(self.prompt), name="opening-left-over")
        return self.prompt

    def note(self, caller: Caller) -> None:
        """Note in the store, unless that was done, that the next opening is to be prepared. Returns at once."""
        noting = self._noting
        failed = noting is not None and noting.done() and (noting.cancelled() or not noting.result())
        if (noting is None or failed) and self.prompt is not None:
            with use_caller(caller):
                self._noting = self._background.spawn(note_opening(caller.user_id, self.prompt), name="opening-note")

    async def prepare(self, user_id: str) -> None:
        """Prepare the next opening. To be called in the context of the caller.

        Raises:
            StoreError: the store failed.
        """
        if self._noting is not None:  # or it would replace what is prepared
            await asyncio.wait({self._noting}, timeout=_NOTE_TIMEOUT)
        if self.prompt is not None:
            self.prompt = self.prompt.spoken(self._language())
        await prepare_opening(user_id, self.prompt, self.speech)
        if self.prompt is not None:
            for kind in ("first_meeting", "dropped_call"):  # where the worker's start could not
                if phrase := self.prompt.phrase(kind):
                    await self.speech.prepare(None, phrase)

    async def close(self) -> None:
        """Stop what runs in the background."""
        await self._background.cancel(timeout=_NOTE_TIMEOUT)

    async def _prepare_left_over(self, prompt: GreetingPrompt) -> None:
        await asyncio.sleep(IDLE_AFTER)
        await prepare_left_over(prompt, self.speech)
