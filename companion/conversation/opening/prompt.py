"""The prompt of a greeting, and the hash that says whether a prepared text was written with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256

from ... import phrases, prompts


@dataclass(frozen=True, slots=True)
class GreetingPrompt:
    """What a greeting is written with, beside what is known of the caller.

    Attributes:
        persona: the instructions of the agent that greets, without what changes with the clock.
        instructions: how it is to greet anybody.
        language: the code of its language.
        profile: whether the agent receives the profile.
        earlier: whether it receives earlier conversations.
    """

    persona: str
    instructions: str
    language: str
    profile: bool = True
    earlier: bool = True

    def phrase(self, kind: str) -> str:
        """What the companion says first to everybody in this kind of opening; empty where the model greets.

        Other agents, and programs that greet in another way, have no phrases: who speaks, and how, is theirs.
        """
        if (self.persona, self.instructions) != (prompts.persona(self.language), prompts.GREETING):
            return ""
        if kind == "first_meeting":
            return phrases.first_meeting(self.language)
        return phrases.dropped_call(self.language) if kind == "dropped_call" else ""

    def spoken(self, language: str) -> GreetingPrompt:
        """This prompt as it will be in another language, which the caller may have asked for since."""
        if language == self.language or self.persona != prompts.persona(self.language):
            return self
        return replace(self, persona=prompts.persona(language), language=language)

    @property
    def hash(self) -> str:
        """Equal where everything is equal that a text is written with: also the wording of this version."""
        wording = (prompts.PREPARED, prompts.follow_up("", ""), prompts.fresh_start(""), prompts.remembered("", ""))
        received = f"{self.profile} {self.earlier}"
        parts = (self.persona, self.instructions, self.language, received, *wording)
        return sha256("\0".join(sha256(part.encode()).hexdigest() for part in parts).encode()).hexdigest()[:32]
