"""Values to bytes and back, lossless, and readable in redis-cli.

A string is stored as it is, so ``GET user:123:profile`` shows the profile. Bytes are stored behind a byte that begins
no text (0xFE). Everything else is JSON. A string that reads as JSON (it begins with ``{``, ``[`` or ``"``, or is
exactly a number or ``true``, ``false``, ``null``) is stored as a JSON string: ``"123"`` does not come back as a number,
and ``INCR`` works on a stored number.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Any, Final

from ..exceptions import UndecodableValue, UnserialisableValue

ENCRYPTED: Final = 0xFF
"""First byte of an encrypted value (see ``encryption``). No UTF-8 text begins with it, so no plain value does."""
BYTES: Final = 0xFE
"""First byte of a value that is bytes. No UTF-8 text begins with it either."""
NONE: Final = b"null"
"""What None is stored as, and nothing else."""
_JSON_STARTS = b'{["'
_BYTES_MARK: Final = bytes([BYTES])
_LITERAL_STARTS = frozenset(b"-0123456789tfn")
_LITERAL = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")
# json.loads without its wrapper, which costs a third of decoding a short value.
_read_json = json.JSONDecoder().raw_decode
_SURROGATE_PAIR: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_PLAIN = (str, int, float, bool, type(None))


def encode(value: Any) -> bytes:
    """Return the bytes to store for ``value``.

    Args:
        value: bytes, str, int, float, bool, None, list, tuple (comes back as a list) or dict with str keys; lists and
            dicts hold anything of these but bytes.

    Raises:
        UnserialisableValue: another type, NaN or an infinity, a dict key that is not a string, a cycle, or a surrogate
            pair in place of the character it encodes.
    """
    if isinstance(value, str):  # a subclass such as Key is stored as its text
        return _encode_text(str.__str__(value))
    if type(value) is bytes:
        return _BYTES_MARK + value
    try:
        _check(value, "value")
        return _dump(value)
    except RecursionError:
        raise UnserialisableValue("the value is nested too deeply, or contains itself") from None


def decode(raw: bytes) -> Any:
    """Return the value stored as ``raw``.

    Raises:
        UndecodableValue: the bytes are not something that :func:`encode` returns.
    """
    if not raw:
        return ""
    first = raw[0]
    if first == BYTES:
        return raw[1:]
    try:
        text = raw.decode()
        if first in _JSON_STARTS or (first in _LITERAL_STARTS and _LITERAL.fullmatch(raw)):
            value, end = _read_json(text)
            return value if end == len(text) else json.loads(text)
    except (ValueError, RecursionError):
        raise UndecodableValue(
            "encrypted, and CACHE_ENCRYPTION_KEYS is not set"
            if first == ENCRYPTED
            else "cut short, or written by others"
        ) from None
    return text


def may_be_value(start: bytes, *, whole: bool) -> bool:
    """Whether a stored value that is ``start``, or else begins with it, can be one that :func:`encode` returned."""
    try:
        if whole:
            decode(start)
        elif not start.startswith(_BYTES_MARK):
            codecs.getincrementaldecoder("utf-8")().decode(start)
    except (UndecodableValue, UnicodeDecodeError):
        return False
    return True


def _encode_text(text: str) -> bytes:
    try:
        raw = text.encode()
    except UnicodeEncodeError:  # lone surrogates: only JSON's escapes can carry them
        return _escaped(text)
    if raw and (raw[0] in _JSON_STARTS or (raw[0] in _LITERAL_STARTS and _LITERAL.fullmatch(raw))):
        return _dump(text)
    return raw


def _dump(value: Any) -> bytes:
    try:
        try:
            return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except UnicodeEncodeError:
            return _escaped(value)
    except UnserialisableValue:
        raise
    except ValueError as problem:
        reason = "is an integer with too many digits" if "digits" in str(problem) else "contains itself"
        raise UnserialisableValue(f"the value {reason}") from None


def _escaped(value: Any) -> bytes:
    """JSON with every character beyond ASCII escaped, which carries lone surrogates too."""
    _reject_surrogate_pairs(value)
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _reject_surrogate_pairs(value: Any) -> None:
    """Reject a surrogate pair: JSON would return it as the one character it encodes."""
    if isinstance(value, str):
        if _SURROGATE_PAIR.search(value):
            raise UnserialisableValue("a text holds the two halves of a character (surrogates) instead of it")
    elif isinstance(value, dict):
        for pair in value.items():
            _reject_surrogate_pairs(pair)
    elif isinstance(value, list | tuple):
        for item in value:
            _reject_surrogate_pairs(item)


def _check(value: Any, where: str) -> None:
    """Reject what JSON would change silently. ``where`` names the part in the error message."""
    kind = type(value)
    if kind is float:
        if value != value or value in (float("inf"), float("-inf")):
            raise UnserialisableValue(f"{where} is {value}: NaN and infinities cannot be stored")
    elif kind in _PLAIN:
        return
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
    elif isinstance(value, str):
        return
    else:
        raise UnserialisableValue(
            f"{where} is a {kind.__name__}: str, int, float, bool, None, list and dict can be stored, and bytes alone"
        )
