"""Reads ``REDIS_URL``: where Redis is, which credentials it takes, and options that hold for every connection.

Everything is checked here, files included, so that a configuration error shows at start and never in a cache call. An
option that is not in the table is refused. The text of an error never quotes a value: it may be half a password.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address
from typing import Any, Final, Never
from urllib.parse import parse_qsl, unquote, urlsplit

from .exceptions import CacheConfigError
from .url_options import INSTEAD, OPTIONS, OURS, SETTINGS

DEFAULT_URL: Final = "redis://localhost:6379/0"
_TCP: Final = {"redis": False, "rediss": True, "valkey": False, "valkeys": True}  # whether with TLS
_BY_SENTINEL: Final = {f"{scheme}+sentinel": tls for scheme, tls in _TCP.items()}
_SCHEMES: Final = _TCP | _BY_SENTINEL | {"unix": False}
SENTINEL_FORM: Final = "redis+sentinel://host1:26379,host2:26379/mymaster/0"
_ONE_ADDRESS: Final = (
    "Of a cluster write the address of one node: the others are found from it. Where Sentinels watch a primary, write "
    f"{SENTINEL_FORM}."
)
_ENCODE: Final = "If the password contains characters such as / # ? or @, write them percent-encoded (%2F %23 %3F %40)."


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address and credentials of Redis. With ``unix_path``, host, port and ssl_context are not used.

    Nor are host and port with ``sentinels``: the server is the one that these name as the primary of ``master``.
    """

    host: str = "localhost"
    port: int = 6379
    unix_path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    sentinels: tuple[Endpoint, ...] = ()
    master: str = ""


@cache  # files are read once in a process: what was usable at its start stays so
def parse(url: str) -> tuple[Endpoint, dict[str, Any], str]:
    """Return the endpoint, the ``SETTINGS`` among the options, and the URL without credentials and options.

    Raises:
        CacheConfigError: it cannot be used. The text says why, in one line.
    """
    scheme = found[1].lower() if (found := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", url)) else ""
    if scheme not in _SCHEMES:
        _refuse(
            "must begin with redis://, rediss:// (TLS), valkey://, valkeys:// (TLS) or unix://, for example "
            f"{DEFAULT_URL}; it begins with {f'{scheme}://' if scheme else 'something else'}. {_ONE_ADDRESS}"
        )
    if re.search(r"[\s\x00-\x1f\x7f\ud800-\udfff]", url):  # a surrogate: the environment holds no UTF-8
        _refuse(f"contains a space, a control character, or what is no UTF-8. {_ENCODE}")
    sentinel, rest = scheme in _BY_SENTINEL, url.partition("://")[2]
    before, at, place = (authority := re.split("[/?]", rest)[0]).rpartition("@")
    if re.search("@.*,", before) or ("," in place and not sentinel):
        only = "credentials belong before the first one only." if sentinel else f"only one can be used. {_ONE_ADDRESS}"
        _refuse(f"names several hosts, and {only} {_ENCODE}")
    try:
        parts = urlsplit(f"{scheme}://{before}{at}{rest[len(authority) :]}")
        hosts = [_host_and_port(one) for one in place.split(",")]
        path, username, password = (
            unquote(text or "", errors="strict") for text in (parts.path, parts.username, parts.password)
        )
        pairs = parse_qsl(parts.query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        _refuse("is percent-encoded, but not in UTF-8.")
    except ValueError:
        _refuse(f"has a port that is not a number from 1 to 65535. An IPv6 address is written [::1]:6379. {_ENCODE}")
    options = _options(pairs, tls=_SCHEMES[scheme], sentinel=sentinel)
    if "#" in url or (scheme != "unix" and "@" in path):
        _refuse(f"contains #, or an @ after the host. {_ENCODE}")
    database, master = "" if scheme == "unix" else path.strip("/"), ""
    if sentinel:
        master, _, database = database.partition("/")
        if not re.fullmatch(r"[\w.-]+", master, re.ASCII) or not all(host for host, _ in hosts):
            _refuse(f"must name the hosts of the Sentinels, and the master that they watch, as in {SENTINEL_FORM}.")
    if database and not re.fullmatch("[0-9]{1,6}", database, re.ASCII):
        _refuse(f"must end in a database number, as in {DEFAULT_URL}, or in nothing. {_ENCODE}")
    named: dict[str, str | int] = {"username": username, "password": password, "db": int(database) if database else ""}
    for name, value in named.items():
        if value != "" and options.setdefault(name, value) != value:
            _refuse(f"has the option {name}, and another value before the ?. One of them has to go.")
    db = options.pop("db", 0)
    settings = {name: options.pop(name) for name in SETTINGS if name in options}
    who = {name: options.pop(name, None) for name in ("username", "password")}
    asking = {name: options.pop(f"sentinel_{name}", None) for name in who}
    tls = _tls(options) if _SCHEMES[scheme] else None
    if scheme == "unix":
        if place or not path.strip("/") or re.search(r"[\x00-\x1f\x7f]", path):
            _refuse("must be unix:///path/to/socket, with three slashes and no control character.")
        return Endpoint(unix_path=path, **who, db=db), settings, f"unix://{path}" + (f"?db={db}" if db else "")
    if any(port == 0 or not re.fullmatch(r"[\w.:%-]*", host) for host, port in hosts):
        _refuse("must name a host and a port from 1 to 65535, as in redis://host:6379/0.")
    default = 26379 if sentinel else 6379
    places = [(host or "localhost", port or default) for host, port in hosts]
    shown = ",".join(host_port(host, port) for host, port in places)
    if sentinel:
        sentinels = tuple(Endpoint(*one, **asking, ssl_context=tls) for one in places)
        endpoint = Endpoint(**who, db=db, ssl_context=tls, sentinels=sentinels, master=master)
        return endpoint, settings, f"{scheme}://{shown}/{master}/{db}"
    return Endpoint(*places[0], **who, db=db, ssl_context=tls), settings, f"{scheme}://{shown}/{db}"


def host_port(host: str, port: int) -> str:
    """An address as it is written: that of IPv6 in brackets."""
    return f"{f'[{host}]' if ':' in host else host}:{port}"


def canonical(host: str) -> str:
    """One spelling for each host: a name in lower case, an address of IPv6 as short as it can be."""
    try:
        return str(ip_address(host))
    except ValueError:
        return host.lower()


def _host_and_port(text: str) -> tuple[str, int | None]:
    """The host, empty if none is named, and the port. Raises ValueError."""
    parts = urlsplit(f"//{text}")
    return unquote(parts.hostname or "", errors="strict"), parts.port


def read_address_map(text: str) -> dict[str, str]:
    """Pairs ``announced=reachable``, separated by commas. Each is a host with a port, or both are without.

    Raises:
        ValueError: it is something else.
    """
    addresses: dict[str, str] = {}
    for pair in filter(None, (pair.strip() for pair in text.split(","))):
        (announced, with_port), (reachable, to_port) = map(_place, pair.split("="))
        if announced in addresses or with_port != to_port:
            raise ValueError
        addresses[announced] = reachable
    return addresses


def _place(text: str) -> tuple[str, bool]:
    """A host, with its port if it has one; and whether it has. Raises ValueError."""
    host, port = _host_and_port(text.strip())
    if not re.fullmatch(r"[\w.:%-]+", host) or port == 0:
        raise ValueError
    host = canonical(host)
    return host if port is None else f"{host}:{port}", port is not None


def _options(pairs: list[tuple[str, str]], *, tls: bool, sentinel: bool) -> dict[str, Any]:
    """The values of the options."""
    options: dict[str, Any] = {}
    for name, text in pairs:
        if not re.fullmatch("[A-Za-z_]{2,40}", name) or not text or (name not in OPTIONS and "@" in text):
            _refuse(f"has something after its ? that is no option=value. {_ENCODE}")
        if OURS.fullmatch(name):
            _refuse(f"has the option {name}, which the cache sets itself. Leave it out.")
        if name not in OPTIONS:
            _refuse(
                f"has the option {name}, which is unknown: {INSTEAD.get(name) or 'known are ' + ', '.join(OPTIONS)}."
            )
        if name in options:
            _refuse(f"has the option {name} twice.")
        if name.startswith("ssl_") and not tls:
            _refuse(f"has the option {name}, which needs TLS: write rediss:// (or valkeys://).")
        if name.startswith("sentinel_") and not sentinel:
            _refuse(f"has the option {name}, which needs Sentinels: write {SENTINEL_FORM}.")
        try:
            options[name] = OPTIONS[name].read(text)
        except OSError as problem:
            _refuse(f"has the option {name}, which cannot be used ({problem.strerror}).")
        except (ValueError, LookupError):
            _refuse(f"has the option {name}, which must be {OPTIONS[name].must_be}.")
    return options


def _tls(options: Mapping[str, Any]) -> ssl.SSLContext:
    """The TLS context of every connection, with every file read."""
    get = options.get
    with _naming("ssl_ca_certs" if "ssl_ca_certs" in options else "ssl_ca_data"):
        context = ssl.create_default_context(
            cafile=get("ssl_ca_certs"), capath=get("ssl_ca_path"), cadata=get("ssl_ca_data")
        )
    if "ssl_certfile" in options:
        with _naming("ssl_keyfile" if "ssl_keyfile" in options else "ssl_certfile"):
            # A password in any case: without one OpenSSL would ask for it on the terminal.
            context.load_cert_chain(options["ssl_certfile"], get("ssl_keyfile"), get("ssl_password", ""))
    elif alone := {"ssl_keyfile", "ssl_password"} & options.keys():
        _refuse(f"has the option {min(alone)}, and not ssl_certfile.")
    if "ssl_ciphers" in options:
        with _naming("ssl_ciphers"):
            context.set_ciphers(options["ssl_ciphers"])
    required = get("ssl_cert_reqs", ssl.CERT_REQUIRED)
    if required == ssl.CERT_NONE and get("ssl_check_hostname"):
        _refuse("has the option ssl_check_hostname, but with ssl_cert_reqs=none nothing is checked.")
    context.check_hostname = get("ssl_check_hostname", True) and required != ssl.CERT_NONE
    context.verify_mode = required  # for a client, optional is the same as required
    context.minimum_version = get("ssl_min_version", context.minimum_version)
    none = ssl.VerifyFlags(0)
    context.verify_flags |= get("ssl_include_verify_flags", none)
    context.verify_flags &= ~get("ssl_exclude_verify_flags", none)
    return context


@contextmanager
def _naming(option: str) -> Iterator[None]:
    """Name the option whose file or value TLS cannot use."""
    try:
        yield
    except (OSError, ValueError) as problem:  # SSLError is an OSError
        why = getattr(problem, "reason", None) or getattr(problem, "strerror", None) or type(problem).__name__
        _refuse(f"has the option {option}, which cannot be used ({why}).")


def _refuse(text: str) -> Never:
    raise CacheConfigError(f"REDIS_URL {text}") from None
