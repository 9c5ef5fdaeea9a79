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
    words = " ".join(unicodedata.normalize("NFKC", storable(text)).lower().split())
    return words.rstrip(".!?;:, ") or text
