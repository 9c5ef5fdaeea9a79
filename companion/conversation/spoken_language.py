"""The language of one conversation, which the program's models follow."""

from __future__ import annotations

from collections.abc import Callable


class SpokenLanguage:
    """The language of one conversation.

    Args:
        usual: its code where that of the caller is not known.

    Attributes:
        code: its code now.
    """

    def __init__(self, usual: str) -> None:
        self.code = self._usual = usual
        self._speak: Callable[[str], None] | None = None

    def on_change(self, speak: Callable[[str], None]) -> None:
        """Call ``speak`` with the code, now and when it changes."""
        self._speak = speak
        speak(self.code)

    def follow(self, own: str) -> None:
        """Take the caller's own language; empty where it is not known."""
        if (code := own or self._usual) != self.code:
            self.code = code
            if self._speak is not None:
                self._speak(code)
