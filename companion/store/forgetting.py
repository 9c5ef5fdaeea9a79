"""Forgetting one thing: what a store removes, and the record that keeps late writes from bringing it back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Protocol
from uuid import uuid4

from ..profile_lines import lines_of, text_of
from .fact_key import fact_key
from .word_stems import LOOKED_AT, findable

_SEPARATOR: Final = "$"  # between the salt and the hash in the key of a tombstone


@dataclass(frozen=True, slots=True)
class Thing:
    """A thing to forget.

    Attributes:
        text: the line of the profile, or the fact; facts that are the same (``fact_key``) are meant too.
        words: what it is about, see ``words_of``: a turn or a summary that mentions it is meant too.
    """

    text: str
    words: Sequence[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Removed:
    """What a store has removed.

    Attributes:
        lines: lines of the profile.
        facts: facts.
    """

    lines: Sequence[str]
    facts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is left of a forgotten thing: hashes, by which a late write of it is recognised.

    Attributes:
        key: a random salt, and the hash of the thing's ``fact_key`` with it: as true when its user has another id.
        words: hashes of each of its words, with the same salt.
        number: its place in the order in which things were forgotten.
    """

    key: str
    words: Sequence[str]
    number: int

    @property
    def salt(self) -> str:
        """The salt of its hashes."""
        return self.key.partition(_SEPARATOR)[0]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The things that a user asked to forget, and has not said again."""

    tombstones: Sequence[Tombstone] = ()

    @property
    def number(self) -> int:
        """The number of the latest; 0 when there is none."""
        return max((stone.number for stone in self.tombstones), default=0)

    def has(self, text: str) -> bool:
        """Whether a line or a fact is one of them."""
        return bool(self.among([text]).tombstones)

    def left_of(self, text: str) -> str:
        """A text without the lines that are one of them; the text as it is, if it has none."""
        lines = lines_of(text)
        left = [line for line in lines if not self.has(line)]
        return text if left == lines else text_of(left)

    def mentioned_in(self, text: str) -> bool:
        """Whether a text mentions one of them."""
        stones = [stone for stone in self.tombstones if stone.words]
        words = findable(text[:LOOKED_AT]) if stones else set()
        hashes = {salt: set(word_hashes(salt, words)) for salt in {stone.salt for stone in stones}}
        return any(2 * len(hashes[stone.salt].intersection(stone.words)) >= len(stone.words) for stone in stones)

    def after(self, number: int) -> Forgotten:
        """Those of them that were forgotten after the one of this number."""
        return Forgotten([stone for stone in self.tombstones if stone.number > number])

    def among(self, lines: Iterable[str]) -> Forgotten:
        """Those of them that are among these lines."""
        salts = {stone.salt for stone in self.tombstones}
        texts = {fact_key(line) for line in lines} if salts else set()
        keys = {key_hash(salt, text) for text in texts for salt in salts}
        return Forgotten([stone for stone in self.tombstones if stone.key in keys])


_known: ContextVar[int | None] = ContextVar("known_to_be_forgotten", default=None)
MORE_FORGOTTEN: Final = "more was forgotten meanwhile"
"""The reason of a refused write."""


@contextmanager
def knowing(forgotten: Forgotten) -> Iterator[None]:
    """Let stores refuse the writes in the ``with`` block, with StoreError, if the user has had more forgotten since.

    Args:
        forgotten: what the writes are cleared of.
    """
    token = _known.set(forgotten.number)
    try:
        yield
    finally:
        _known.reset(token)


def known_to_be_forgotten() -> int | None:
    """The number of the latest thing of which the current writes are cleared; None if they are said now."""
    return _known.get()


class Forgetting(Protocol):
    """Forgetting in a store. Every method raises StoreError."""

    async def forget(self, user_id: str, things: Sequence[Thing]) -> Removed:
        """Forget things, in one transaction.

        They leave the profile, each of its versions, and the facts; of a person who was moved (``Store.move_user``),
        also those under the new id. Summaries that mention them become empty, turns
        that mention them are skipped. A tombstone is left of each.

        Args:
            user_id: whose.
            things: the things; one that the store does not have is recorded all the same.

        Returns:
            What was removed.
        """
        ...

    async def forgotten(self, user_id: str) -> Forgotten:
        """Read what a user asked to forget and has not said again. To be asked before a late write is stored."""
        ...


def new_salt() -> str:
    """A salt for the tombstones of one request to forget."""
    return uuid4().hex


def key_hash(salt: str, text: str) -> str:
    """The key of a tombstone; ``text`` is the ``fact_key`` of the thing."""
    return f"{salt}{_SEPARATOR}{_hash(salt, text)}"


def word_hashes(salt: str, words: Iterable[str]) -> list[str]:
    """The words of a tombstone."""
    return [_hash(salt, word) for word in words]


def _hash(salt: str, text: str) -> str:
    return sha256(f"{salt}\x1f{text}".encode()).hexdigest()
