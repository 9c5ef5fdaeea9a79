"""The words of a query that a memory search looks for."""

import re
import unicodedata
from itertools import islice, takewhile

from ..text import storable

_MAX_WORDS = 32
_MAX_WORD_LENGTH = 100
_STEM = 3  # letters that two words of one stem share at least
_ENDING = 3  # letters that they may differ by at the end

# The stop words of PostgreSQL's `english` configuration, so that every store searches for the same words.
_STOP_WORDS = """
    i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her
    hers herself it its itself they them their theirs themselves what which who whom this that these those
    am is are was were be been being have has had having do does did doing a an the and but if or because
    as until while of at by for with about against between into through during before after above below to
    from up down in out on off over under again further then once here there when where why how all any
    both each few more most other some such no nor not only own same so than too very s t can will just
    don should now
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


def shares_word(words: list[str], text: str) -> bool:
    """Whether a text that no store has yet would be found.

    Args:
        words: the words of the query, from ``search_words``.
        text: the text.

    Returns:
        Whether the text has one of the words, without accents, whatever the ending. The stores compare stems.
    """
    own, wanted = ([_without_accents(word) for word in each] for each in (search_words(text), words))
    return any(_alike(one, other) for one in own for other in wanted)


def _without_accents(word: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFKD", word) if not unicodedata.combining(letter))


def _alike(one: str, other: str) -> bool:
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    return one == other or (common >= _STEM and max(len(one), len(other)) - common <= _ENDING)


def search_words(query: str) -> list[str]:
    """Extract the words to search for.

    Args:
        query: the question, as it was asked.

    Returns:
        The words in lower case, without stop words and repetitions: at most 32.
    """
    words = (word.group() for word in re.finditer(r"\w+", unicodedata.normalize("NFC", storable(query)).lower()))
    wanted = (word for word in words if word not in STOP_WORDS and len(word) <= _MAX_WORD_LENGTH)
    return list(islice(dict.fromkeys(wanted), _MAX_WORDS))
