"""``SUPABASE_URL`` and the two variables of its key: made uniform, or refused with what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

from cache import CacheConfigError

from ..store import public_kind
from .extras import require

KEYS: Final = ("SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY")
"""The variables of the key, the newer kind first: Supabase phases the legacy one out."""
_CLOUD: Final = (".supabase.co", ".supabase.in", ".supabase.red")
_DASHBOARD: Final = re.compile(r"(?:www\.|app\.|studio\.)?supabase\.(?:com|io|green)")
_PROJECT: Final = re.compile(r"/projects?/([a-z0-9]{20})(?:/|$)")
_API: Final = re.compile(r"/(?:rest|auth|storage|realtime|functions|graphql)/v1(?:/.*)?$", re.IGNORECASE)
_MARKS: Final = re.compile(r"[<>{}*$]|\.\.\.|(?:^|\.)example(?:\.(?:com|org|net))?(?:/|$)", re.IGNORECASE)
_PLACEHOLDER: Final = re.compile(
    r"(?:x{3,}|your(?:[-_].*|(?:supabase|project|url|ref).*)?|(?:supabase[-_]?)?project(?:[-_]?(?:ref|id|url|name))?"
    r"|example|placeholder|changeme|todo|ref|abcdefghijklmnopqrst)(?:\.supabase\.\w+)?",
    re.IGNORECASE,
)
_KEY_PLACEHOLDER: Final = re.compile(r"[<>{}]|\.\.\.|^(?:your|my)[-_]|^x{3,}$|^(?:changeme|placeholder|todo)$", re.I)
_ADVICE: Final = "Set it to https://PROJECT.supabase.co, as shown in the project's API settings."


def project_url(text: str) -> str:
    """The address of a project, without what belongs to one of its APIs.

    Raises:
        CacheConfigError: it is none.
    """
    parts = _split(text)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        kind = "a database's address" if parts.scheme.startswith("postgres") else ""
        raise _refused(f"is {kind}" if kind else "must begin with https://")
    if parts.username is not None or parts.password is not None:
        raise _refused("contains a user name or a password; the key belongs into SUPABASE_SECRET_KEY")
    if _DASHBOARD.fullmatch(host):
        found = _PROJECT.search(parts.path)
        its = f"Set it to https://{found[1]}.supabase.co." if found else _ADVICE
        raise _refused("is the dashboard's address", its)
    if _MARKS.search(f"{host}{parts.path}") or _PLACEHOLDER.fullmatch(host):
        raise _refused("is a placeholder")
    if parts.query or parts.fragment:
        raise _refused("must end before the ? or #")
    if host.startswith("db.") and host.endswith(_CLOUD):
        raise _refused("is the database's address", f"Set it to https://{host.removeprefix('db.')}.")
    path = _API.sub("", parts.path).rstrip("/")
    if host.endswith(_CLOUD) and (path or parts.scheme == "http"):
        raise _refused(f"must be https://{host}", "")
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{path}"


def check_pair(texts: Mapping[str, str]) -> None:
    """Check that address and key are both set, or neither, and that the key is none of the public ones.

    Args:
        texts: of the variables.

    Raises:
        CacheConfigError: one is missing, or is no secret key.
    """
    url, name = texts["SUPABASE_URL"], next((name for name in KEYS if texts[name]), None)
    if url and name is None:
        raise CacheConfigError(
            "SUPABASE_URL is set but SUPABASE_SECRET_KEY (or the legacy SUPABASE_SERVICE_ROLE_KEY) is not. Set it, "
            "or unset SUPABASE_URL to keep everything in a local SQLite file."
        )
    if name is not None and not url:
        raise CacheConfigError(f"{name} is set but SUPABASE_URL is not. Set it, or unset the key.")
    if name is not None:
        _check_key(name, texts[name])
        require("supabase", "supabase", "SUPABASE_URL is set")


def _check_key(name: str, key: str) -> None:
    if kind := public_kind(key):
        raise CacheConfigError(
            f"{name} is the project's {kind} key, which is public. Set it to the secret key (sb_secret_...) or "
            "the legacy service-role key, from the project's API settings."
        )
    if _KEY_PLACEHOLDER.search(key):
        raise CacheConfigError(
            f"{name} is a placeholder. Set it to the secret key (sb_secret_...) from the project's API settings."
        )


def _split(text: str) -> SplitResult:
    try:
        if any(char.isspace() for char in text):
            raise ValueError
        parts = urlsplit(text)
        _ = parts.port  # is it a number?
        return parts
    except ValueError:
        raise _refused("is no address") from None


def _refused(why: str, advice: str = _ADVICE) -> CacheConfigError:
    return CacheConfigError(f"SUPABASE_URL {why}. {advice}".rstrip())
