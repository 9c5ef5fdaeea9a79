"""The settings of the cache, read from the environment and checked."""

from __future__ import annotations

import os
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

from .exceptions import CacheConfigError
from .redis_url import DEFAULT_URL, SETTINGS, Endpoint, check_settings, parse, truth

NEAR_FAMILIES = {
    "profile": "profile",
    "settings": "settings",
    "state": "state",
    "greeting": "greeting_instructions",
}
"""What ``CACHE_NEAR`` may list, and the last part of the keys it means."""
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
        return cls(
            url=url or DEFAULT_URL,
            enabled=_flag(env, "REDIS_ENABLED", True) if enabled is None else enabled,
            deadline=_number(env, "CACHE_DEADLINE_MS", 50, 1, 60_000, "milliseconds") / 1000,
            connect_wait=_number(env, "CACHE_CONNECT_WAIT_MS", 250, 1, 60_000, "milliseconds") / 1000,
            max_value_bytes=int(_number(env, "CACHE_MAX_VALUE_BYTES", 1 << 20, 1, 512 << 20, "bytes")),
            ttl_spread=_number(env, "CACHE_TTL_SPREAD", 0.05, 0, 0.5, "(a share)"),
            near=_families(env),
            encryption_keys=_encryption_keys(env),
            url_is_default=url in ("", DEFAULT_URL),
        )


def _flag(env: Mapping[str, str], name: str, default: bool) -> bool:
    text = env.get(name, "").strip()
    try:
        return truth(text) if text else default
    except LookupError:
        raise CacheConfigError(f"{name} must be true or false, not {text[:20]!r}.") from None


def _number(env: Mapping[str, str], name: str, default: float, low: float, high: float, unit: str) -> float:
    text = env.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise CacheConfigError(f"{name} must be a number of {unit} from {low} to {high}, not {text[:20]!r}.")
    return value


def _families(env: Mapping[str, str]) -> frozenset[str]:
    chosen = {name.strip() for name in env.get("CACHE_NEAR", "").split(",") if name.strip()}
    if unknown := chosen - NEAR_FAMILIES.keys():
        raise CacheConfigError(
            f"CACHE_NEAR lists families of keys among {', '.join(NEAR_FAMILIES)}, separated by commas; "
            f"{min(unknown)[:20]!r} is none."
        )
    return frozenset(NEAR_FAMILIES[name] for name in chosen)


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
