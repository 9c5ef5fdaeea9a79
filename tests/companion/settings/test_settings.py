"""The environment becomes settings, or an error that says what is missing."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from companion.settings import Settings, SettingsError

pytestmark = pytest.mark.unit
PROJECT = {"SUPABASE_URL": "https://x.supabase.co"}
ANON_KEY = ".".join(("e30", base64.urlsafe_b64encode(b'{"role": "anon"}').decode().rstrip("="), "s3c"))
CLOUD = {"LIVEKIT_URL": "wss://a.livekit.cloud", "LIVEKIT_API_KEY": "k", "LIVEKIT_API_SECRET": "s"}


def test_nothing_set() -> None:
    settings = Settings.from_env({})
    assert settings == Settings(home=Path(".companion").absolute(), models="offline")
    assert (settings.console_user, settings.language, settings.operators) == ("console", "en", frozenset())


@pytest.mark.parametrize(
    ("env", "models"),
    [
        ({"OPENAI_API_KEY": "k"}, "openai"),
        ({"OPENAI_API_KEY": "k"} | CLOUD, "openai"),
        (CLOUD, "inference"),
        (CLOUD | {"LIVEKIT_API_SECRET": ""}, "offline"),
        (CLOUD | {"LIVEKIT_URL": "ws://localhost:7880"}, "offline"),
        (CLOUD | {"LIVEKIT_URL": "wss://[x"}, "offline"),
        (CLOUD | {"LIVEKIT_URL": "wss://evil-livekit.cloud.example.org"}, "offline"),
        (CLOUD | {"OPENAI_API_KEY": "k", "COMPANION_MODELS": "offline"}, "offline"),
        (CLOUD | {"OPENAI_API_KEY": "k", "COMPANION_MODELS": "Inference"}, "inference"),
        ({"OPENAI_BASE_URL": "http://localhost:11434/v1"}, "openai"),
        (CLOUD | {"OPENAI_BASE_URL": "http://localhost:11434/v1", "COMPANION_LLM": "org/model"}, "openai"),
        (CLOUD | {"OPENAI_API_KEY": "k", "COMPANION_LLM": "google/gemini-2.5-flash"}, "inference"),
        (CLOUD | {"OPENAI_API_KEY": "k", "COMPANION_TTS": "cartesia/sonic-3:a-voice"}, "inference"),
        (CLOUD | {"LIVEKIT_URL": "wss://lk.example.org", "COMPANION_LLM": "openai/gpt-4.1"}, "inference"),
        ({"OPENAI_API_KEY": "k", "COMPANION_LLM": "gpt-4.1"}, "openai"),
        ({"OPENAI_API_KEY": "k", "COMPANION_STT": "off"}, "openai"),
        ({"COMPANION_LLM": "gpt-4.1", "COMPANION_MODELS": "offline"}, "offline"),
        ({"COMPANION_TTS": "off"}, "offline"),
    ],
)
def test_which_models(env: dict[str, str], models: str) -> None:
    assert Settings.from_env(env).models == models


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ({"SUPABASE_URL": "https://x.supabase.co"}, "SUPABASE_SERVICE_ROLE_KEY"),
        ({"SUPABASE_SECRET_KEY": "s3cret"}, "SUPABASE_URL"),
        ({"SUPABASE_URL": "x.supabase.co", "SUPABASE_SECRET_KEY": "s3cret"}, "https://"),
        ({"SUPABASE_URL": "https://x.supabase.co", "SUPABASE_SECRET_KEY": "sb_publishable_s3c"}, "service-role"),
        (
            PROJECT | {"SUPABASE_SECRET_KEY": "sb_publishable_s3c"},
            "SUPABASE_SECRET_KEY is the project's publishable key",
        ),
        (PROJECT | {"SUPABASE_SERVICE_ROLE_KEY": ANON_KEY}, "SUPABASE_SERVICE_ROLE_KEY is the project's anon key"),
        (
            PROJECT | {"SUPABASE_SECRET_KEY": ANON_KEY, "SUPABASE_SERVICE_ROLE_KEY": "s3cret"},
            "SECRET_KEY is the .* anon",
        ),
        ({"SUPABASE_URL": "https://[x", "SUPABASE_SECRET_KEY": "s3cret"}, "SUPABASE_URL"),
        ({"COMPANION_MODELS": "openai"}, "OPENAI_API_KEY"),
        ({"OPENAI_BASE_URL": "https://api.openai.com/v1"}, "OPENAI_API_KEY"),
        *(
            ({"OPENAI_BASE_URL": url}, "OPENAI_BASE_URL must be an address with http:// or https:// and a host")
            for url in ("http://", "localhost:11434", "ftp://host/v1", "http://host:port/v1")
        ),
        ({"COMPANION_MODELS": "inference", "LIVEKIT_URL": "wss://a.livekit.cloud"}, "LIVEKIT_API_KEY"),
        ({"COMPANION_MODELS": "gpt"}, "COMPANION_MODELS"),
        ({"COMPANION_LLM": "openai/gpt-4.1"}, "needs LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET"),
        ({"COMPANION_LLM": "gpt-4.1"}, "COMPANION_LLM is set, but no server for it"),
        ({"COMPANION_VOICE": "ash"}, "COMPANION_VOICE is set, but no server for it"),
        ({"COMPANION_LLM": "off", "OPENAI_API_KEY": "s3cret"}, "COMPANION_LLM cannot be off"),
        (CLOUD | {"COMPANION_LLM": "gpt-4.1"}, "COMPANION_LLM must be provider/model .* such as openai/gpt-4.1-mini"),
        (CLOUD | {"COMPANION_STT": "nova-3"}, "COMPANION_STT must be provider/model .* such as deepgram/nova-3"),
        (CLOUD | {"COMPANION_TTS": "cartesia/"}, "COMPANION_TTS must be provider/model"),
        (
            {"COMPANION_MODELS": "openai", "OPENAI_API_KEY": "s3cret", "COMPANION_LLM": "openai/gpt-4.1"},
            "COMPANION_LLM is the name of a model of LiveKit Inference",
        ),
        ({"COMPANION_USER_ID": "a*"}, "COMPANION_USER_ID"),
        ({"COMPANION_OPERATORS": "ada, b?b"}, "COMPANION_OPERATORS"),
        ({"COMPANION_PHONE_IDENTITY": "perhaps"}, "COMPANION_PHONE_IDENTITY"),
        ({"COMPANION_ID_KEY": "s3cret"}, "COMPANION_ID_KEY"),
        ({"COMPANION_LANGUAGE": "../x"}, "COMPANION_LANGUAGE"),
        *(
            ({"COMPANION_RETENTION_DAYS": days}, "COMPANION_RETENTION_DAYS")
            for days in ("0", "-1", "1.5", "a year", "36501", "9" * 5000, "\u0663\u0660")
        ),
        ({"COMPANION_TIMEZONE": "../x"}, "COMPANION_TIMEZONE"),
        ({"COMPANION_TIMEZONE": "Europe"}, "COMPANION_TIMEZONE"),
        ({"COMPANION_TIMEZONE": "Mars/Olympus"}, "COMPANION_TIMEZONE"),
        ({"REDIS_URL": "http://u:s3cret@h"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://u:s3c/ret@h:6379"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://u:s3cret@h:6379/zero"}, "REDIS_URL"),
        ({"REDIS_URL": "unix://"}, "REDIS_URL"),
        ({"REDIS_ENABLED": "maybe"}, "REDIS_ENABLED"),
        ({"CACHE_DEADLINE_MS": "fast"}, "CACHE_DEADLINE_MS"),
        ({"CACHE_CONNECT_WAIT_MS": "0"}, "CACHE_CONNECT_WAIT_MS"),
    ],
)
def test_what_cannot_be_used_is_named(env: dict[str, str], names: str) -> None:
    with pytest.raises(SettingsError, match=names) as problem:
        Settings.from_env(env)
    assert "s3c" not in str(problem.value)


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        ({"SUPABASE_SECRET_KEY": "new", "SUPABASE_SERVICE_ROLE_KEY": "legacy"}, "new"),
        ({"SUPABASE_SECRET_KEY": " ", "SUPABASE_SERVICE_ROLE_KEY": "legacy"}, "legacy"),
        ({"SUPABASE_SECRET_KEY": "new", "SUPABASE_SERVICE_ROLE_KEY": ANON_KEY}, "new"),
    ],
)
def test_the_newer_kind_of_key_wins(keys: dict[str, str], chosen: str) -> None:
    assert Settings.from_env(PROJECT | keys).supabase_key == chosen


def test_phone_numbers_identify_only_where_it_is_said() -> None:
    assert (Settings.from_env({}).phone_identity, Settings.from_env({}).id_key) == (False, None)
    settings = Settings.from_env({"COMPANION_PHONE_IDENTITY": " True ", "COMPANION_ID_KEY": "s3cret of 16 and more"})
    assert (settings.phone_identity, settings.id_key) == (True, b"s3cret of 16 and more")
    assert "s3cret" not in repr(settings)


def test_a_time_zone() -> None:
    assert Settings.from_env({}).timezone is None
    assert Settings.from_env({"COMPANION_TIMEZONE": " Europe/Berlin "}).timezone == ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            {"SUPABASE_URL": "https://a.supabase.co", "SUPABASE_SECRET_KEY": "s"},
            r"SUPABASE_URL is set, but .* supabase .* 'livekit-companion\[supabase\]'",
        ),
        (
            {"COMPANION_PHONE_IDENTITY": "true"},
            r"COMPANION_PHONE_IDENTITY is true, but .* 'livekit-companion\[phone\]'",
        ),
        ({"OPENAI_API_KEY": "k"}, r"OPENAI_API_KEY is set, but .* 'livekit-companion\[openai\]'"),
        ({"CACHE_ENCRYPTION_KEYS": "k" * 43}, "CACHE_ENCRYPTION_KEYS is set, but .* cryptography is not installed"),
    ],
)
def test_a_missing_package_is_named(
    env: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "supabase" / "migrations").mkdir(parents=True)  # as in the repository: a namespace package, and empty
    for module in ("supabase", "livekit.plugins.openai", "cryptography", "phonenumbers"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr("livekit.plugins.__path__", [])
    with pytest.raises(SettingsError, match=message) as refusal:
        Settings.from_env(env)
    assert "\n" not in str(refusal.value)


def test_no_credential_in_repr() -> None:
    env = {"SUPABASE_URL": "https://x.supabase.co", "SUPABASE_SECRET_KEY": "s3cret", "OPENAI_API_KEY": "s3cret"}
    assert "s3cret" not in repr(Settings.from_env(env))
    assert "s3cret" not in repr(Settings.from_env({"OPENAI_BASE_URL": "http://u:s3cret@localhost/v1"}))


@pytest.mark.parametrize("form", ["user-{}", "{}", "USER-{}"])
def test_one_uuid_is_one_user_in_settings_too(form: str) -> None:
    uuid = "0b9a4f5e-8a34-4a39-9f4e-2d6f0f1c7a11"
    env = {"COMPANION_OPERATORS": f"root, {form.format(uuid.upper())}", "COMPANION_USER_ID": form.format(uuid)}
    settings = Settings.from_env(env)
    assert (settings.operators, settings.console_user) == ({"root", uuid}, uuid)


@pytest.mark.parametrize("folder", ["", "below/it"])
def test_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / ".env").write_text("COMPANION_LANGUAGE=de\nCOMPANION_USER_ID=ada\n")
    monkeypatch.chdir(tmp_path / folder)
    monkeypatch.setenv("COMPANION_USER_ID", "grace")  # the real environment wins
    monkeypatch.delenv("COMPANION_LANGUAGE", raising=False)
    settings = Settings.load()
    assert (settings.language, settings.console_user) == ("de", "grace")
    monkeypatch.delenv("COMPANION_LANGUAGE")  # load_dotenv put it there
