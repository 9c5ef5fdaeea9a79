"""What a trial was to show, and did not."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Promises:
    """``broken`` names those that were not kept; empty is what we want."""

    broken: list[str] = field(default_factory=list, kw_only=True)

    def check(self, promise: object, text: str) -> None:
        if not promise:
            self.broken.append(text)
