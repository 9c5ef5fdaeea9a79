"""When two facts are the same."""

import unicodedata
from typing import Final

from ..text import storable

ALIKE: Final = {ord(one): other for one, other in zip("\u0130\u03a3\u03c2", "i\u03c3\u03c3", strict=True)}
"""Letters whose lower case depends on the letters around them, or on the locale: for ``str.translate``."""


def fact_key(text: str) -> str:
    """What facts that are the same have in common: the text without case, width, extra spaces and final punctuation.

    Args:
        text: the fact.

    Returns:
        The key; ``text`` itself where nothing is left of it.
    """
    words = " ".join(_lower(unicodedata.normalize("NFKC", storable(text))).split())
    return words.rstrip(".!?;:, ") or text


def _lower(text: str) -> str:
    """In lower case, as PostgreSQL makes it with any locale provider."""
    return text.lower() if text.isascii() else text.translate(ALIKE).lower()
