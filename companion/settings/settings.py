"""Reads the environment into one frozen Settings. A half-set pair of variables is an error naming the missing one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from cache import CacheSettings
from cache.variables import FLAG, Kind, variable, variables_of

from . import kinds
from .env_files import load_env_files
from .errors import settings_errors
from .home import check_home, home_of
from .models import ModelChoice, checked_base_url, choose_models
from .supabase import check_pair, project_url

CONSOLE_USER: Final = "console"
_PREFIXES: Final = ("REDIS_", "CACHE_", "SUPABASE_", "OPENAI_", "COMPANION_", "LIVEKIT_")
_supabase = partial(variable, section="Supabase, the source of truth")
_livekit = partial(variable, section="LiveKit")
_model = partial(variable, section="Models")
_own = partial(variable, section="Companion")


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of the companion. ``repr`` shows no credential.

    What a field means is said by its variable, from which ``docs/configuration.md`` is written; None is unset.
    """

    home: Path = field(
        metadata=_own(
            "COMPANION_HOME",
            "folder of the SQLite database, the private Redis, and what the store has not taken yet",
            Kind(home_of, "a folder"),
            shown=".companion",
        )
    )
    models: ModelChoice = field(
        metadata=_model(
            "COMPANION_MODELS",
            "`openai` (or a server that speaks its protocol), `inference` (LiveKit Cloud) or `offline`. Unset: "
            "`openai` with `OPENAI_BASE_URL`; `inference` with a model named `provider/model`; `openai` with "
            "`OPENAI_API_KEY`; `inference` with a LiveKit Cloud URL, key and secret; else `offline`",
        )
    )
    llm: str | None = field(
        default=None,
        metadata=_model(
            "COMPANION_LLM",
            "the model that thinks: `provider/model` for LiveKit Inference; for OpenAI, and servers that speak its "
            "protocol, a name that the server knows, such as `llama3.2`. Unset: `openai/gpt-4.1-mini`, or "
            "`gpt-4.1-mini`",
        ),
    )
    stt: str | None = field(
        default=None,
        metadata=_model(
            "COMPANION_STT",
            "the model that listens, likewise. Unset: `deepgram/nova-3`, or `gpt-4o-mini-transcribe`; `off`: the "
            "conversation is in text",
            kinds.MODEL_OR_OFF,
        ),
    )
    tts: str | None = field(
        default=None,
        metadata=_model(
            "COMPANION_TTS",
            "the model that speaks, likewise. Unset: `cartesia/sonic-3`, or `gpt-4o-mini-tts`; `off`: the companion "
            "answers in text",
            kinds.MODEL_OR_OFF,
        ),
    )
    voice: str | None = field(
        default=None,
        metadata=_model("COMPANION_VOICE", "the voice of that model, by the name or id that its provider gives it"),
    )
    openai_api_key: str | None = field(
        default=None,
        repr=False,
        metadata=_model("OPENAI_API_KEY", "the key; a server of your own may need none", secret=True),
    )
    openai_base_url: str | None = field(
        default=None,
        repr=False,  # it may hold a password
        metadata=_model(
            "OPENAI_BASE_URL",
            "another server that speaks OpenAI's protocol, such as `http://localhost:11434/v1`",
            Kind(checked_base_url, "an address"),
        ),
    )
    supabase_url: str | None = field(
        default=None,
        metadata=_supabase(
            "SUPABASE_URL",
            "`https://PROJECT.supabase.co`. Unset: SQLite in `COMPANION_HOME`",
            Kind(project_url, "an address"),
        ),
    )
    supabase_key: str | None = field(
        default=None,
        repr=False,
        metadata=_supabase("SUPABASE_SECRET_KEY", "its secret key (`sb_secret_...`), for servers only", secret=True),
    )
    supabase_legacy_key: str | None = field(
        default=None,
        repr=False,
        metadata=_supabase(
            "SUPABASE_SERVICE_ROLE_KEY",
            "its legacy service-role key, likewise; used where there is no secret key",
            secret=True,
        ),
    )
    livekit_url: str | None = field(
        default=None,
        metadata=_livekit("LIVEKIT_URL", "your LiveKit server, such as `wss://PROJECT.livekit.cloud`"),
    )
    livekit_api_key: str | None = field(
        default=None, repr=False, metadata=_livekit("LIVEKIT_API_KEY", "its key", secret=True)
    )
    livekit_api_secret: str | None = field(
        default=None, repr=False, metadata=_livekit("LIVEKIT_API_SECRET", "its secret", secret=True)
    )
    livekit_agent_name: str | None = field(
        default=None,
        metadata=_livekit(
            "LIVEKIT_AGENT_NAME", "the worker takes only jobs that are dispatched to this name. Unset: every new room"
        ),
    )
    log_level: str | None = field(
        default=None,
        metadata=_livekit(
            "LIVEKIT_LOG_LEVEL",
            "`TRACE`, `DEBUG`, `INFO`, `WARN`, `ERROR` or `CRITICAL`. Unset: `INFO`, and silence in the console",
            kinds.LOG_LEVEL,
        ),
    )
    console_user: str = field(
        default=CONSOLE_USER,
        metadata=_own(
            "COMPANION_USER_ID", "who the console talks as", kinds.user_id("COMPANION_USER_ID"), shown=CONSOLE_USER
        ),
    )
    phone_identity: bool = field(
        default=False,
        metadata=_own(
            "COMPANION_PHONE_IDENTITY",
            "`true`: a caller on the phone is known by their number, as E.164, whatever the trunk delivers. A caller "
            "id can be forged: see `docs/security.md`",
            kinds.PHONE_IDENTITY,
            shown="false",
        ),
    )
    id_key: bytes | None = field(
        default=None,
        repr=False,
        metadata=_own(
            "COMPANION_ID_KEY",
            "with it, a keyed hash is kept in place of a phone number: any text of 16 characters and more. Callers "
            "known so far are found again; with another key, those who were known before the first one. Make one with: "
            f"`{kinds.MAKE_KEY}`",
            kinds.ID_KEY,
            secret=True,
            exact=True,  # hashes that are stored were made with the text as it is
        ),
    )
    operators: frozenset[str] = field(
        default=frozenset(),
        metadata=_own(
            "COMPANION_OPERATORS",
            "user ids, separated by commas, that may invalidate other users' cache entries",
            kinds.user_ids("COMPANION_OPERATORS"),
        ),
    )
    language: str = field(
        default="en",
        metadata=_own(
            "COMPANION_LANGUAGE",
            "language of speech, such as `de` or `pt-BR`; what a person has chosen wins (`docs/memory.md`)",
            kinds.LANGUAGE,
            shown="en",
        ),
    )
    timezone: ZoneInfo | None = field(
        default=None,
        metadata=_own(
            "COMPANION_TIMEZONE",
            "time zone of the callers, such as `Europe/Berlin`. Unset: the time of the worker's clock, and the model "
            "knows that the caller may be elsewhere",
            kinds.TIMEZONE,
        ),
    )
    retention_days: int | None = field(
        default=None,
        metadata=_own(
            "COMPANION_RETENTION_DAYS",
            "days after which turns are deleted, of all users. Unset: never. Profile, facts and summaries stay",
            kinds.DAYS,
        ),
    )
    prepare_speech: bool = field(
        default=True,
        metadata=_own(
            "COMPANION_PREPARE_SPEECH",
            "where there is a voice: speak the next greeting when a conversation ends, so that it is played at the "
            "next start without a model or a voice; costs one or two calls of the voice a conversation, also for "
            "people who do not come back",
            FLAG,
            shown="true",
        ),
    )
    prepare_days: int = field(
        default=30,
        metadata=_own(
            "COMPANION_PREPARE_DAYS",
            "days since a person's last conversation within which a greeting is prepared that a killed job has left",
            kinds.DAYS,
            shown="30",
        ),
    )
    watch_share: float = field(
        default=0.01,
        metadata=_own(
            "COMPANION_WATCH_SHARE",
            "share of the writes that are looked at again in cache and store five seconds later; stale ones are "
            "counted (`stale_reads` in `get_stats`), logged and removed",
            kinds.SHARE,
            shown="0.01",
        ),
    )

    @classmethod
    def load(cls) -> Settings:
        """Read ``.env.local`` and ``.env`` (what is set wins), then the environment.

        Raises:
            SettingsError: a file cannot be read; see :meth:`from_env`.
        """
        with settings_errors():
            load_env_files(os.environ, _PREFIXES)
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
    variables = dict(variables_of(Settings))
    texts = {its.name: its.text(env) for its in variables.values()}
    check_pair(texts)
    values = {name: its.read(text) for name, its in variables.items() if (text := texts[its.name] or its.shown)}
    values["supabase_key"] = values.get("supabase_key") or values.get("supabase_legacy_key")
    values["models"] = choose_models(texts)
    if values["models"] == "openai":
        values.setdefault("openai_api_key", "none")  # OpenAI's client sends one, also to a server that wants none
    return values
