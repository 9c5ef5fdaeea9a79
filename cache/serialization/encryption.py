"""Encryption at rest: values sealed before Redis sees them, so a dump, a replica or whoever runs Redis reads nothing.

AES-256-GCM: whoever changes a single bit is found out. The cache key is authenticated with the value, so a value
copied to another key, another user's say, does not open there. What is not hidden: the keys' names, sizes, times.
What is not prevented: an older value of the same key put back.

A sealed value is ``0xFF``, four bytes that name the secret, a random nonce of twelve, then the ciphertext with its tag.
Plain values are UTF-8, in which ``0xFF`` never occurs, so neither is ever taken for the other.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..exceptions import UndecodableValue
from .codec import SEALED

SECRET_BYTES: Final = 32
_MARK: Final = bytes([SEALED])
_NAMED: Final = 5  # bytes of the mark and the secret's name
_NONCE: Final = 12


class ValueCipher:
    """Seals with the first of its secrets, opens with any of them.

    Args:
        secrets: at least one, each of 32 random bytes.

    Raises:
        ValueError: there is none, or one has another length.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets or any(len(secret) != SECRET_BYTES for secret in secrets):
            raise ValueError(f"an encryption key has {SECRET_BYTES} bytes")
        self._ciphers = {_name(secret): AESGCM(secret) for secret in secrets}
        self._first = _name(secrets[0])

    def seal(self, key: str, raw: bytes) -> bytes:
        """``raw``, to be kept under ``key`` and nowhere else."""
        nonce = os.urandom(_NONCE)
        return _MARK + self._first + nonce + self._ciphers[self._first].encrypt(nonce, raw, key.encode())

    def open(self, key: str, sealed: bytes) -> bytes:
        """What was sealed for ``key``.

        Raises:
            UndecodableValue: it was not, or not with a secret that is known here.
        """
        if not sealed.startswith(_MARK):
            raise UndecodableValue("not encrypted, although CACHE_ENCRYPTION_KEYS is set")
        cipher = self._ciphers.get(sealed[1:_NAMED])
        if cipher is None:
            raise UndecodableValue("encrypted with a key that CACHE_ENCRYPTION_KEYS does not list")
        body = _NAMED + _NONCE
        try:
            return cipher.decrypt(sealed[_NAMED:body], sealed[body:], key.encode())
        except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
            raise UndecodableValue("encrypted, then changed, cut short, or moved from another cache key") from None


def _name(secret: bytes) -> bytes:
    """Four bytes by which a value says what it was sealed with. They tell nothing of the secret itself."""
    return sha256(b"companion cache seal\0" + secret).digest()[: _NAMED - 1]
