"""The words of a text in any script, as forgetting compares them; ``companion_plain`` of the migration has the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import islice
from typing import Final

from ..text import storable
from .fact_key import ALIKE
from .search_terms import STOP_WORDS

# As in the migration. What separates words is listed, and not what they are made of: a combining mark is part of a word
# (the vowels of Hindi and Thai), which neither Python's \w nor that of a database's locale takes it for.
_SEPARATORS: Final = re.compile(
    "[\x00-/:-@\\[-^`{-\xac\xae-\xbf\xd7\xf7\u037e\u0387\u055a-\u055f\u0589\u058a\u05be\u05c0\u05c3\u05c6\u05f3\u05f4"
    "\u060c\u061b\u061f\u066a-\u066d\u06d4\u0700-\u070d\u0964\u0965\u0970\u0e4f\u0e5a\u0e5b\u0f04-\u0f14\u104a-\u104f"
    "\u1361-\u1368\u166e\u1680\u17d4-\u17d6\u17d8-\u17db\u1800-\u180a\u2000-\u200b\u200e-\u206f\u207a-\u207e\u208a-\u208e"
    "\u20a0-\u20cf\u2190-\u2bff\u2e00-\u2e7f\u3000-\u3003\u3008-\u3020\u3030\u303d-\u303f\u30a0\u30fb\ua92e\ua9c1-\ua9cd"
    "\ufd3e\ufd3f\ufe10-\ufe19\ufe30-\ufe6b\uff01-\uff0f\uff1a-\uff20\uff61-\uff65\ufffd\U0001f000-\U0001faff]+"
)
_ACCENTS: Final = re.compile(
    "[\xad\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u200c\u200d\u20d0-\u20f0\u3099\u309a\ufe00-\ufe0f]"
)
_UNSPACED: Final = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u1950-\u1aaf\u1b00-\u1b7f\u2e80-\uffff\U0001b000-\U0001b2ff\U00020000-\U0003ffff]"
)
_MAX_WORDS: Final = 32
"""Words of a thing."""
_MAX_PART: Final = 12
"""Characters of a word in a script without blanks by which its hash is found within a sentence."""
LOOKED_AT: Final = 10_000
"""Characters of a text in which hashes are looked for."""
_SHORT: Final = 4  # letters below which a word counts as a whole only
# Words that say nothing of what is meant: "Likes: chess" is about chess, and "I like it" about nothing.
_SAY_NOTHING: Final = """
    like love enjoy adore prefer say said tell told know remember think thing
    fact also really lot everything anything something
"""
_SAY_LITTLE: Final = """
    live work name call called favourite favorite much go get use want need person user
"""
_EMPTY: Final = frozenset(_SAY_NOTHING.split())
_GENERIC: Final = _EMPTY | frozenset(_SAY_LITTLE.split())
"""With those that say it where there are no others: "my name"."""


def words_of(text: str) -> list[str]:
    """The words that a text is about: in their stems, without accents, and without generic ones if there are others.

    None where all that is left are words that every turn could have.
    """
    words = [word for word in _words(text) if not _EMPTY.intersection((word, stem(word)))]
    telling = [word for word in words if not _GENERIC.intersection((word, stem(word)))]
    return list(dict.fromkeys(map(stem, telling or words)))


def stems_of(text: str) -> list[str]:
    """The stems of all words of a text that are no stop words: at most 32."""
    return list(dict.fromkeys(map(stem, _words(text))))


def unspaced(text: str) -> bool:
    """Whether a text has letters of a script that puts no blanks between words: a run of them is a sentence."""
    return _UNSPACED.search(text) is not None


def stem(word: str) -> str:
    """The stem of a word, roughly: without accents, and without an ending of the plural or the gerund."""
    word = _ACCENTS.sub("", word)
    if len(word) > _SHORT + 2 and word.endswith("ing"):
        return word[:-3]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def mentions(text: str, words: Sequence[str]) -> bool:
    """Whether a text has at least half of the words (and one); what ``words_of`` makes of a thing to forget."""
    plain = plain_text(text)
    found = sum(re.search(_pattern(word), plain) is not None for word in words)
    return bool(words) and 2 * found >= len(words)


def plain_text(text: str) -> str:
    """A text in lower case, decomposed, without accents, with blanks between its words: as ``companion_plain``."""
    return _ACCENTS.sub("", _spaced(text))


def _spaced(text: str) -> str:
    """A text in lower case, decomposed, with blanks between its words."""
    return _SEPARATORS.sub(" ", unicodedata.normalize("NFKD", storable(text).translate(ALIKE).lower()))


def _words(text: str) -> list[str]:
    """The words that are no stop words, with their accents ("thé" is none)."""
    words = (word for word in _spaced(text).split() if _ACCENTS.sub("", word) and word not in STOP_WORDS)
    return list(islice(dict.fromkeys(words), _MAX_WORDS))


def findable(text: str) -> set[str]:
    """What the word of a thing may be, if the text mentions it: stems, and parts of sentences without blanks."""
    words = set(plain_text(text).split())
    parts = (
        word[start : start + length]
        for word in words
        if unspaced(word)
        for start in range(len(word))
        for length in range(1, _MAX_PART + 1)
    )
    return {*map(stem, words), *parts}


def _pattern(word: str) -> str:
    if unspaced(word):
        return re.escape(word)
    word = re.escape(word)
    return rf"(?<!\S){word}s?(?!\S)" if len(word) < _SHORT else rf"(?<!\S){word}"
