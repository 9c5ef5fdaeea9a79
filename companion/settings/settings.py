"""Reads the environment into one frozen Settings. A half-set pair of variables is an error naming the missing one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from cache import CacheSettings
from cache.variables import variables_of

from . import variables
from .env_files import load_env_files
from .errors import settings_errors
from .home import check_home
from .models import ModelChoice, choose_models
from .supabase import check_pair


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of the companion. ``repr`` shows no credential.

    What a field means is said by its variable; None is unset. The order is that of ``docs/configuration.md``.
    """

    home: Path = field(metadata=variables.HOME)
    models: ModelChoice = field(metadata=variables.MODELS)
    llm: str | None = field(default=None, metadata=variables.LLM)
    stt: str | None = field(default=None, metadata=variables.STT)
    tts: str | None = field(default=None, metadata=variables.TTS)
    voice: str | None = field(default=None, metadata=variables.VOICE)
    openai_api_key: str | None = field(default=None, repr=False, metadata=variables.OPENAI_API_KEY)
    openai_base_url: str | None = field(  # it may hold a password
        default=None, repr=False, metadata=variables.OPENAI_BASE_URL
    )
    supabase_url: str | None = field(default=None, metadata=variables.SUPABASE_URL)
    supabase_key: str | None = field(default=None, repr=False, metadata=variables.SUPABASE_SECRET_KEY)
    supabase_legacy_key: str | None = field(default=None, repr=False, metadata=variables.SUPABASE_SERVICE_ROLE_KEY)
    livekit_url: str | None = field(default=None, metadata=variables.LIVEKIT_URL)
    livekit_api_key: str | None = field(default=None, repr=False, metadata=variables.LIVEKIT_API_KEY)
    livekit_api_secret: str | None = field(default=None, repr=False, metadata=variables.LIVEKIT_API_SECRET)
    livekit_agent_name: str | None = field(default=None, metadata=variables.LIVEKIT_AGENT_NAME)
    log_level: str | None = field(default=None, metadata=variables.LOG_LEVEL)
    console_user: str = field(default="console", metadata=variables.USER_ID)
    phone_identity: bool = field(default=False, metadata=variables.PHONE_IDENTITY)
    id_key: bytes | None = field(default=None, repr=False, metadata=variables.ID_KEY)
    operators: frozenset[str] = field(default=frozenset(), metadata=variables.OPERATORS)
    language: str = field(default="en", metadata=variables.LANGUAGE)
    timezone: ZoneInfo | None = field(default=None, metadata=variables.TIMEZONE)
    retention_days: int | None = field(default=None, metadata=variables.RETENTION_DAYS)
    prepare_speech: bool = field(default=True, metadata=variables.PREPARE_SPEECH)
    prepare_days: int = field(default=30, metadata=variables.PREPARE_DAYS)
    watch_share: float = field(default=0.01, metadata=variables.WATCH_SHARE)

    @classmethod
    def load(cls) -> Settings:
        """Read ``.env.local`` and ``.env`` (what is set wins), then the environment.

        Raises:
            SettingsError: a file cannot be read; see :meth:`from_env`.
        """
        names = [its.name for settings in (CacheSettings, cls) for _, its in variables_of(settings)]
        with settings_errors():
            load_env_files(os.environ, tuple({f"{name.partition('_')[0]}_" for name in names}))
        return cls.from_env()

    @classmethod
    def load_with_home(cls) -> Settings:
        """As :meth:`load`, for a program that is about to use the store.

        Raises:
            SettingsError: the store is in a ``home`` that cannot be written; see :meth:`load`.
        """
        settings = cls.load()
        if settings.supabase_url is None:
            with settings_errors():
                check_home(settings.home)
        return settings

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from ``environ`` (the process's where None).

        Raises:
            SettingsError: a variable is missing beside another that needs it, or is unusable.
        """
        env = os.environ if environ is None else environ
        with settings_errors():
            CacheSettings.from_env(environ=env)  # a bad REDIS_URL shows at start, not in the first call
            return cls(**_values(env))


def _values(env: Mapping[str, str]) -> dict[str, Any]:
    """The fields of Settings that the environment sets.

    Raises:
        CacheConfigError: a variable is missing beside another that needs it, or is unusable.
    """
    of_field = dict(variables_of(Settings))
    texts = {its.name: its.text(env) for its in of_field.values()}
    check_pair(texts)
    values = {name: its.read(text) for name, its in of_field.items() if (text := texts[its.name] or its.shown)}
    values["supabase_key"] = values.get("supabase_key") or values.get("supabase_legacy_key")
    values["models"] = choose_models(texts)
    if values["models"] == "openai":
        values.setdefault("openai_api_key", "none")  # OpenAI's client sends one, also to a server that wants none
    return values
