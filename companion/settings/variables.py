"""The companion's variables of the environment: what each is called, means and may be."""

from __future__ import annotations

from functools import partial

from cache.variables import FLAG, Kind, variable

from . import kinds
from .home import home_of
from .models import DEFAULTS, checked_base_url
from .supabase import project_url

_supabase = partial(variable, section="Supabase, the source of truth")
_livekit = partial(variable, section="LiveKit")
_model = partial(variable, section="Models")
_own = partial(variable, section="Companion")


def _usual(name: str) -> str:
    """The models that are used where the variable names none."""
    return f"`{DEFAULTS['inference'][name]}`, or `{DEFAULTS['openai'][name]}`"


HOME = _own(
    "COMPANION_HOME",
    "folder of the SQLite database, the private Redis, and what the store has not taken yet",
    Kind(home_of, "a folder"),
    shown=".companion",
)
MODELS = _model(
    "COMPANION_MODELS",
    "`openai` (or a server that speaks its protocol), `inference` (LiveKit Cloud) or `offline`. Unset: `openai` with "
    "`OPENAI_BASE_URL`; `inference` with a model named `provider/model`; `openai` with `OPENAI_API_KEY`; `inference` "
    "with a LiveKit Cloud URL, key and secret; else `offline`",
)
LLM = _model(
    "COMPANION_LLM",
    "the model that thinks: `provider/model` for LiveKit Inference; for OpenAI, and servers that speak its protocol, "
    f"a name that the server knows, such as `llama3.2`. Unset: {_usual('COMPANION_LLM')}",
)
STT = _model(
    "COMPANION_STT",
    f"the model that listens, likewise. Unset: {_usual('COMPANION_STT')}; `off`: the conversation is in text",
    kinds.MODEL_OR_OFF,
)
TTS = _model(
    "COMPANION_TTS",
    f"the model that speaks, likewise. Unset: {_usual('COMPANION_TTS')}; `off`: the companion answers in text",
    kinds.MODEL_OR_OFF,
)
VOICE = _model("COMPANION_VOICE", "the voice of that model, by the name or id that its provider gives it")
OPENAI_API_KEY = _model("OPENAI_API_KEY", "the key; a server of your own may need none", secret=True)
OPENAI_BASE_URL = _model(
    "OPENAI_BASE_URL",
    "another server that speaks OpenAI's protocol, such as `http://localhost:11434/v1`",
    Kind(checked_base_url, "an address"),
)
SUPABASE_URL = _supabase(
    "SUPABASE_URL",
    "`https://PROJECT.supabase.co`. Unset: SQLite in `COMPANION_HOME`",
    Kind(project_url, "an address"),
)
SUPABASE_SECRET_KEY = _supabase(
    "SUPABASE_SECRET_KEY", "its secret key (`sb_secret_...`), for servers only", secret=True
)
SUPABASE_SERVICE_ROLE_KEY = _supabase(
    "SUPABASE_SERVICE_ROLE_KEY",
    "its legacy service-role key, likewise; used where there is no secret key",
    secret=True,
)
LIVEKIT_URL = _livekit("LIVEKIT_URL", "your LiveKit server, such as `wss://PROJECT.livekit.cloud`")
LIVEKIT_API_KEY = _livekit("LIVEKIT_API_KEY", "its key", secret=True)
LIVEKIT_API_SECRET = _livekit("LIVEKIT_API_SECRET", "its secret", secret=True)
LIVEKIT_AGENT_NAME = _livekit(
    "LIVEKIT_AGENT_NAME", "the worker takes only jobs that are dispatched to this name. Unset: every new room"
)
LOG_LEVEL = _livekit(
    "LIVEKIT_LOG_LEVEL",
    "`TRACE`, `DEBUG`, `INFO`, `WARN`, `ERROR` or `CRITICAL`. Unset: `INFO`, and silence in the console",
    kinds.LOG_LEVEL,
)
USER_ID = _own("COMPANION_USER_ID", "who the console talks as", kinds.USER_ID, shown="console")
PHONE_IDENTITY = _own(
    "COMPANION_PHONE_IDENTITY",
    "`true`: a caller on the phone is known by their number, as E.164, whatever the trunk delivers. A caller id can "
    "be forged: see `docs/security.md`",
    kinds.PHONE_IDENTITY,
    shown="false",
)
ID_KEY = _own(
    "COMPANION_ID_KEY",
    "with it, a keyed hash is kept in place of a phone number: any text of 16 characters and more. Callers "
    "known so far are found again; with another key, those who were known before the first one. Make one with: "
    f"`{kinds.MAKE_KEY}`",
    kinds.ID_KEY,
    secret=True,
    exact=True,  # hashes that are stored were made with the text as it is
)
OPERATORS = _own(
    "COMPANION_OPERATORS",
    "user ids, separated by commas, that may invalidate other users' cache entries",
    kinds.OPERATORS,
)
LANGUAGE = _own(
    "COMPANION_LANGUAGE",
    "language of speech, such as `de` or `pt-BR`; what a person has chosen wins (`docs/memory.md`)",
    kinds.LANGUAGE,
    shown="en",
)
TIMEZONE = _own(
    "COMPANION_TIMEZONE",
    "time zone of the callers, such as `Europe/Berlin`. Unset: the time of the worker's clock, and the model knows "
    "that the caller may be elsewhere",
    kinds.TIMEZONE,
)
RETENTION_DAYS = _own(
    "COMPANION_RETENTION_DAYS",
    "days after which turns are deleted, of all users. Unset: never. Profile, facts and summaries stay",
    kinds.DAYS,
)
PREPARE_SPEECH = _own(
    "COMPANION_PREPARE_SPEECH",
    "where there is a voice: speak the next greeting when a conversation ends, so that it is played at the next start "
    "without a model or a voice; costs one or two calls of the voice a conversation, also for people who do not come "
    "back",
    FLAG,
    shown="true",
)
PREPARE_DAYS = _own(
    "COMPANION_PREPARE_DAYS",
    "days since a person's last conversation within which a greeting is prepared that a killed job has left",
    kinds.DAYS,
    shown="30",
)
WATCH_SHARE = _own(
    "COMPANION_WATCH_SHARE",
    "share of the writes that are looked at again in cache and store five seconds later; stale ones are counted "
    "(`stale_reads` in `get_stats`), logged and removed",
    kinds.SHARE,
    shown="0.01",
)
