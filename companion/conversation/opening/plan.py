"""The plan of an opening: what was decided, and what follows from it at the moment of the start.

What depends on the clock is decided at the start: how long ago the last conversation was, whether it was cut off, and
whether it is too old to be picked up. The wording is in no plan: it is rendered each time, so a deploy that changes a
prompt serves no old text.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Final, Literal, get_args

from ... import prompts
from ...relative_time import age_of, ago
from ...store import Context

FRESH_AFTER: Final = timedelta(hours=72)
"""Since the last turn; after it the last conversation is not picked up."""
DROPPED_WITHIN: Final = timedelta(minutes=2)
"""Since the last turn; within it the conversation counts as cut off, and the greeting goes on with it."""

Kind = Literal["first_meeting", "dropped_call", "follow_up", "fresh_start"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How to open.

    Attributes:
        opening: what was decided; never ``dropped_call``, which follows from the clock.
        last_seen: time of the last turn, ISO 8601; empty at a first meeting.
        topic: the thread to pick up, for a follow-up.
        last_words: the last thing the caller said.
        texts: greetings that are prepared, by the kind of opening.
        prompt: the hash of the prompt that they were written with.
        goodbye: whether the person or the companion has said goodbye: then nothing was cut off.
    """

    opening: Kind
    last_seen: str = ""
    topic: str = ""
    last_words: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    prompt: str = ""
    goodbye: bool = False

    @classmethod
    def from_cache(cls, value: Any) -> Plan | None:
        """The plan in a cached value; None for anything else, such as a plan that another version wrote."""
        try:
            plan = cls(**value)
            if plan.last_seen and datetime.fromisoformat(plan.last_seen).tzinfo is None:
                return None
        except (TypeError, ValueError):
            return None
        if not isinstance(plan.texts, dict) or plan.opening not in get_args(Kind) or not isinstance(plan.goodbye, bool):
            return None
        texts = (plan.topic, plan.last_words, plan.prompt, *plan.texts, *plan.texts.values())
        return plan if all(isinstance(text, str) for text in texts) else None

    @classmethod
    def of(cls, context: Context) -> Plan | None:
        """The plan that the store holds, if it is of the current version of what it was made from."""
        opening = context.opening
        if opening is None or opening.version != context.version:
            return None
        return cls.from_cache({**opening.plan, "texts": opening.texts or {}, "prompt": opening.prompt})

    @property
    def kind(self) -> Kind:
        """How to open now."""
        age = age_of(datetime.fromisoformat(self.last_seen)) if self.last_seen else None
        if self.opening == "first_meeting":
            return "first_meeting"
        if age is not None and age < DROPPED_WITHIN and not self.goodbye:
            return "dropped_call"
        too_old = age is not None and age > FRESH_AFTER
        return "follow_up" if self.opening == "follow_up" and not too_old else "fresh_start"

    def text(self, prompt: str) -> str:
        """The greeting that a prompt with this hash has prepared for now; empty where there is none."""
        return self.texts.get(self.kind, "") if prompt and prompt == self.prompt else ""

    def instructions(self, base_instructions: str) -> str:
        """The instructions for the first message: ``base_instructions``, then how to open."""
        opening = self.instructions_for(self.kind, self._ago())
        return f"{base_instructions.rstrip()}\n\n{opening}" if base_instructions.strip() else opening

    def instructions_for(self, kind: Kind, when: str) -> str:
        """The instructions for one kind of opening (``when``: how long ago the last was; empty: unsaid)."""
        if kind == "first_meeting":
            return prompts.FIRST_MEETING
        if kind == "dropped_call":
            return prompts.after_dropped_call(when, self.last_words)
        return prompts.follow_up(when, self.topic) if kind == "follow_up" else prompts.fresh_start(when)

    def _ago(self) -> str:
        return ago(datetime.fromisoformat(self.last_seen)) if self.last_seen else "a while ago"

    def decision(self) -> dict[str, Any]:
        """What the store keeps of the plan itself."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("texts", "prompt")}


FIRST_MEETING: Final = Plan("first_meeting")
