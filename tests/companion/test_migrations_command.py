"""What ``companion migrations`` writes, and the Supabase CLI's settings in the repository."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from companion.cli import CLI_FILES, make_app

pytestmark = pytest.mark.unit
SUPABASE = Path(__file__).parents[2] / "supabase"


def write(folder: Path) -> str:
    return CliRunner().invoke(make_app("0", lambda: None), ["migrations", str(folder)]).output


def test_the_repository_has_what_the_command_writes() -> None:
    assert {name: (SUPABASE / name).read_text() for name in CLI_FILES} == CLI_FILES
    assert tomllib.loads(CLI_FILES["config.toml"]) == {"project_id": "companion"}
    assert {".temp", ".branches"} <= set(CLI_FILES[".gitignore"].splitlines())


def test_the_clis_settings_come_with_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "supabase" / "migrations"
    assert "were there already" in write(folder)
    assert {path.name for path in folder.iterdir()} == {path.name for path in (SUPABASE / "migrations").glob("*.sql")}
    assert {path.name: path.read_text() for path in folder.parent.iterdir() if path.is_file()} == CLI_FILES


def test_a_projects_own_settings_stay(tmp_path: Path) -> None:
    own = tmp_path / "supabase" / "config.toml"
    own.parent.mkdir()
    own.write_text('project_id = "mine"')
    write(tmp_path / "supabase" / "migrations")
    assert own.read_text() == 'project_id = "mine"'
    assert (own.parent / ".gitignore").exists()


def test_in_another_folder_there_is_sql_alone(tmp_path: Path) -> None:
    write(tmp_path / "sql" / "migrations")
    assert list((tmp_path / "sql").iterdir()) == [tmp_path / "sql" / "migrations"]
