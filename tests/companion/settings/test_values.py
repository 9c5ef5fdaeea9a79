"""Every variable, with values that people paste and programs pass on: read, or named in one line without a secret."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cache import CacheSettings
from cache.variables import Variable, variables_of
from companion.settings import Settings, SettingsError, check_worker

pytestmark = pytest.mark.unit
VARIABLES = [its for settings in (CacheSettings, Settings) for _, its in variables_of(settings)]
COMPANIONS: Mapping[str, dict[str, str]] = {
    "SUPABASE_URL": {"SUPABASE_SECRET_KEY": "sb_secret_x"},
    "SUPABASE_SECRET_KEY": {"SUPABASE_URL": "https://x.supabase.co"},
    "SUPABASE_SERVICE_ROLE_KEY": {"SUPABASE_URL": "https://x.supabase.co"},
    **{
        name: {"OPENAI_API_KEY": "k"} for name in ("COMPANION_LLM", "COMPANION_STT", "COMPANION_TTS", "COMPANION_VOICE")
    },
}
GOOD: Mapping[str, str] = {
    "REDIS_URL": "redis://h:1/0",
    "REDIS_ENABLED": "true",
    "CACHE_DEADLINE_MS": "60",
    "CACHE_CONNECT_WAIT_MS": "60",
    "CACHE_MAX_VALUE_BYTES": "60",
    "CACHE_TTL_SPREAD": "0.1",
    "CACHE_NEAR": "profile",
    "CACHE_CLUSTER_ADDRESS_MAP": "10.0.0.1=203.0.113.5",
    "CACHE_ENCRYPTION_KEYS": "k" * 43,
    "SUPABASE_URL": "https://abc.supabase.co",
    "COMPANION_MODELS": "offline",
    "OPENAI_BASE_URL": "http://localhost:11434/v1",
    "LIVEKIT_LOG_LEVEL": "debug",
    "COMPANION_HOME": "/tmp/home",
    "COMPANION_PHONE_IDENTITY": "false",
    "COMPANION_ID_KEY": "sixteen characters",
    "COMPANION_LANGUAGE": "de",
    "COMPANION_TIMEZONE": "Europe/Rome",
    "COMPANION_RETENTION_DAYS": "30",
    "COMPANION_PREPARE_SPEECH": "off",
    "COMPANION_PREPARE_DAYS": "40",
    "COMPANION_WATCH_SHARE": "0.5",
}


def read(its: Variable, text: str) -> Settings:
    return Settings.from_env({**COMPANIONS.get(its.name, {}), its.name: text})


@pytest.mark.parametrize("its", VARIABLES, ids=lambda its: its.name)
def test_whitespace_around_a_value_is_no_part_of_it(its: Variable) -> None:
    good = GOOD.get(its.name, "value")
    assert read(its, f" \t{good}\r\n\u00a0") == read(its, good)
    assert read(its, " \n") == read(its, "") if its.name not in COMPANIONS else True


@pytest.mark.parametrize("its", [its for its in VARIABLES if not its.exact], ids=lambda its: its.name)
def test_quotation_marks_in_the_environment_are_named(its: Variable) -> None:
    for form in ('"{}"', "'{}'", "\u201c{}\u201d", '"{}', "{}'", "`{}`"):
        with pytest.raises(SettingsError, match=f"^{its.name} begins or ends with a quotation mark") as problem:
            read(its, form.format(GOOD.get(its.name, "s3cret")))
        assert "s3c" not in str(problem.value)


@pytest.mark.parametrize("its", [its for its in VARIABLES if not its.exact], ids=lambda its: its.name)
def test_characters_that_cannot_be_seen_are_named(its: Variable) -> None:
    good = GOOD.get(its.name, "s3cret")
    for char in ("\u200b", "\ufeff", "\u00a0", "\u202e", "\x07", "\n", "\udcff"):
        with pytest.raises(SettingsError, match=rf"^{its.name} contains .* at position 2: ") as problem:
            read(its, f"{good[:1]}{char}{good[1:]}")
        assert "s3c" not in str(problem.value)
        assert "\n" not in str(problem.value)


@pytest.mark.parametrize("its", [its for its in VARIABLES if its.secret and not its.exact], ids=lambda its: its.name)
def test_a_key_holds_no_space_and_no_letter_of_another_script(its: Variable) -> None:
    for char in (" ", "\u2026", "\u0430", "\u2013"):
        with pytest.raises(SettingsError, match=f"^{its.name} contains .* at position 2: "):
            read(its, f"s{char}cret")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("REDIS_URL", ["'redis://h'", "redis://h:-1", "redis://h:99999", "6379", "redis://h/-1"]),
        ("REDIS_ENABLED", ["2", "-1", "yes please", "None"]),
        ("CACHE_DEADLINE_MS", ["-1", "0", "1e3", "50ms", "inf", "nan", "60001", "0x10", "9" * 5000]),
        ("CACHE_CONNECT_WAIT_MS", ["-1", "0", "50 ms", "true"]),
        ("CACHE_MAX_VALUE_BYTES", ["-1", "0", "1.5", "1MB", "99999999999"]),
        ("CACHE_TTL_SPREAD", ["-0.1", "0.6", "5%", "nan"]),
        ("CACHE_NEAR", ["profiles", "profile;state", "-1"]),
        ("CACHE_ENCRYPTION_KEYS", ["short", "k" * 42, f"{'k' * 43},", "k" * 44]),
        ("COMPANION_MODELS", ["gpt-4", "-1", "openai,inference"]),
        ("OPENAI_BASE_URL", ["localhost:11434", "ftp://h/v1", "http://", "http://h:port/v1", "http://[h", "-1"]),
        ("OPENAI_BASE_URL", ["http://h/v1/chat/completions", "http://h/v1/models/", "http://a b/v1"]),
        ("LIVEKIT_LOG_LEVEL", ["verbose", "-1", "10"]),
        ("COMPANION_USER_ID", ["a*", "a[b", "{}", "x" * 1025]),
        ("COMPANION_OPERATORS", ["ada,*", "a?b"]),
        ("COMPANION_PHONE_IDENTITY", ["2", "-1", "y"]),
        ("COMPANION_ID_KEY", ["short", "-1", '"short"']),
        ("COMPANION_LANGUAGE", ["e", "-1", "42", "en_US_x", "English please", "d\u00e9"]),
        ("COMPANION_TIMEZONE", ["UTC+1", "-1", "../etc/passwd", "/etc/localtime", "Europe", "x" * 5000]),
        ("COMPANION_RETENTION_DAYS", ["-1", "0", "1.5", "36501"]),
        ("COMPANION_PREPARE_SPEECH", ["2", "-1"]),
        ("COMPANION_PREPARE_DAYS", ["-1", "0", "1.5", "36501", "a month"]),
        ("COMPANION_WATCH_SHARE", ["-1", "1.1", "nan", "1%", "inf"]),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(name: str, values: list[str]) -> None:
    for value in values:
        with pytest.raises(SettingsError, match=f"^{name}") as problem:
            Settings.from_env({name: value})
        assert "\n" not in str(problem.value)
        assert len(str(problem.value)) < 400


def test_the_home_of_a_user_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("os.getuid", lambda: 987_654)  # as in a container: no entry in the user database
    assert Settings.from_env({}).home == Path(".companion").absolute()
    for home in ("~/data", "~", "~no-such-user/data"):
        with pytest.raises(SettingsError, match=r"COMPANION_HOME begins with ~.* no home folder: set HOME"):
            Settings.from_env({"COMPANION_HOME": home})


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.delenv("COMPANION_HOME", raising=False)
    with pytest.raises(SettingsError, match="working directory does not exist any more"):
        Settings.load()
    monkeypatch.setenv("COMPANION_HOME", str(tmp_path))
    assert Settings.load().home == tmp_path


def test_a_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPANION_HOME", str(tmp_path / "new" / "home"))
    assert list(Settings.load_with_home().home.iterdir()) == []
    for home in (tmp_path / "file", tmp_path / "file" / "home", Path("/proc/companion"), Path("x" * 300)):
        monkeypatch.setenv("COMPANION_HOME", str(home))
        with pytest.raises(SettingsError, match=r"^COMPANION_HOME, '.*', cannot be written \(.+\): set it") as problem:
            Settings.load_with_home()
        assert "\n" not in str(problem.value)
        Settings.load()
        monkeypatch.setenv("SUPABASE_URL", "https://abc.supabase.co")
        monkeypatch.setenv("SUPABASE_SECRET_KEY", "sb_secret_x")
        Settings.load_with_home()  # the worker logs what is lost
        monkeypatch.delenv("SUPABASE_URL")
        monkeypatch.delenv("SUPABASE_SECRET_KEY")


def test_a_system_without_time_zones_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows and slim containers are."""
    monkeypatch.setattr("companion.settings.kinds.available_timezones", lambda: set())
    with pytest.raises(SettingsError, match="this system has no time zones: pip install tzdata"):
        Settings.from_env({"COMPANION_TIMEZONE": "Mars/Olympus"})


@pytest.mark.parametrize(
    "url", ["a.livekit.cloud", "wss://", "wss://<project>.livekit.cloud", "redis://h", "wss://h:x"]
)
def test_a_livekit_url_that_is_none(url: str) -> None:
    env = {"LIVEKIT_URL": url, "LIVEKIT_API_KEY": "k", "LIVEKIT_API_SECRET": "s"}
    with pytest.raises(SettingsError, match="LIVEKIT_URL must be the address of a LiveKit server"):
        check_worker(["agent.py", "start"], env)
    check_worker(["agent.py", "console"], env)
    check_worker(["agent.py", "start", "--url=wss://h"], env)
