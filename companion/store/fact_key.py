"""When two facts are the same."""

import unicodedata

from ..text import storable


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
    """In lower case, letter by letter as PostgreSQL does it: a sigma at the end of a word is like any other."""
    return text.lower() if text.isascii() else "".join(map(str.lower, text.replace("\u0130", "i")))
