"""Base of results that collect violated invariants."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Checks:
    """``violations`` names the invariants that did not hold; it is empty on success."""

    violations: list[str] = field(default_factory=list, kw_only=True)

    def check(self, condition: object, violation: str) -> None:
        if not condition:
            self.violations.append(violation)
