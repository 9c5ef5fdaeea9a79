"""Whether everybody may hear a recording: it holds no digit, and no word that is known of anybody."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MAX_CHARACTERS: Final = 400
"""Of a text that is kept: a phrase, not an answer."""
_WORD: Final = re.compile(r"\w+")


def is_shareable(text: str, known: str = "") -> bool:
    """Whether the speech of a text may be kept for everybody.

    Args:
        text: the text.
        known: what is known of those who hear it, and what they have said: a text with a word of it is theirs.
    """
    if not text.strip() or len(text) > MAX_CHARACTERS or any(one.isnumeric() for one in text):
        return False
    return _words(text).isdisjoint(_words(known))


def _words(text: str) -> set[str]:
    """The words of a text that can tell something: of three characters at least, or of any length beyond Latin."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return {word for word in words if len(word) > 2 or not word.isascii()}
