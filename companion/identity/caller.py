"""Identifies the caller of a conversation. There is no global current user: the caller belongs to a task tree.

One process may hold several conversations. So the caller is in a context variable, which is set before a session starts
or around one call: tools, hooks and background tasks inherit it. In a room it holds a function instead of a caller,
because who is there changes; the session's memory (``attach``) answers it at each use.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from cache import keys

from .beginning import Beginning
from .placeholders import is_placeholder
from .user_id import UnusableIdentity, user_id_of

logger = logging.getLogger("companion")


@dataclass(frozen=True, slots=True)
class Caller:
    """The user whom one conversation is with.

    Attributes:
        user_id: letters, digits and ``. _ @ + = ~ -``, at most 128; ``user_id_of`` makes one from any id.
        operator: may invalidate cache entries of other users.
        beginning: when the conversation began; each conversation has a Caller of its own.
        earlier: ids under which something of them may still be kept.
        language: the language code that the job or the program names for them; empty where that is none.

    Raises:
        cache.keys.InvalidKeyPart: ``user_id`` could match more than one user's keys.
    """

    user_id: str
    operator: bool = False
    beginning: Beginning = field(default_factory=Beginning, compare=False, repr=False)
    earlier: tuple[str, ...] = field(default=(), compare=False, repr=False)
    language: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        keys.user_id(self.user_id)


FindCaller = Callable[[], Caller | None]
_current: ContextVar[Caller | FindCaller | None] = ContextVar("companion_caller", default=None)


def current_caller() -> Caller | None:
    """The caller of the running task tree; None when the caller is unknown."""
    current = _current.get()
    return current() if callable(current) else current


@contextmanager
def use_caller(caller: Caller | FindCaller | None) -> Iterator[Caller | FindCaller | None]:
    """Make ``caller`` the current caller in the ``with`` block and in every task that is created in it.

    Args:
        caller: the caller; or a function that finds them each time, where it is not known yet who they are.
    """
    token = _current.set(caller)
    try:
        yield caller
    finally:
        _current.reset(token)


def caller_from_identity(identity: object, operators: frozenset[str]) -> Caller | None:
    """The caller behind a participant's identity: ``user-<uuid>``, ``<uuid>``, or the id of an identity provider.

    Returns:
        None for an unusable identity, and for one that names no particular person: the companion talks, but reads and
        writes nothing personal.
    """
    try:
        user_id = person(identity)
    except UnusableIdentity as problem:
        logger.warning("nothing is remembered in this conversation: %s", problem)
        return None
    return Caller(user_id, operator=user_id in operators)


def person(identity: object) -> str:
    """The user id of the person with this identity.

    Raises:
        UnusableIdentity: it cannot be an id, or names no particular person.
    """
    if not isinstance(identity, str):
        raise UnusableIdentity(f"the user id must be a string, not {type(identity).__name__}")
    user_id = user_id_of(identity)
    if is_placeholder(identity):
        raise UnusableIdentity("the user id names no particular person")
    return user_id
