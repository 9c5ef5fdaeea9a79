"""Reads the environment into one frozen Settings. A half-set pair of variables is an error naming the missing one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, cast
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from dotenv import find_dotenv, load_dotenv

from cache import CacheConfigError, CacheSettings

from .identity import UnusableIdentity, user_id_of
from .store import public_kind

ModelChoice = Literal["openai", "inference", "offline"]
CONSOLE_USER: Final = "console"
_MIN_ID_KEY: Final = 16  # characters


class SettingsError(ValueError):
    """A setting is missing or unusable. The text names the variable and what to do, never its value."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of the companion. ``repr`` shows no credential.

    Attributes:
        home: folder of local data (the SQLite database, the private Redis, the spool).
        models: which models listen, think and speak.
        supabase_url: the hosted store; None for SQLite in ``home``.
        supabase_key: its secret key, or its legacy service-role key.
        openai_api_key: for ``models == "openai"``.
        openai_base_url: another server that speaks OpenAI's protocol.
        console_user: user id of the console's caller.
        phone_identity: whether a caller on the phone is known by their number.
        id_key: of the hash that stands for a phone number; None stores the number.
        operators: user ids that may invalidate other users' cache entries.
        language: language code of speech, such as ``en``.
        timezone: the callers' time zone; None where it is not known.
        retention_days: days after which turns are deleted; None to keep them.
        prepare_speech: whether the speech of the next greeting is prepared when a conversation ends.
        prepare_days: days since their last conversation within which a person's next greeting is prepared.
        watch_share: share of the writes that the consistency watch checks for stale reads, 0 to 1.
    """

    home: Path
    models: ModelChoice
    supabase_url: str | None = None
    supabase_key: str | None = field(default=None, repr=False)
    openai_api_key: str | None = field(default=None, repr=False)
    openai_base_url: str | None = None
    console_user: str = CONSOLE_USER
    phone_identity: bool = False
    id_key: bytes | None = field(default=None, repr=False)
    operators: frozenset[str] = frozenset()
    language: str = "en"
    timezone: ZoneInfo | None = None
    retention_days: int | None = None
    prepare_speech: bool = True
    prepare_days: int = 30
    watch_share: float = 0.01

    @classmethod
    def load(cls) -> Settings:
        """Read ``.env`` of the working directory (the real environment wins), then the environment.

        Raises:
            SettingsError: see :meth:`from_env`.
        """
        load_dotenv(find_dotenv(usecwd=True))
        return cls.from_env()

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from ``environ`` (the process's where None).

        Raises:
            SettingsError: a variable is missing beside another that needs it, or is unusable.
        """
        env = {name: value.strip() for name, value in (os.environ if environ is None else environ).items()}
        try:
            CacheSettings.from_env(environ=env)  # a bad REDIS_URL shows at start, not in the first call
        except CacheConfigError as problem:
            raise SettingsError(str(problem)) from None
        url = env.get("SUPABASE_URL") or None
        # The newer kind first: Supabase phases the legacy one out.
        key_name = "SUPABASE_SECRET_KEY" if env.get("SUPABASE_SECRET_KEY") else "SUPABASE_SERVICE_ROLE_KEY"
        key = env.get(key_name) or None
        if url and not key:
            raise SettingsError(
                "SUPABASE_URL is set but SUPABASE_SECRET_KEY (or the legacy SUPABASE_SERVICE_ROLE_KEY) is not. Set it, "
                "or unset SUPABASE_URL to keep everything in a local SQLite file."
            )
        if key and not url:
            raise SettingsError("A Supabase key is set but SUPABASE_URL is not. Set it, or unset the key.")
        if key and (kind := public_kind(key)):
            raise SettingsError(
                f"{key_name} is the project's {kind} key, which is public. Set it to the secret key (sb_secret_...) or "
                "the legacy service-role key, from the project's API settings."
            )
        if url and (not _host(url) or urlsplit(url).scheme not in ("http", "https")):
            raise SettingsError("SUPABASE_URL must begin with https://, as shown in the project's API settings.")
        if url:
            _require("supabase", "supabase", "SUPABASE_URL is set")
        if env.get("OPENAI_BASE_URL") and not (env.get("OPENAI_API_KEY") or env.get("COMPANION_MODELS")):
            raise SettingsError(
                "OPENAI_BASE_URL is set but OPENAI_API_KEY is not. Set it (any text will do where the server wants no "
                "key), or unset OPENAI_BASE_URL."
            )
        models = _models(env)
        if models == "openai":
            _require("livekit.plugins.openai", "openai", "COMPANION_MODELS is openai, or OPENAI_API_KEY is set")
        return cls(
            home=Path(env.get("COMPANION_HOME") or ".companion").expanduser().absolute(),
            models=models,
            supabase_url=url,
            supabase_key=key,
            openai_api_key=env.get("OPENAI_API_KEY") or None,
            openai_base_url=env.get("OPENAI_BASE_URL") or None,
            console_user=_user_id(env.get("COMPANION_USER_ID") or CONSOLE_USER, "COMPANION_USER_ID"),
            phone_identity=_phone_identity(env.get("COMPANION_PHONE_IDENTITY") or "false"),
            id_key=_id_key(env.get("COMPANION_ID_KEY") or ""),
            operators=frozenset(
                _user_id(one.strip(), "COMPANION_OPERATORS")
                for one in env.get("COMPANION_OPERATORS", "").split(",")
                if one.strip()
            ),
            language=_language(env.get("COMPANION_LANGUAGE") or "en"),
            timezone=_timezone(env.get("COMPANION_TIMEZONE") or ""),
            retention_days=_retention_days(env.get("COMPANION_RETENTION_DAYS") or ""),
            prepare_speech=_flag("COMPANION_PREPARE_SPEECH", env.get("COMPANION_PREPARE_SPEECH") or "true"),
            prepare_days=_days("COMPANION_PREPARE_DAYS", env.get("COMPANION_PREPARE_DAYS") or "30"),
            watch_share=_share(env.get("COMPANION_WATCH_SHARE") or "0.01"),
        )


def check_worker(arguments: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
    """Check that a worker about to start knows its LiveKit server.

    Args:
        arguments: the command line, ``sys.argv``.
        environ: the process's environment where None.

    Raises:
        SettingsError: the command is ``start``, ``dev`` or ``connect``, and a variable is missing.
    """
    command = arguments[1] if len(arguments) > 1 else ""
    if command not in ("start", "dev", "connect") or "--help" in arguments:
        return
    env = os.environ if environ is None else environ
    given = {word.split("=")[0] for word in arguments}
    wanted = {"LIVEKIT_URL": "--url", "LIVEKIT_API_KEY": "--api-key", "LIVEKIT_API_SECRET": "--api-secret"}
    missing = [name for name, option in wanted.items() if not env.get(name) and option not in given]
    if missing:
        raise SettingsError(
            f"'{command}' needs {', '.join(missing)} (in the environment or in .env). "
            "To talk without a LiveKit server: make console, or companion console --text"
        )


def _require(module: str, extra: str, reason: str) -> None:
    """Check that a package of an extra is installed.

    To an import, a folder with the name of a missing package (``supabase/`` with its migrations) is an empty namespace
    package: it is found, but it has no file.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # nor is the package that it is a part of
        spec = None
    if spec is None or spec.origin is None:
        raise SettingsError(
            f"{reason}, but the package {module} is not installed: pip install 'livekit-companion[{extra}]'"
        )


def _models(env: Mapping[str, str]) -> ModelChoice:
    chosen = env.get("COMPANION_MODELS", "").lower()
    livekit = {name: env.get(name) for name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")}
    if not chosen:
        if env.get("OPENAI_API_KEY"):
            return "openai"
        # A self-hosted LiveKit server has no Inference, so only a Cloud address chooses it.
        cloud = _host(livekit["LIVEKIT_URL"] or "").endswith(".livekit.cloud")
        return "inference" if cloud and all(livekit.values()) else "offline"
    if chosen not in ("openai", "inference", "offline"):
        raise SettingsError(f"COMPANION_MODELS must be openai, inference or offline, not {chosen[:20]!r}.")
    if chosen == "openai" and not env.get("OPENAI_API_KEY"):
        raise SettingsError(
            "COMPANION_MODELS=openai needs OPENAI_API_KEY (any text will do for a local server behind OPENAI_BASE_URL)."
        )
    missing = [name for name, value in livekit.items() if not value]
    if chosen == "inference" and missing:
        raise SettingsError(f"COMPANION_MODELS=inference needs {', '.join(missing)} of a LiveKit Cloud project.")
    return cast(ModelChoice, chosen)


def _host(url: str) -> str:
    """The host of a URL; empty if there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _user_id(text: str, variable: str) -> str:
    try:
        return user_id_of(text)
    except UnusableIdentity as problem:
        raise SettingsError(f"{variable}: {problem}.") from None


def _days(variable: str, text: str, unset: str = "") -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 36_500):
        raise SettingsError(f"{variable} must be a whole number of days from 1 to 36500{unset}.")
    return int(text)


def _retention_days(text: str) -> int | None:
    return _days("COMPANION_RETENTION_DAYS", text, "; unset: for ever") if text else None


def _flag(variable: str, text: str) -> bool:
    if text.lower() not in ("true", "1", "yes", "on", "false", "0", "no", "off"):
        raise SettingsError(f"{variable} must be true or false.")
    return text.lower() in ("true", "1", "yes", "on")


def _phone_identity(text: str) -> bool:
    if wanted := _flag("COMPANION_PHONE_IDENTITY", text):
        _require("phonenumbers", "phone", "COMPANION_PHONE_IDENTITY is true")
    return wanted


def _id_key(text: str) -> bytes | None:
    if text and len(text) < _MIN_ID_KEY:
        raise SettingsError(
            f"COMPANION_ID_KEY must have {_MIN_ID_KEY} characters at least, or others can find the numbers by trying. "
            "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return text.encode() or None


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise SettingsError("COMPANION_WATCH_SHARE must be a number from 0 (no write is checked) to 1 (every one is).")
    return share


def _language(text: str) -> str:
    if not (2 <= len(text) <= 12 and text.replace("-", "").isalnum() and text.isascii()):
        raise SettingsError("COMPANION_LANGUAGE must be a language code such as en, de or pt-BR.")
    return text


def _timezone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ValueError, OSError, LookupError):  # not a name, a folder of names, or not known here
        raise SettingsError("COMPANION_TIMEZONE must be the name of a time zone such as Europe/Berlin.") from None
