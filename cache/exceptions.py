"""Every exception of the caching layer.

::

    CacheError
    ├── TransportError              a command got no usable reply
    │   ├── CacheUnavailable        Redis is away, silent or late
    │   │   ├── CommandNotSent      Redis has certainly not seen the command
    │   │   │   ├── NotConnected
    │   │   │   └── TooManyInFlight
    │   │   ├── HandshakeFailed     a new connection cannot be used
    │   │   │   └── WrongKind       ... by this kind of client
    │   │   ├── ConnectionLost      the command may have been executed
    │   │   └── CommandTimeout      the command may have been executed
    │   └── CommandRejected         Redis answered with an error; ``code`` says which
    ├── CacheConfigError            also a ValueError
    ├── InvalidKeyPart              also a ValueError
    ├── UnserialisableValue         also a TypeError and a ValueError
    ├── ValueTooLarge               also a ValueError
    ├── UndecodableValue
    ├── LoadTimeout                 also a TimeoutError
    ├── LoadCycle                   also a RuntimeError
    ├── LockUnavailable
    ├── LockLost
    └── EmbeddedRedisError          also a RuntimeError

A ``TransportError`` never leaves :class:`cache.RedisCache`: its operations answer with their neutral value instead.
"""

from __future__ import annotations

import re
from typing import Any

# How servers report a command that failed inside a script. Before version 7 the code is in the text, or missing; since
# then the reply begins with it, except that a command the user may not run is an ``ERR``.
_IN_A_SCRIPT = re.compile(
    r"^(?:ERR )?ACL failure in script: |@user_script: ?\d+: -?(?:([A-Z]{2,}) |The user executing the script can't)"
)


# Codes that say something about a key, or about the server's state, and nothing about the command.
_OF_THE_MOMENT = re.compile(
    "ASK|BUSY|CLUSTERDOWN|CROSSSLOT|EXECABORT|LOADING|MASTERDOWN|MISCONF|MOVED|NOAUTH|NOREPLICAS|NOSCRIPT|OOM|READONLY|"
    "TRYAGAIN|WRONGTYPE"
)


class CacheError(Exception):
    """Base of every exception of the caching layer."""


class TransportError(CacheError):
    """A command got no usable reply."""


class CacheUnavailable(TransportError):
    """Redis is away, silent or late."""


class CommandNotSent(CacheUnavailable):
    """Redis has certainly not seen the command."""


class NotConnected(CommandNotSent):
    """There is no usable connection."""


class TooManyInFlight(CommandNotSent):
    """Too many commands await a reply, or too many bytes wait to be sent."""


class HandshakeFailed(CacheUnavailable):
    """Redis answered the handshake of a new connection, but the connection cannot be used.

    Attributes:
        pause: seconds until the next attempt.
    """

    def __init__(self, reason: str, pause: float) -> None:
        super().__init__(reason)
        self.pause = pause


class WrongKind(HandshakeFailed):
    """Another kind of client is needed for this server.

    Attributes:
        resp3: whether it speaks RESP3.
        slots: the reply to CLUSTER SLOTS, where it is a node of a cluster; empty where it does not say; else None.
    """

    def __init__(self, reason: str, pause: float, *, resp3: bool = True, slots: list[Any] | None = None) -> None:
        super().__init__(reason, pause)
        self.resp3 = resp3
        self.slots = slots


class ConnectionLost(CacheUnavailable):
    """The connection was lost before the reply. The command may have been executed."""


class CommandTimeout(CacheUnavailable):
    """No reply within the deadline. The command may have been executed."""


class CommandRejected(TransportError):
    """Redis answered with an error. The text may quote the command, credentials included: log ``code`` instead."""

    @property
    def code(self) -> str:
        """The first word of the reply (``WRONGTYPE``, ``NOSCRIPT``); inside a script, that of the failed command."""
        return code_inside_script(str(self)) or str(self).partition(" ")[0]

    @property
    def missing(self) -> bool:
        """Whether the server lacks the command, in whatever words, or the user the right to it."""
        if self.code == "NOPERM":
            return " key" not in str(self)  # no right to a key says nothing of the command
        return not _OF_THE_MOMENT.fullmatch(self.code)


class CacheConfigError(CacheError, ValueError):
    """A setting cannot be used. The text names the setting and the remedy, never a credential."""


class InvalidKeyPart(CacheError, ValueError):
    """A user id, or another part of a key, could reach further than its own key."""


class UnserialisableValue(CacheError, TypeError, ValueError):
    """A value would not come back as it went in. Raised at once, with or without Redis."""


class ValueTooLarge(CacheError, ValueError):
    """A value has more bytes than ``CACHE_MAX_VALUE_BYTES``."""


class UndecodableValue(CacheError):
    """Stored bytes cannot be decoded. The text gives the reason and quotes nothing of them."""


class LoadTimeout(CacheError, TimeoutError):
    """A loader did not end within its ``load_timeout``, and was cancelled."""


class LoadCycle(CacheError, RuntimeError):
    """A loader asked for the key that it loads, directly or through the loaders of other keys: it would never end."""


class LockUnavailable(CacheError):
    """The lock was not acquired: another holder has it, or Redis is away. The text says which."""


class LockLost(CacheError):
    """The lock expired while it was held: the work under it may have overlapped with another holder's."""


class EmbeddedRedisError(CacheError, RuntimeError):
    """The private redis-server could not be started; the text says why and what to do."""


def code_inside_script(text: str) -> str | None:
    """Return the error code of the command that failed inside a script, or None if ``text`` reports no such error."""
    found = _IN_A_SCRIPT.search(text)
    return None if found is None else found[1] or "NOPERM"


def rejected_with(outcome: object, *codes: str) -> bool:
    """Whether ``outcome`` is a ``CommandRejected`` with one of these codes."""
    return isinstance(outcome, CommandRejected) and outcome.code in codes
