"""Hash slots of a Redis cluster: which one a key belongs to, and tags that put a key where it has to be."""

from __future__ import annotations

from binascii import crc_hqx
from typing import Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

SLOTS: Final = REDIS_CLUSTER_HASH_SLOTS
_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_PAIRS: Final = [first + second for first in _ALPHABET for second in _ALPHABET]
# CRC16 is linear: that of four letters is that of the first two and two zeros, exclusive or that of the last two.
_LAST_TWO: Final = {crc_hqx(pair.encode(), 0) % SLOTS: pair for pair in reversed(_PAIRS)}


def hash_slot(key: str | bytes) -> int:
    """The slot of a key."""
    return key_slot(key.encode(errors="surrogateescape") if isinstance(key, str) else key)


def tag_of_slot(slot: int) -> str:
    """A hash tag of four letters in this slot."""
    halves = ((pair, crc_hqx(pair.encode() + b"\0\0", 0) % SLOTS ^ slot) for pair in _PAIRS)
    return next(pair + _LAST_TWO[rest] for pair, rest in halves if rest in _LAST_TWO)
