"""The one way from a value to the bytes that Redis keeps, and back: codec, size limit, encryption."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ..exceptions import UndecodableValue, ValueTooLarge
from . import codec

if TYPE_CHECKING:
    from .encryption import ValueCipher

_PERSONAL: Final = "user:"
_COUNTER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")


class Serializer:
    """Turns values into stored bytes and stored bytes into values.

    Each way has two steps (``encode`` and :meth:`seal`, :meth:`open` and ``decode``), because the near cache and a load
    that several callers await keep what lies between them: plain bytes, decoded anew for each caller.

    Args:
        max_bytes: larger values are neither stored nor returned; counted before encryption.
        secrets: encrypt what Redis keeps (see ``ValueCipher``); with none, values stay readable.
    """

    encode = staticmethod(codec.encode)
    decode = staticmethod(codec.decode)

    def __init__(self, max_bytes: int, secrets: Sequence[bytes]) -> None:
        self.max_bytes = max_bytes
        self._cipher: ValueCipher | None = None
        if secrets:
            from .encryption import ValueCipher  # needs the cryptography package, which is optional

            self._cipher = ValueCipher(secrets)

    def seal(self, key: str, plain: bytes) -> bytes:
        """Return the bytes to store under ``key`` for an encoded value.

        Raises:
            ValueTooLarge: it is larger than ``max_bytes``.
        """
        if len(plain) > self.max_bytes:
            raise ValueTooLarge(
                f"the value has {len(plain)} bytes; at most {self.max_bytes} are cached (CACHE_MAX_VALUE_BYTES)"
            )
        return plain if self._cipher is None else self._cipher.encrypt(key, plain)

    def open(self, key: str, raw: bytes) -> bytes:
        """Decrypt what is stored under ``key``, unless it is a counter, and check its size.

        Raises:
            UndecodableValue: it cannot be decrypted, or is larger than this layer stores.
        """
        if self._cipher is not None and not (self.may_count(key) and _COUNTER.fullmatch(raw)):
            raw = self._cipher.decrypt(key, raw)
        if len(raw) > self.max_bytes:
            raise UndecodableValue("larger than CACHE_MAX_VALUE_BYTES")
        return raw

    def may_count(self, key: str) -> bool:
        """Whether ``key`` may hold a counter, which Redis can only add to if it is not encrypted."""
        return self._cipher is None or not key.startswith(_PERSONAL)

    def may_be_value(self, start: bytes, *, whole: bool) -> bool:
        """Whether a stored value that is ``start``, or else begins with it, may be one of this fleet."""
        if self._cipher is not None and self._cipher.encrypted(start):
            return True
        return codec.may_be_value(start, whole=whole)  # also where it is to be encrypted from now on
