"""Identifies the caller of a conversation. There is no global current user: the caller belongs to a task tree.

One process may hold several conversations. So the caller is in the session's userdata and in a context variable, which
is set before the session starts: tools, hooks and background tasks inherit it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from cache import keys

logger = logging.getLogger("companion")
_USER_UUID = re.compile(
    r"(?:user-)?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})", re.IGNORECASE | re.ASCII
)


@dataclass(frozen=True, slots=True)
class Caller:
    """The user whom one conversation is with.

    Attributes:
        user_id: letters, digits and ``. _ @ + = ~ -``, at most 128.
        operator: may invalidate cache entries of other users.

    Raises:
        cache.keys.InvalidKeyPart: ``user_id`` could match more than one user's keys.
    """

    user_id: str
    operator: bool = False

    def __post_init__(self) -> None:
        keys.user_id(self.user_id)


_current: ContextVar[Caller | None] = ContextVar("companion_caller", default=None)


def current_caller() -> Caller | None:
    """The caller of the running task tree; None when the caller is unknown."""
    return _current.get()


@contextmanager
def use_caller(caller: Caller | None) -> Iterator[Caller | None]:
    """Make ``caller`` the current caller in the ``with`` block and in every task that is created in it."""
    token = _current.set(caller)
    try:
        yield caller
    finally:
        _current.reset(token)


def caller_from_metadata(metadata: object, operators: frozenset[str]) -> tuple[bool, Caller | None]:
    """The caller that the job's metadata names, ``{"user_id": ...}``.

    Args:
        metadata: the job's metadata, of any type and content.
        operators: ids that are operators.

    Returns:
        Whether the metadata names a user, and the caller. An unusable id gives ``(True, None)``: the dispatcher meant
        one particular user, so the participant's identity must not be used in its place.
    """
    if not isinstance(metadata, str) or not metadata:
        return False, None
    try:
        content = json.loads(metadata)
    except (ValueError, RecursionError):
        return False, None
    if not isinstance(content, dict) or "user_id" not in content:
        return False, None
    return True, caller_from_identity(content["user_id"], operators)


def caller_from_identity(identity: object, operators: frozenset[str]) -> Caller | None:
    """The caller behind a participant's identity: ``user-<uuid>``, ``<uuid>``, or another usable id.

    Returns:
        None for an unusable identity: the companion talks, but reads and writes nothing personal.
    """
    user_id = user_id_of(identity) if isinstance(identity, str) else identity
    try:
        return Caller(keys.user_id(user_id), operator=user_id in operators)
    except keys.InvalidKeyPart as problem:
        logger.warning("nothing is remembered in this conversation: %s", problem)
        return None


def user_id_of(identity: str) -> str:
    """The user id in an identity. ``user-<uuid>`` and ``<uuid>`` are the same user."""
    uuid = _USER_UUID.fullmatch(identity)
    return uuid.group(1).lower() if uuid else identity
