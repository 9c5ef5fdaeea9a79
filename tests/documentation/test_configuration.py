"""docs/configuration.md and .env.example are what the settings' own classes say, and list every variable."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from cache import CacheSettings
from cache.variables import variables_of
from companion.settings import Settings

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parents[2]
WRITER = runpy.run_path(str(ROOT / "docs" / "write_configuration.py"))
PAGE, EXAMPLE = ROOT / "docs" / "configuration.md", ROOT / ".env.example"
VARIABLES = [each for settings in (CacheSettings, Settings) for each in variables_of(settings)]


@pytest.mark.parametrize(("file", "write"), [(PAGE, WRITER["page"]), (EXAMPLE, WRITER["example"])])
def test_the_file_is_what_is_generated(file: Path, write: object) -> None:
    assert callable(write)
    assert file.read_text(encoding="utf-8") == write(), "run: make configuration"


def test_every_variable_is_once_in_both() -> None:
    names = sorted(its.name for _, its in VARIABLES)
    assert sorted(re.findall(r"(?m)^\| `([A-Z_]+)` \|", PAGE.read_text(encoding="utf-8"))) == names
    assert sorted(re.findall(r"(?m)^# ([A-Z_]+)=", EXAMPLE.read_text(encoding="utf-8"))) == names


def test_every_variable_that_is_read_is_listed() -> None:
    read: set[str] = set()
    for path in [
        ROOT / "agent.py",
        *ROOT.glob("cache/**/*.py"),
        *ROOT.glob("companion/**/*.py"),
        *ROOT.glob("tools/*.py"),
    ]:
        read |= set(re.findall(r"\"((?:REDIS|CACHE|SUPABASE|OPENAI|COMPANION|LIVEKIT)_[A-Z_]+)\"", path.read_text()))
    assert read <= {its.name for _, its in VARIABLES}, "a variable is read that docs/configuration.md does not list"


def test_the_example_sets_nothing_and_its_defaults_are_the_defaults() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert all(not line or line.startswith("#") for line in text.splitlines())
    env = dict(re.findall(r"(?m)^# ([A-Z_]+)=(.*)$", text))
    assert Settings.from_env(env) == Settings.from_env({})
    assert CacheSettings.from_env(environ=env) == CacheSettings.from_env(environ={})
