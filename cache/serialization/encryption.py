"""Encryption at rest: a dump, a replica, or the operator of Redis reads no value.

AES-256-GCM. Any change of the stored bytes is detected. The cache key is authenticated with the value, so a value that
was copied to another key, another user's for example, does not decrypt there. Not hidden: names of keys, sizes, times.
Not prevented: replay of an older value under the same key.

Nonces are random. NIST SP 800-38D (section 8.3) limits that to 2**32 encryptions with one key; a fleet that stores
1,000 values a second reaches it after 49 days and has to rotate its key before.

An encrypted value is ``0xFF``, four bytes that identify the key, a nonce of twelve bytes, then the ciphertext with its
tag. Plain values are UTF-8, in which ``0xFF`` never occurs, so the two cannot be confused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..exceptions import UndecodableValue
from .codec import ENCRYPTED

KEY_BYTES: Final = 32
_MARK: Final = bytes([ENCRYPTED])
_HEADER_BYTES: Final = 5  # the mark and the key's id
_NONCE_BYTES: Final = 12


class ValueCipher:
    """Encrypts with the first of its keys, decrypts with any of them.

    Args:
        secrets: at least one key, each of 32 random bytes.

    Raises:
        ValueError: there is no key, or one has another length.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets or any(len(secret) != KEY_BYTES for secret in secrets):
            raise ValueError(f"an encryption key has {KEY_BYTES} bytes")
        self._ciphers = {_key_id(secret): AESGCM(secret) for secret in secrets}
        self._current = _key_id(secrets[0])

    def encrypt(self, key: str, raw: bytes) -> bytes:
        """Encrypt ``raw`` for storage under ``key`` and no other key."""
        nonce = os.urandom(_NONCE_BYTES)
        return _MARK + self._current + nonce + self._ciphers[self._current].encrypt(nonce, raw, key.encode())

    def encrypted(self, start: bytes) -> bool:
        """Whether a stored value that begins with ``start`` was encrypted with one of the keys."""
        return start.startswith(_MARK) and start[1:_HEADER_BYTES] in self._ciphers

    def decrypt(self, key: str, stored: bytes) -> bytes:
        """Decrypt what was encrypted for ``key``.

        Raises:
            UndecodableValue: it was encrypted for another key, with an unknown key, not at all, or was changed.
        """
        if not stored.startswith(_MARK):
            raise UndecodableValue("not encrypted, although CACHE_ENCRYPTION_KEYS is set")
        cipher = self._ciphers.get(stored[1:_HEADER_BYTES])
        if cipher is None:
            raise UndecodableValue("encrypted with a key that CACHE_ENCRYPTION_KEYS does not list")
        body = _HEADER_BYTES + _NONCE_BYTES
        try:
            return cipher.decrypt(stored[_HEADER_BYTES:body], stored[body:], key.encode())
        except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
            raise UndecodableValue("encrypted, then changed, cut short, or moved from another cache key") from None


def _key_id(secret: bytes) -> bytes:
    """Four bytes that identify a key in the values it encrypted, and reveal nothing of it."""
    return sha256(b"companion cache seal\0" + secret).digest()[: _HEADER_BYTES - 1]
