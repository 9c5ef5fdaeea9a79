"""The options that ``REDIS_URL`` may have after its ``?``: their names, and what their values may be."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Mapping
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, Final, NamedTuple

from .exceptions import CacheConfigError


class Kind(NamedTuple):
    """What the value of an option may be: ``read`` makes it of its text, or raises ValueError or LookupError."""

    read: Callable[[str], Any]
    must_be: str


def number(low: float, high: float, unit: str = "", of: type[int] | type[float] = float) -> Kind:
    """Numbers, both limits included."""

    def read(text: str) -> float:
        value = of(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text, re.ASCII) else -1
        if not low <= value <= high:
            raise ValueError
        return value

    whole = "whole " if of is int else ""
    return Kind(read, f"a {whole}number{unit and f' of {unit}'} from {low} to {high}")


def one_of(values: Mapping[str, Any], must_be: str) -> Kind:
    """One of these names, in any case and with a usual prefix or without."""
    return Kind(lambda text: values[re.sub("^(CERT_|TLSV)", "", text.upper()).replace("_", ".")], must_be)


def _file(text: str) -> str:
    with Path(text).open("rb"):
        return text


def _folder(text: str) -> str:
    with os.scandir(text):
        return text


FLAG: Final = one_of(
    dict.fromkeys(("1", "TRUE", "YES", "ON"), True) | dict.fromkeys(("0", "FALSE", "NO", "OFF"), False), "true or false"
)
TEXT: Final = Kind(str, "a text")
_TLS_1_2, _TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
_VERIFY_FLAGS: Final = Kind(
    lambda text: reduce(or_, [ssl.VerifyFlags[flag.strip()] for flag in text.split(",")]),
    "names of ssl.VerifyFlags separated by commas, such as VERIFY_X509_STRICT",
)
_SETTINGS: Final = {
    "max_connections": number(1, 100_000, of=int),
    "socket_connect_timeout": number(0.01, 3600, "seconds"),
    "socket_timeout": number(0.01, 3600, "seconds"),
    "retry_on_timeout": FLAG,
    "health_check_interval": number(0, 3600, "seconds"),
}
SETTINGS: Final = tuple(_SETTINGS)
"""The options that are settings of the cache."""
OPTIONS: Final = _SETTINGS | {
    "db": number(0, 999_999, of=int),
    **dict.fromkeys(("username", "password", "sentinel_username", "sentinel_password"), TEXT),
    "ssl_cert_reqs": one_of(
        {"NONE": ssl.CERT_NONE, "OPTIONAL": ssl.CERT_OPTIONAL, "REQUIRED": ssl.CERT_REQUIRED},
        "none, optional or required (with CERT_ or without)",
    ),
    "ssl_check_hostname": FLAG,
    **dict.fromkeys(("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"), Kind(_file, "a file")),
    "ssl_ca_path": Kind(_folder, "a folder"),
    **dict.fromkeys(("ssl_ca_data", "ssl_password", "ssl_ciphers"), TEXT),
    "ssl_min_version": one_of(
        {"1.2": _TLS_1_2, "771": _TLS_1_2, "1.3": _TLS_1_3, "772": _TLS_1_3},  # redis-py takes the numbers
        "1.2 or 1.3",
    ),
    **dict.fromkeys(("ssl_include_verify_flags", "ssl_exclude_verify_flags"), _VERIFY_FLAGS),
}
"""The options that ``REDIS_URL`` may have after its ``?``. The names are redis-py's."""
OURS: Final = re.compile(
    "client_name|connection_class|credential_provider|decode_responses|driver_info|encod.*|legacy_responses|lib_.*|"
    "parser_class|protocol|retry|retry_on_error|single_connection_client|socket_keepalive.*|socket_read_size|socket_type"
)
"""Options of redis-py that the cache sets: with another value it would not work, or not as documented."""
INSTEAD: Final = {
    "host": "the host belongs before the first /",
    "port": "the port belongs before the first /",
    "path": "write unix:///path/to/socket",
    "timeout": "write socket_timeout or socket_connect_timeout",
    **dict.fromkeys(("ssl", "tls"), "write rediss:// for TLS"),
}


def check_settings(values: Mapping[str, Any]) -> None:
    """Check settings that were given otherwise than in a URL.

    Raises:
        CacheConfigError: a value is out of range.
    """
    for name in SETTINGS:
        try:
            OPTIONS[name].read(str(values[name]))
        except (ValueError, LookupError):
            raise CacheConfigError(f"{name} must be {OPTIONS[name].must_be}.") from None
