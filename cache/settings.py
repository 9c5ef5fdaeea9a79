"""The settings of the cache, read from the environment and checked."""

from __future__ import annotations

import os
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from .exceptions import CacheConfigError
from .redis_url import DEFAULT_URL, Endpoint, parse
from .url_options import FLAG, SETTINGS, Kind, check_settings, number

NEAR_FAMILIES = {
    "profile": "profile",
    "settings": "settings",
    "state": "state",
    "greeting": "greeting_instructions",
}
"""What ``CACHE_NEAR`` may list, and the last part of the keys it means."""
_MILLISECONDS = number(1, 60_000, "milliseconds")
_SECONDS = Kind(lambda text: _MILLISECONDS.read(text) / 1000, _MILLISECONDS.must_be)
_VARIABLES = {
    "enabled": ("REDIS_ENABLED", FLAG),
    "deadline": ("CACHE_DEADLINE_MS", _SECONDS),
    "connect_wait": ("CACHE_CONNECT_WAIT_MS", _SECONDS),
    "max_value_bytes": ("CACHE_MAX_VALUE_BYTES", number(1, 512 << 20, "bytes", of=int)),
    "ttl_spread": ("CACHE_TTL_SPREAD", number(0, 0.5)),
    "near": (
        "CACHE_NEAR",
        Kind(
            lambda text: frozenset(NEAR_FAMILIES[name.strip()] for name in text.split(",") if name.strip()),
            f"families of keys among {', '.join(NEAR_FAMILIES)}, separated by commas",
        ),
    ),
}
_ENCRYPTION_KEY = re.compile(r"[A-Za-z0-9_-]{43}=?")  # 32 bytes in base64url, padded or not


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """The settings of one cache. Safe to log: ``repr`` shows the URL without its credentials.

    Attributes:
        url: where Redis is. Its options (``redis_url.SETTINGS``) replace the settings of the same name.
        enabled: whether the cache starts switched on.
        deadline: seconds within which every call answers, whatever Redis does.
        connect_wait: seconds ``initialize()`` waits; connecting then continues in the background.
        max_connections: size of the connection pool.
        socket_connect_timeout: seconds one attempt to connect may take.
        socket_timeout: seconds one socket operation of the pool may take.
        retry_on_timeout: whether the pool repeats an operation, once, whose connection was lost or silent.
        health_check_interval: seconds a connection of the pool may idle before it is checked with a PING.
        max_value_bytes: larger values are refused.
        ttl_spread: share of a TTL by which ``get_or_load`` may shorten it at random, so that keys that were filled
            together do not expire together (a share of ``refresh_after``, where that is given); 0 turns it off.
        near: families of keys that the near cache keeps.
        encryption_keys: 32 bytes each. The first encrypts, all of them decrypt; without any, values stay readable.
        url_is_default: the URL was not configured, so an embedded server may take its place.
        endpoint: what the URL says, checked.
        safe_url: the URL without credentials and options.
    """

    url: str = field(default=DEFAULT_URL, repr=False)
    enabled: bool = True
    deadline: float = 0.05
    connect_wait: float = 0.25
    max_connections: int = 50
    socket_connect_timeout: float = 5.0
    socket_timeout: float = 5.0
    retry_on_timeout: bool = True
    health_check_interval: float = 30
    max_value_bytes: int = 1 << 20
    ttl_spread: float = 0.05
    near: frozenset[str] = frozenset()
    encryption_keys: tuple[bytes, ...] = field(default=(), repr=False)
    url_is_default: bool = True
    endpoint: Endpoint = field(init=False, repr=False, compare=False)
    safe_url: str = field(init=False)

    def __post_init__(self) -> None:
        endpoint, options, safe_url = parse(self.url)
        for name, value in (options | {"endpoint": endpoint, "safe_url": safe_url}).items():
            object.__setattr__(self, name, value)
        check_settings({name: getattr(self, name) for name in SETTINGS})

    @classmethod
    def from_env(
        cls,
        redis_url: str | None = None,
        *,
        enabled: bool | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> CacheSettings:
        """Read ``REDIS_URL``, ``REDIS_ENABLED`` and the ``CACHE_...`` variables of the README.

        Args:
            redis_url: used instead of ``REDIS_URL``.
            enabled: used instead of ``REDIS_ENABLED``.
            environ: read instead of the process's environment.

        Raises:
            CacheConfigError: a value cannot be used; the text names the variable.
        """
        env = os.environ if environ is None else environ
        url = redis_url or env.get("REDIS_URL", "").strip()
        values: dict[str, Any] = {} if enabled is None else {"enabled": enabled}
        for attribute, (name, kind) in _VARIABLES.items():
            if attribute not in values and (text := env.get(name, "").strip()):
                try:
                    values[attribute] = kind.read(text)
                except (ValueError, LookupError):
                    raise CacheConfigError(f"{name} must be {kind.must_be}, not {text[:20]!r}.") from None
        return cls(
            url=url or DEFAULT_URL,
            url_is_default=url in ("", DEFAULT_URL),
            encryption_keys=_encryption_keys(env),
            **values,
        )


def _encryption_keys(env: Mapping[str, str]) -> tuple[bytes, ...]:
    text = env.get("CACHE_ENCRYPTION_KEYS", "").strip()
    listed = [one.strip() for one in text.split(",")] if text else []
    for position, one in enumerate(listed, 1):
        if not _ENCRYPTION_KEY.fullmatch(one):
            raise CacheConfigError(
                f"CACHE_ENCRYPTION_KEYS: key {position} of {len(listed)} is not 32 bytes in base64url. "
                "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
    if listed and find_spec("cryptography") is None:
        raise CacheConfigError(
            "CACHE_ENCRYPTION_KEYS is set, but the package cryptography is not installed: pip install cryptography"
        )
    return tuple(urlsafe_b64decode(one[:43] + "=") for one in listed)
