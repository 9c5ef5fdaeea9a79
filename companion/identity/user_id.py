"""The user id of an identity: one encoding for the ids of every identity provider.

Keys of the cache take ``A-Z a-z 0-9 . _ @ + = ~ -`` and 128 characters (``cache.keys``). Ids such as ``auth0|abc``,
``us-east-1:...`` or ``José`` hold others. They become ``~=`` and the text with every other byte of its UTF-8 as
``=xx``:

=======================  ============================
identity                 user id
=======================  ============================
``ada``                  ``ada``: ids that keys take stay as they are
``auth0|abc``            ``~=auth0=7cabc``
``~=auth0=7cabc``        ``~=~=3dauth0=3d7cabc``: what looks encoded is encoded
longer than 128 encoded  ``~==sha256=`` and the SHA-256 of the text, which cannot be reversed
=======================  ============================

So two identities have the same user id only if they are the same text in Unicode's normal form C, or two forms of one
UUID (``user-<uuid>``, ``<uuid>``, in any case), or collide in SHA-256.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from unicodedata import category, normalize
from urllib.parse import unquote

from cache import keys

ENCODED: Final = "~="
"""What an encoded id begins with."""
HASHED: Final = f"{ENCODED}=sha256="
"""What the hash of a longer one begins with: in an encoded text a number follows each ``=``."""
MAX_IDENTITY: Final = 1024
"""Characters an identity may have."""

_USER_UUID = re.compile(
    r"(?:user-)?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})", re.IGNORECASE | re.ASCII
)
_PUNCTUATION: Final = frozenset(" !#$%&'()+,-./:;=@\\_|~")
_STAYS = re.compile(r"[A-Za-z0-9._@+~-]")
_ESCAPE = re.compile(r"=([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class KnownAs:
    """What one person is known by.

    Attributes:
        user_id: their id.
        earlier: ids under which something of them may still be kept.
    """

    user_id: str
    earlier: tuple[str, ...] = ()


class UnusableIdentity(ValueError):
    """A text that cannot be an id. The message does not repeat it."""


def user_id_of(identity: str) -> str:
    """The user id of an identity.

    Letters, marks and digits of any script, blanks inside, and ``! # $ % & ' ( ) + , - . / : ; = @ \\ _ | ~`` can be in
    one. Patterns, quotes, brackets, symbols and control characters cannot: an id with them is a mistake, or hostile.

    Raises:
        UnusableIdentity: it is empty, too long, or has another character.
    """
    text = normalize("NFC", identity)
    if uuid := _USER_UUID.fullmatch(text):
        return uuid.group(1).lower()
    _check(text)
    if keys.is_user_id(text) and not text.startswith(ENCODED):
        return text
    encoded = ENCODED + "".join(char if _STAYS.match(char) else _escaped(char) for char in text)
    return encoded if len(encoded) <= keys.MAX_PART else HASHED + sha256(text.encode()).hexdigest()


def identity_of(user_id: str) -> str | None:
    """The identity that has this user id: the reverse of :func:`user_id_of`; None for a hash."""
    if user_id.startswith(HASHED):
        return None
    if not user_id.startswith(ENCODED):
        return user_id
    return unquote(_ESCAPE.sub(r"%\1", user_id.removeprefix(ENCODED)))


def _escaped(char: str) -> str:
    return "".join(f"={byte:02x}" for byte in char.encode())


def _check(text: str) -> None:
    if not text:
        raise UnusableIdentity("the user id is empty")
    if len(text) > MAX_IDENTITY:
        raise UnusableIdentity(f"the user id has {len(text)} characters; at most {MAX_IDENTITY} are allowed")
    for position, char in enumerate(text):
        if char not in _PUNCTUATION and category(char)[0] not in "LMN":
            raise UnusableIdentity(
                f"the user id has {char!a} at position {position}; letters, digits, blanks and "
                "! # $ % & ' ( ) + , - . / : ; = @ \\ _ | ~ are allowed"
            )
    if text != text.strip(" "):
        raise UnusableIdentity("the user id begins or ends with a blank")
