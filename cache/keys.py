"""The documented keys, how long each may live, and what may stand inside one.

Every function returns a :class:`Key`: a plain ``str`` that also knows its TTL::

    key = keys.profile("123")          # "user:123:profile"
    await cache.set(key, text, ttl=key.ttl)

A part of a key must not hold a character that is special in a Redis pattern or a separator in this layout, so no
hostile id can name another user's keys or widen a pattern: a function that makes a :class:`Key` raises
``InvalidKeyPart`` then (see :func:`part`).
"""

from __future__ import annotations

import re
from typing import Final

from .exceptions import InvalidKeyPart as InvalidKeyPart
from .slots import hash_slot, tag_of_slot

# Seconds that each kind of value lives.
PROFILE_TTL: Final = 3600  # profiles rarely change, and a change invalidates them
SETTINGS_TTL: Final = 3600
SYSTEM_CONFIG_TTL: Final = 3600
STATE_TTL: Final = 1800
SUMMARY_TTL: Final = 1800
MEMORY_TTL: Final = 300
SPEECH_TTL: Final = 604_800  # seven days: speech is named by its text and its voice, so it cannot become wrong
TEMP_TTL: Final = 300
GREETING_TTL: Final = 120  # greetings follow recent activity
LOCK_TTL: Final = 60

USERS: Final = "user:"
"""Prefix of every key of every user."""

MAX_PART: Final = 128
"""Characters a user id, or any other part of a key, may have."""

RESERVED: Final = ("lock:", "system:", "lease:", "stale:", "index:")
"""Prefixes of the layer's own keys. A pattern reaches them only if it begins with one literally."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._@+=~-]")
_SPECIAL = re.compile(r"([*?\[\]\\^])")


class Key(str):
    """A cache key that knows how long its value may live.

    Attributes:
        ttl: seconds, or None where the documented layout gives no expiry.
    """

    __slots__ = ("ttl",)
    ttl: int | None

    def __new__(cls, text: str, ttl: int | None) -> Key:
        key = super().__new__(cls, text)
        key.ttl = ttl
        return key


def part(value: object, what: str = "key part") -> str:
    """Return ``value`` if it can safely stand between two colons of a key.

    Raises:
        InvalidKeyPart: it is not a string, is empty, is longer than 128 characters, or holds a character
            outside letters, digits and ``. _ @ + = ~ -``. The text does not repeat the value.
    """
    if not isinstance(value, str):
        raise InvalidKeyPart(f"the {what} must be a string, not {type(value).__name__}")
    if not value:
        raise InvalidKeyPart(f"the {what} is empty")
    if len(value) > MAX_PART:
        raise InvalidKeyPart(f"the {what} has {len(value)} characters; at most {MAX_PART} are allowed")
    if unsafe := _UNSAFE.search(value):
        raise InvalidKeyPart(
            f"the {what} has {unsafe[0]!r} at position {unsafe.start()}; "
            "letters, digits and . _ @ + = ~ - are allowed (ASCII)"
        )
    return value


def user_id(value: object) -> str:
    """Return ``value`` if it is a usable user id.

    Raises:
        InvalidKeyPart: it is none.
    """
    return part(value, "user id")


def is_user_id(value: str) -> bool:
    """Whether ``value`` is a usable user id."""
    return 0 < len(value) <= MAX_PART and not _UNSAFE.search(value)


def profile(user: str) -> Key:
    """``user:{user_id}:profile``, one hour."""
    return Key(f"user:{user_id(user)}:profile", PROFILE_TTL)


def greeting_instructions(user: str) -> Key:
    """``user:{user_id}:greeting_instructions``, two minutes."""
    return Key(f"user:{user_id(user)}:greeting_instructions", GREETING_TTL)


def settings(user: str) -> Key:
    """``user:{user_id}:settings``, one hour."""
    return Key(f"user:{user_id(user)}:settings", SETTINGS_TTL)


def state(user: str) -> Key:
    """``user:{user_id}:state``, half an hour."""
    return Key(f"user:{user_id(user)}:state", STATE_TTL)


def summary(user: str) -> Key:
    """``user:{user_id}:summary``, half an hour."""
    return Key(f"user:{user_id(user)}:summary", SUMMARY_TTL)


def memory(user: str, memory_id: str) -> Key:
    """``user:{user_id}:memory:{memory_id}``, five minutes."""
    return Key(f"user:{user_id(user)}:memory:{part(memory_id, 'memory id')}", MEMORY_TTL)


def speech(user: str, speech_id: str) -> Key:
    """``user:{user_id}:speech:{speech_id}``, seven days."""
    return Key(f"user:{user_id(user)}:speech:{part(speech_id, 'speech id')}", SPEECH_TTL)


def shared_speech(speech_id: str) -> Key:
    """``speech:{speech_id}``, seven days: a phrase that everybody hears."""
    return Key(f"speech:{part(speech_id, 'speech id')}", SPEECH_TTL)


def system_config() -> Key:
    """``system:config``, one hour."""
    return Key("system:config", SYSTEM_CONFIG_TTL)


def system_stats() -> Key:
    """``system:stats``: the fleet's counters. They do not expire."""
    return Key("system:stats", None)


def lock(resource: str, id: str) -> Key:
    """``lock:{resource}:{id}``, one minute unless the holder sets another TTL."""
    return Key(f"lock:{part(resource, 'lock resource')}:{part(id, 'lock id')}", LOCK_TTL)


def temp(session_id: str, key: str) -> Key:
    """``temp:{session_id}:{key}``, five minutes."""
    return Key(f"temp:{part(session_id, 'session id')}:{part(key, 'temporary key')}", TEMP_TTL)


FAMILIES: Final = ("profile", "greeting_instructions", "settings", "state", "summary")
"""Last parts of the keys of which every user may have one."""


def lease(key: str) -> str:
    """``lease:{key}``: the lease on ``key``."""
    return _guard("lease", key)


def stale(key: str) -> str:
    """``stale:{key}``: the last good value of ``key``, served if its source fails."""
    return _guard("stale", key)


def _guard(kind: str, key: str) -> str:
    """A name in the cluster slot of ``key``.

    The braces make all of it the hash tag. A key with a closing brace has a tag of its own, or gets one of its slot.
    """
    if "}" not in key:
        return f"{kind}:{{{key}}}"
    if hash_slot(name := f"{kind}::{key}") == (slot := hash_slot(key)):
        return name
    return f"{kind}:{{{tag_of_slot(slot)}}}:{key}"


def guarded_by(name: str) -> str:
    """The key that a lease or a last good value belongs to; empty for another kind of key."""
    kind, _, rest = name.partition(":")
    if rest.startswith(":"):
        key = rest[1:]
    else:  # {tag}:key, or {key}
        tagged = re.match(r"\{[0-9a-z]{4}\}:", rest)
        key = rest[tagged.end() :] if tagged else rest[1:-1]
    return key if kind in ("lease", "stale") and key and name == _guard(kind, key) else ""


def index(user: str) -> str:
    """``index:{user_id}``: the names of the user's keys outside the families, as far as this layer wrote them."""
    return f"index:{{{user}}}"


def system_server(node: str = "") -> str:
    """``system:server``: the epoch under which the values were last known to be right (see ``server_epoch``).

    In a cluster each ``node`` has one of its own, under what ``Client.tag_of`` says of it.
    """
    return f"system:server:{node}" if node else "system:server"


def owner(key: str) -> tuple[str, str] | None:
    """The user id and the rest of a key ``user:{user_id}:{rest}``; None for another kind of key."""
    kind, _, rest = key.partition(":")
    user, colon, name = rest.partition(":")
    return (user, name) if kind == "user" and colon and name else None


def is_documented(key: str) -> bool:
    """Whether ``key`` has the exact shape of a documented key of a user: of a family, a memory, or a speech."""
    user, name = owner(key) or ("", "")
    kind, colon, id_ = name.partition(":")
    return is_user_id(user) and (name in FAMILIES or (kind in ("memory", "speech") and bool(colon) and is_user_id(id_)))


def user_prefix(user: str) -> str:
    """``user:{user_id}:``, what every key of one user begins with."""
    return f"user:{user_id(user)}:"


def user_pattern(user: str) -> str:
    """The pattern that matches every key of one user and no other key: ``user:{user_id}:*``."""
    return f"{escape(user_prefix(user))}*"


def escape(text: str) -> str:
    """``text`` as a Redis pattern that matches only itself."""
    return _SPECIAL.sub(r"\\\1", text)


def is_reserved(text: str) -> bool:
    """Whether a key belongs to the layer itself, or a pattern literally names such a prefix: ``lock:user:*``."""
    return text.startswith(RESERVED)


def shape(key: str) -> str:
    """``key`` without its ids, for the log: ``user:...:profile``."""
    head, _, rest = key.partition(":")
    return f"{head}:...:{rest.rpartition(':')[2]}" if ":" in rest else f"{head}:..."
