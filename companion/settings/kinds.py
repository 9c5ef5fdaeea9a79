"""What the companion's variables may be."""

from __future__ import annotations

from functools import partial
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cache import CacheConfigError
from cache.variables import FLAG, Kind, number

from ..identity import UnusableIdentity, language_code, user_id_of
from .extras import require
from .models import OFF

MAKE_KEY: Final = "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
_MIN_ID_KEY: Final = 16  # characters


def _user_id(variable: str, text: str) -> str:
    try:
        return user_id_of(text)
    except UnusableIdentity as problem:
        raise CacheConfigError(f"{variable}: {problem}.") from None


def _phone_identity(text: str) -> bool:
    if wanted := FLAG.read(text):
        require("phonenumbers", "phone", "COMPANION_PHONE_IDENTITY is true")
    return bool(wanted)


def _id_key(text: str) -> bytes:
    if len(text) < _MIN_ID_KEY:
        raise CacheConfigError(
            f"COMPANION_ID_KEY must have {_MIN_ID_KEY} characters at least, or others can find the numbers by trying. "
            f"Make one with: {MAKE_KEY}"
        )
    return text.encode("utf-8", "surrogateescape")


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise ValueError
    return share


def _language(text: str) -> str:
    if not (code := language_code(text)):
        raise ValueError
    return code


def _timezone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)  # raises an OSError for a folder of names
    except ZoneInfoNotFoundError:
        if not available_timezones():
            raise CacheConfigError(
                "COMPANION_TIMEZONE is set, but this system has no time zones: pip install tzdata"
            ) from None
        raise


USER_ID: Final = Kind(partial(_user_id, "COMPANION_USER_ID"), "a user id")
OPERATORS: Final = Kind(
    lambda text: frozenset(_user_id("COMPANION_OPERATORS", one.strip()) for one in text.split(",") if one.strip()),
    "user ids, separated by commas",
)
DAYS: Final = number(1, 36_500, "days", of=int)
PHONE_IDENTITY: Final = Kind(_phone_identity, FLAG.must_be)
ID_KEY: Final = Kind(_id_key, f"a text of {_MIN_ID_KEY} characters and more")
SHARE: Final = Kind(_share, "a number from 0 (no write is checked) to 1 (every one is)")
LANGUAGE: Final = Kind(_language, "a language code such as en, de or pt-BR")
TIMEZONE: Final = Kind(_timezone, "the name of a time zone such as Europe/Berlin")
LOG_LEVEL: Final = Kind(
    lambda text: {name: name for name in ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "CRITICAL")}[text.upper()],
    "TRACE, DEBUG, INFO, WARN, ERROR or CRITICAL",
)
MODEL_OR_OFF: Final = Kind(lambda text: OFF if text.lower() == OFF else text, "the name of a model, or off")
