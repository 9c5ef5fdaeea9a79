"""The caller, and their language, that a job's metadata names: ``{"user_id": ..., "language": ...}``, a JSON object.

The dispatcher that writes of a user id means one particular user. So where the text cannot be read, or holds the id
where it does not belong, the caller is unknown, and one warning says why; the participant in the room may be another.
"""

from __future__ import annotations

import json
import logging
import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from html import unescape
from typing import Any, Final
from unicodedata import normalize
from urllib.parse import unquote

from .caller import Caller, caller_from_identity
from .language import language_code

logger = logging.getLogger("companion")
_MENTION = re.compile(r"user[\W_]{0,3}id(?![a-z])", re.IGNORECASE)  # in any spelling: user_id, userId, "user-id"
_ESCAPE = re.compile(r"\\+u([0-9a-f]{4})", re.IGNORECASE)  # as JSON has it
_URLSAFE: Final = str.maketrans("+/", "-_")
_MAX_ENCODED: Final = 100_000  # characters of a text that is decoded to look into it


class _Object(dict[str, Any]):
    """A JSON object.

    Attributes:
        ambiguous: whether it names ``user_id`` more than once.
    """

    def __init__(self, pairs: Iterable[tuple[str, Any]]) -> None:
        pairs = list(pairs)
        super().__init__(pairs)
        self.ambiguous = sum(name == "user_id" for name, _ in pairs) > 1


def caller_from_metadata(metadata: object, operators: frozenset[str]) -> tuple[bool, Caller | None]:
    """The caller that the job's metadata names.

    Args:
        metadata: the job's metadata, of any type and content.
        operators: ids that are operators.

    Returns:
        Whether the metadata names a user, and the caller. An unusable id, or text about a user id that cannot be read,
        gives ``(True, None)``: the participant's identity must not be used in its place. Metadata about something else
        gives ``(False, None)``.
    """
    if not isinstance(metadata, str) or not metadata:
        return False, None
    try:
        content = json.loads(metadata, object_pairs_hook=_Object)
    except json.JSONDecodeError as problem:
        return _unreadable(metadata, f"it is not JSON ({problem.msg.partition(':')[0]}, at character {problem.pos})")
    except (ValueError, RecursionError) as problem:  # a number of too many digits; too many levels
        return _unreadable(metadata, f"it is not JSON that can be read ({type(problem).__name__})")
    if not isinstance(content, _Object):
        kind = "text, encoded twice" if isinstance(content, str) else f"a {type(content).__name__}"
        return _unreadable(metadata, f"it is {kind}, not an object")
    if content.ambiguous:
        return _unknown("it names user_id more than once")
    if "user_id" in content:
        user_id = content["user_id"]
        # A number is the text of its digits; true is no number.
        return True, caller_from_identity(str(user_id) if type(user_id) is int else user_id, operators)
    if _names_user(content):
        return _unknown('it has the id in another place, or by another name, than {"user_id": ...}')
    return False, None


def language_from_metadata(metadata: object) -> str:
    """The code of the language that the job's metadata names, ``{"language": "de"}``; empty where it names none."""
    try:
        content = json.loads(metadata) if isinstance(metadata, str) and metadata else None
    except (ValueError, RecursionError):  # said where the caller is read of it
        return ""
    if not isinstance(content, dict) or (named := content.get("language")) in (None, ""):
        return ""
    code = language_code(named) if isinstance(named, str) else ""
    if not code:
        logger.warning("the language in the job's metadata is no language code such as de or pt-BR")
    return code


def _unreadable(metadata: str, reason: str) -> tuple[bool, None]:
    return _unknown(reason) if _mentions(metadata) else (False, None)


def _unknown(reason: str) -> tuple[bool, None]:
    logger.warning("nothing is remembered in this conversation: the job's metadata is unusable: %s", reason)
    return True, None


def _mentions(text: str) -> bool:
    """Whether a text is about a user id, also where it is in another encoding: of a URL, HTML, JSON, UTF-16, base64."""
    plain = unescape(unquote(unquote(text.replace("\0", ""))))
    plain = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), plain)
    return any(_MENTION.search(normalize("NFKC", each)) for each in (plain, *_decoded(plain)))


def _decoded(text: str) -> Iterator[str]:
    """What a text is if it is the base64 or the hexadecimal digits of another: a data URL and a JWT too."""
    if len(text) > _MAX_ENCODED:
        return
    for part in text.rpartition(",")[2].split("."):
        with suppress(ValueError):
            yield urlsafe_b64decode(f"{part.strip().translate(_URLSAFE)}===").decode(errors="replace").replace("\0", "")
    with suppress(ValueError):
        yield bytes.fromhex(text).decode(errors="replace").replace("\0", "")


def _names_user(content: object) -> bool:
    """Whether a key at any depth, or an object that is encoded as text, is about a user id."""
    left = [content]
    while left:
        match left.pop():
            case dict() as fields:
                if any(_letters(name) == "userid" for name in fields):
                    return True
                left += fields.values()
            case list() as items:
                left += items
            case str() as text if text.lstrip().startswith(("{", "[", '"')) and _mentions(text):
                return True
    return False


def _letters(name: str) -> str:
    return "".join(char for char in normalize("NFKC", name) if char.isalnum()).casefold()
