"""Whether everybody may hear a recording: it holds no digit, and no word that is known of anybody."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

MAX_CHARACTERS: Final = 400
"""Characters of the longest text that is kept: a phrase, not an answer."""
_WORD: Final = re.compile(r"\w+")
_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]"
)


class KnownWords:
    """The words of a text that is known of a person, or was said by them.

    Args:
        text: the text.
    """

    __slots__ = ("_stems", "_words")

    def __init__(self, text: str) -> None:
        self._words = frozenset(_words(text.casefold()))
        self._stems = _stems(self._words)

    def are_in(self, telling: frozenset[str], stems: frozenset[str]) -> bool:
        """Whether one of them is among the telling words of another text, or among their stems, or the other way."""
        return not (self._stems.isdisjoint(telling) and self._words.isdisjoint(stems))


def is_shareable(text: str, known: Iterable[KnownWords] = ()) -> bool:
    """Whether the speech of a text may be kept for everybody.

    Args:
        text: the text.
        known: what is known of those who hear it, and what they have said: a text with a word of it is theirs.
    """
    if not text.strip() or len(text) > MAX_CHARACTERS or any(one.isnumeric() for one in text):
        return False
    telling = _telling(text)
    stems = _stems(telling)
    return not any(words.are_in(telling, stems) for words in known)


def _telling(text: str) -> frozenset[str]:
    """The words that can tell something: of three letters at least, names of two (Bo), or any beyond Latin."""
    words = [word for word in _words(text) if len(word) > 2 or not word.isascii() or (word[:1].isupper() and word[1:])]
    return frozenset(word.casefold() for word in words)


def _stems(words: frozenset[str]) -> frozenset[str]:
    """The words, and without an ending of one or two letters: Annas is Anna's."""
    return words | {word[:-cut] for word in words for cut in (1, 2) if len(word) - cut > 2}


def _words(text: str) -> list[str]:
    """The words of a text, without accents: Zoe is Zoë. Of scripts without spaces, each pair of letters."""
    plain = unicodedata.normalize("NFKD", text)
    words = _WORD.findall("".join(letter for letter in plain if not unicodedata.combining(letter)))
    return [part for word in words for part in (_pairs(word) if _UNSPACED.search(word) else [word])]


def _pairs(word: str) -> list[str]:
    return [word[at : at + 2] for at in range(len(word) - 1)] or [word]
