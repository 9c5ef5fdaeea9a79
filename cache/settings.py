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
from .redis_url import DEFAULT_URL, Endpoint, parse, read_address_map
from .url_options import SETTINGS, check_settings
from .variables import FLAG, TEXT, Kind, number, variable, variables_of

NEAR_FAMILIES = {
    "profile": "profile",
    "settings": "settings",
    "state": "state",
    "greeting": "greeting_instructions",
}
"""What ``CACHE_NEAR`` may list, and the last part of the keys it means."""
_MILLISECONDS = number(1, 60_000, "milliseconds")
_SECONDS = Kind(lambda text: _MILLISECONDS.read(text) / 1000, _MILLISECONDS.must_be)
_FAMILIES = Kind(
    lambda text: frozenset(NEAR_FAMILIES[name.strip()] for name in text.split(",") if name.strip()),
    f"families of keys among {', '.join(NEAR_FAMILIES)}, separated by commas",
)
_ADDRESSES = Kind(
    read_address_map, "pairs like 10.0.0.1:6379=127.0.0.1:7001 or 10.0.0.1=203.0.113.5, separated by commas"
)
_ENCRYPTION_KEY = re.compile(r"[A-Za-z0-9_-]{43}=?")  # 32 bytes in base64url, padded or not
_MAKE_KEY = "python -c 'import secrets; print(secrets.token_urlsafe(32))'"


def _encryption_keys(text: str) -> tuple[bytes, ...]:
    listed = [one.strip() for one in text.split(",")]
    for position, one in enumerate(listed, 1):
        if not _ENCRYPTION_KEY.fullmatch(one):
            raise CacheConfigError(
                f"CACHE_ENCRYPTION_KEYS: key {position} of {len(listed)} is not 32 bytes in base64url. "
                f"Make one with: {_MAKE_KEY}"
            )
    if find_spec("cryptography") is None:
        raise CacheConfigError(
            "CACHE_ENCRYPTION_KEYS is set, but the package cryptography is not installed: pip install cryptography"
        )
    return tuple(urlsafe_b64decode(one[:43] + "=") for one in listed)


def _setting(
    name: str, meaning: str, kind: Kind = TEXT, shown: str = "", *, exact: bool = False, **of_field: Any
) -> Any:
    """A field that comes from a variable. What ``shown`` says is its default too."""
    if shown:
        of_field["default"] = kind.read(shown)
    return field(metadata=variable(name, meaning, kind, shown=shown, exact=exact, section="Redis"), **of_field)


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """The settings of one cache. Safe to log: ``repr`` shows the URL without its credentials.

    Attributes:
        url: where Redis is. Its options (``url_options.SETTINGS``) replace the settings of the same name.
        enabled: whether the cache starts switched on.
        deadline: seconds within which every call answers, whatever Redis does.
        connect_wait: seconds ``initialize()`` waits; connecting then continues in the background.
        max_connections: size of the connection pool.
        socket_connect_timeout: seconds one attempt to connect may take.
        socket_timeout: seconds one socket operation of the pool may take.
        retry_on_timeout: whether the pool repeats an operation, once, whose connection was lost or silent.
        health_check_interval: seconds a connection may idle before it is checked with a PING; 0 for no limit.
        max_value_bytes: larger values are refused.
        ttl_spread: share of a TTL by which ``get_or_load`` may shorten it at random, so that keys that were filled
            together do not expire together (a share of ``refresh_after``, where that is given); 0 turns it off.
        near: families of keys that the near cache keeps.
        cluster_address_map: where to connect to a cluster's nodes, by the address that they announce: ``host:port``, or
            a host for all of its ports. For nodes behind NAT.
        encryption_keys: 32 bytes each. The first encrypts, all of them decrypt; without any, values stay readable.
        url_is_default: the URL was not configured, so an embedded server may take its place.
        endpoint: what the URL says, checked.
        safe_url: the URL without credentials and options.

    Raises:
        CacheConfigError: the URL, or a setting that may also be one of its options, cannot be used. Settings that come
            from other variables are checked by :meth:`from_env`.
    """

    url: str = _setting(
        "REDIS_URL",
        "`redis://user:password@host:port/db`, `rediss://` for TLS, `unix:///path/to/socket`, "
        "`redis+sentinel://user:password@host1:26379,host2:26379/mymaster/0`. Characters such as `/ # ? @` in a "
        "password are percent-encoded. Options after a `?`: `docs/redis.md`",
        shown=DEFAULT_URL,
        exact=True,  # its parser says more
        repr=False,
    )
    enabled: bool = _setting("REDIS_ENABLED", "`false`: no cache, everything comes from the store", FLAG, "true")
    deadline: float = _setting(
        "CACHE_DEADLINE_MS", "milliseconds within which every cache call answers, whatever Redis does", _SECONDS, "50"
    )
    connect_wait: float = _setting(
        "CACHE_CONNECT_WAIT_MS",
        "milliseconds that a start waits for Redis; connecting continues afterwards",
        _SECONDS,
        "250",
    )
    max_connections: int = 50
    socket_connect_timeout: float = 5.0
    socket_timeout: float = 5.0
    retry_on_timeout: bool = True
    health_check_interval: float = 30
    max_value_bytes: int = _setting(
        "CACHE_MAX_VALUE_BYTES", "larger values are refused", number(1, 512 << 20, "bytes", of=int), "1048576"
    )
    ttl_spread: float = _setting(
        "CACHE_TTL_SPREAD",
        "share by which `get_or_load` may shorten a TTL (with `refresh_after=`: that share of it) at random, so "
        "that keys do not expire together; `0`: never",
        number(0, 0.5),
        "0.05",
    )
    cluster_address_map: Mapping[str, str] = _setting(
        "CACHE_CLUSTER_ADDRESS_MAP",
        "where to connect to a cluster's nodes, by the address that they announce, for nodes behind NAT: "
        "`10.0.0.1:6379=127.0.0.1:7001,...`, or a host for all of its ports",
        _ADDRESSES,
        default_factory=dict,
        hash=False,
    )
    near: frozenset[str] = _setting(
        "CACHE_NEAR",
        "families of keys kept in the process too, coherent by the server's pushes: "
        f"{', '.join(f'`{name}`' for name in NEAR_FAMILIES)}, separated by commas",
        _FAMILIES,
        default=frozenset(),
    )
    encryption_keys: tuple[bytes, ...] = _setting(
        "CACHE_ENCRYPTION_KEYS",
        "encrypts what Redis holds: keys of 32 bytes in base64url, separated by commas; the first encrypts, all "
        f"decrypt. Make one with: `{_MAKE_KEY}` (`docs/encryption.md`)",
        Kind(_encryption_keys, "keys of 32 bytes in base64url"),
        default=(),
        repr=False,
    )
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
        """Read ``REDIS_URL``, ``REDIS_ENABLED`` and the ``CACHE_...`` variables of ``docs/configuration.md``.

        Args:
            redis_url: used instead of ``REDIS_URL``.
            enabled: used instead of ``REDIS_ENABLED``.
            environ: read instead of the process's environment.

        Raises:
            CacheConfigError: a value cannot be used; the text names the variable.
        """
        env = os.environ if environ is None else environ
        given: dict[str, Any] = {"url": redis_url or None, "enabled": enabled}
        values = {name: value for name, value in given.items() if value is not None}
        for name, its in variables_of(cls):
            if name not in values and (text := its.text(env)):
                values[name] = its.read(text)
        return cls(**values, url_is_default=values.get("url", DEFAULT_URL) == DEFAULT_URL)
