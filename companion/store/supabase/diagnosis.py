"""What a failed request to Supabase means and what to do, in one line without anything a user said."""

import json
import re
from typing import Final

import aiohttp

_CODE: Final = re.compile(r"[0-9A-Z]{5}|PGRST[0-9A-Z]{3}")
_OUR_NAME: Final = re.compile(r"\bcompanion_[a-z_]+\b")
_MIGRATE: Final = "apply supabase/migrations (`supabase db push`)"
# Codes of PostgREST and PostgreSQL for what is not there.
_MISSING: Final = {
    "PGRST202": "function",
    "42883": "function",
    "PGRST205": "table",
    "42P01": "table",
    "PGRST204": "column",
    "42703": "column",
}
_BY_CODE: Final = {
    "PGRST106": "the data API does not expose the schema public: see the project's API settings",
    "PGRST303": "the key has expired: set SUPABASE_SECRET_KEY to the project's secret key",
    "42501": f"a right is missing: {_MIGRATE}",
} | dict.fromkeys(
    ("PGRST000", "PGRST001", "PGRST002", "PGRST003"), "the project's database does not answer: see its dashboard"
)
_BY_STATUS: Final = {
    401: "the key is refused: SUPABASE_SECRET_KEY must be the secret key of the project at SUPABASE_URL",
    404: "no data API at this address: SUPABASE_URL must be https://PROJECT.supabase.co",
    540: "the project is paused: restore it in its dashboard",
}


def error_code(body: bytes) -> str:
    """Read the code of PostgREST or PostgreSQL from an error's body; empty if there is none."""
    return _code_and_message(body)[0]


def explain_answer(status: int, body: bytes) -> str:
    """Explain an error that the server answered with.

    Args:
        status: its HTTP status.
        body: its body. Only its error code, and names that our own migrations give, are repeated.
    """
    code, message = _code_and_message(body)
    known = _CODE.fullmatch(code) is not None
    if code in _MISSING:
        name = _OUR_NAME.search(message)
        advice = f"the {_MISSING[code]} {name[0]} is missing: {_MIGRATE}" if name else f"not migrated: {_MIGRATE}"
    elif status == 401 and code == "42501":  # PostgREST's status for a role that is not signed in
        advice = "the key is a public one: set SUPABASE_SECRET_KEY to the project's secret key"
    else:
        advice = _BY_CODE.get(code) or _BY_STATUS.get(status, "")
    return f"HTTP {status}{f' {code}' if known else ''}{f' ({advice})' if advice else ''}"


def explain_failure(error: BaseException) -> str:
    """Explain a request that got no answer."""
    if isinstance(error, TimeoutError):
        return "timeout"
    advice = ""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        advice = "the certificate of this address is not trusted"
    elif isinstance(error, aiohttp.ClientConnectorDNSError):
        advice = "no such host: check SUPABASE_URL, and whether the project still exists"
    elif isinstance(error, aiohttp.ClientConnectorError):
        advice = "the project cannot be reached: check SUPABASE_URL and the network"
    return f"{type(error).__name__}{f' ({advice})' if advice else ''}"


def _code_and_message(body: bytes) -> tuple[str, str]:
    try:
        answer = json.loads(body)
        return str(answer["code"]), str(answer.get("message"))
    except (ValueError, TypeError, LookupError, AttributeError):
        return "", ""
