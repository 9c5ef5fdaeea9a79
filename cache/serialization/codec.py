"""Values to bytes and back, lossless, and readable in redis-cli.

A string is stored as it is, so ``GET user:123:profile`` shows the profile. Bytes are stored behind a byte that begins
no text (0xFE). Everything else is JSON. A string that reads as JSON (it begins with ``{``, ``[`` or ``"``, or is
exactly a number or ``true``, ``false``, ``null``) is stored as a JSON string: ``"123"`` does not come back as a number,
and ``INCR`` works on a stored number.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from typing import Any, Final

from ..exceptions import UndecodableValue, UnserialisableValue

ENCRYPTED: Final = 0xFF
"""First byte of an encrypted value (see ``encryption``). No UTF-8 text begins with it, so no plain value does."""
BYTES: Final = 0xFE
"""First byte of a value that is bytes. No UTF-8 text begins with it either."""
NONE: Final = b"null"
"""What None is stored as, and nothing else."""
_BYTES_MARK: Final = bytes([BYTES])
_ERRORS: Final = "surrogatepass"  # lone surrogates come back as they were
_JSON_FIRST: Final = frozenset(bytes([first]) for first in b'{["-0123456789tfn')
# What JSON could mean: it begins as an object, a list or a text, or is a number or a literal as a whole.
_reads_as_json: Final = re.compile(
    rb'[{\["]|(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)\Z'
).match
# json.loads without its wrapper, which costs a third of decoding a short value.
_read_json = json.JSONDecoder().raw_decode
_PLAIN: Final = (int, bool, type(None))


def encode(value: Any) -> bytes:
    """Return the bytes to store for ``value``.

    Args:
        value: bytes, str, int, float, bool, None, list, tuple (comes back as a list) or dict with str keys; lists and
            dicts hold anything of these but bytes.

    Raises:
        UnserialisableValue: another type, NaN or an infinity, a dict key that is not a string, or a cycle.
    """
    if type(value) is bytes:
        return _BYTES_MARK + value
    try:
        if isinstance(value, str):  # a subclass such as Key is stored as its text
            value = str.__str__(value)
            raw = value.encode(errors=_ERRORS)
            return _json(value) if _reads_as_json(raw) else raw
        _check(value, "value")
        return _json(value)
    except RecursionError:
        raise UnserialisableValue("the value is nested too deeply, or contains itself") from None


def decode(raw: bytes) -> Any:
    """Return the value stored as ``raw``.

    Raises:
        UndecodableValue: the bytes are not something that :func:`encode` returns.
    """
    first = raw[:1]
    if first == _BYTES_MARK:
        return raw[1:]
    try:
        text = raw.decode("utf-8", _ERRORS)
        if first not in _JSON_FIRST or not _reads_as_json(raw):  # the set is quicker
            return text
        value, end = _read_json(text)
        return value if end == len(text) else json.loads(text)
    except (ValueError, RecursionError):
        sealed = raw[0] == ENCRYPTED
        why = "encrypted, and CACHE_ENCRYPTION_KEYS is not set" if sealed else "cut short, or written by others"
        raise UndecodableValue(why) from None


def may_be_value(start: bytes, *, whole: bool) -> bool:
    """Whether a stored value that is ``start``, or else begins with it, can be one that :func:`encode` returned."""
    try:
        if whole:
            decode(start)
        elif not start.startswith(_BYTES_MARK):
            codecs.getincrementaldecoder("utf-8")(_ERRORS).decode(start)
    except (UndecodableValue, UnicodeDecodeError):
        return False
    return True


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors=_ERRORS)
    except ValueError:
        raise UnserialisableValue("the value holds an integer with too many digits") from None


def _check(value: Any, where: str) -> None:
    """Reject what JSON would change silently. ``where`` names the part in the error message."""
    kind = type(value)
    if kind is float:
        if not math.isfinite(value):
            raise UnserialisableValue(f"{where} is {value}: NaN and infinities cannot be stored")
    elif kind is list or kind is tuple:
        for index, item in enumerate(value):
            _check(item, f"{where}[{index}]")
    elif kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise UnserialisableValue(
                    f"{where} has a key of type {type(key).__name__}: only string keys come back as they were"
                )
            _check(item, f"{where}[...]")
    elif not (isinstance(value, str) or kind in _PLAIN):
        raise UnserialisableValue(
            f"{where} is a {kind.__name__}: str, int, float, bool, None, list and dict can be stored, and bytes alone"
        )
