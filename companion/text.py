"""Makes text storable: the one function that every text passes on its way into a prompt, a store or a log line.

A lone surrogate is half a character: JSON can spell it and Python can hold it, but UTF-8 cannot encode it, and so no
database, no client of a model and no log file takes it. It comes from models that cut an emoji, and from any JSON text.
"""

from __future__ import annotations

import re
from typing import Any, Final

# PostgreSQL refuses NUL in text. A pair of surrogates is a character that was put together from two pieces of JSON.
_UNSTORABLE: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]|[\x00\ud800-\udfff]")
_REPLACEMENT: Final = "\ufffd"


def storable(text: str) -> str:
    """Make a text storable anywhere.

    NUL and lone surrogates become U+FFFD, a pair of surrogates becomes its character; nothing else changes.
    """
    return text if _is_storable(text) else _UNSTORABLE.sub(_mended, text)


def _is_storable(text: str) -> bool:
    # Much faster than the expression, and almost every text is.
    if "\x00" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def storable_json(value: Any) -> Any:
    """A JSON value whose texts are storable, the keys of its objects included; tuples become lists.

    Raises:
        TypeError: the key of an object is not a string: ``json`` would make it one, and two could become the same.
        RecursionError: it is nested hundreds deep, or contains itself.
    """
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list | tuple):
        return [storable_json(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("the keys of a JSON object are strings")
        return {storable(key): storable_json(item) for key, item in value.items()}
    return value


def _mended(found: re.Match[str]) -> str:
    high, *low = map(ord, found.group())
    return chr(0x10000 + ((high - 0xD800) << 10) + (low[0] - 0xDC00)) if low else _REPLACEMENT
