"""A wheel contains the four packages below one name, and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT, build

pytestmark = pytest.mark.console

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sources(*folders: str) -> set[str]:
    files = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    return {path.relative_to(ROOT).as_posix() for path in files if path.suffix in (".py", ".sh")}


def test_one_import_name_and_the_plugin(contents: dict[str, bytes]) -> None:
    modules = {name for name in contents if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in modules} == {"livekit", "livekit_companion"}
    assert {name for name in modules if name.startswith("livekit/")} == {
        "livekit/plugins/companion/__init__.py",
        "livekit/plugins/companion/py.typed",
    }
    inside = {name.removeprefix("livekit_companion/") for name in modules if name.endswith((".py", ".sh"))}
    expected = {"agent.py", "__init__.py", "__main__.py", *sources("cache", "companion", "tools")}
    assert {name for name in inside if not name.startswith("livekit/")} == expected
    assert "livekit_companion/py.typed" in modules


def test_no_module_imports_a_name_of_the_repository(contents: dict[str, bytes]) -> None:
    form = re.compile(r"(?m)^\s*(?:from|import) (?:agent|cache|companion|tools)\b.*")
    found = {name: form.findall(text.decode()) for name, text in contents.items() if name.endswith(".py")}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_lines_keep_their_numbers(contents: dict[str, bytes]) -> None:
    for name in ("agent.py", *sources("cache", "companion", "tools")):
        there = contents[f"livekit_companion/{name}"].count(b"\n")
        assert there == (ROOT / name).read_bytes().count(b"\n"), name


def test_the_migrations_are_inside(contents: dict[str, bytes]) -> None:
    folder = "livekit_companion/companion/migrations/"
    inside = {name.removeprefix(folder): text for name, text in contents.items() if name.startswith(folder)}
    assert inside == {path.name: path.read_bytes() for path in (ROOT / "supabase" / "migrations").glob("*.sql")}


def test_metadata(contents: dict[str, bytes]) -> None:
    (name,) = [name for name in contents if name.endswith("/METADATA")]
    metadata = message_from_bytes(contents[name])
    assert metadata["Name"] == "livekit-companion"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert contents[name.replace("METADATA", "licenses/LICENSE")] == (ROOT / "LICENSE").read_bytes()
    assert set(metadata.get_all("Provides-Extra", [])) == PROJECT["optional-dependencies"].keys()
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert f'__version__ = "{metadata["Version"]}"' in contents["livekit_companion/__init__.py"].decode()


def test_a_source_distribution_builds_the_same_wheel(contents: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "sdist").mkdir()
    with tarfile.open(build("sdist", ROOT, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert not (source / "tests").exists()
    (tmp_path / "wheel").mkdir()
    with zipfile.ZipFile(build("wheel", source, tmp_path / "wheel")) as wheel:
        again = {name: wheel.read(name) for name in wheel.namelist()}
    assert {name for name in again if again[name] != contents.get(name)} == set()
    assert again.keys() == contents.keys()


def test_a_refused_build_says_where_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("agent.py", "cache", "companion", "tools", "distribution", "supabase", "pyproject.toml", "README.md"):
        source = ROOT / name
        target = tmp_path / "source" / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    shutil.copy(ROOT / "LICENSE", tmp_path / "source")
    (tmp_path / "source" / "tools" / "new.py").write_text('"""New."""\n\nimport cache\n')
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    built = subprocess.run(command, cwd=tmp_path / "source", capture_output=True, text=True, check=False)
    assert built.returncode != 0
    assert "tools/new.py:3: write 'from cache import ...', not 'import cache'" in built.stderr
    assert list((tmp_path / "temporary").iterdir()) == []
