"""An editable install: the repository's modules under the wheel's names, the same objects."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT, Installation

pytestmark = pytest.mark.console

SAME_OBJECTS = """
import sys
import livekit_companion.cache
assert not {"livekit.agents", "supabase"} & set(sys.modules)
import cache, cache.coherence.near_cache
import livekit_companion.cache.coherence.near_cache as near_cache
from livekit_companion import Caller, RedisCache, tools
from livekit_companion.cache import keys
assert livekit_companion.cache is cache
assert near_cache is cache.coherence.near_cache
assert keys is cache.keys
assert RedisCache is cache.RedisCache
assert near_cache.__spec__.name == near_cache.__name__ == "cache.coherence.near_cache"
import livekit_companion.agent, agent, companion
assert livekit_companion.agent is agent
assert Caller is companion.Caller
from livekit.plugins import companion as plugin
assert plugin.CacheTools is tools.CacheTools
from importlib.util import find_spec
assert find_spec("livekit_companion.cache.nothing") is None
assert find_spec("livekit_companion.nothing") is None
"""


@pytest.fixture(scope="module")
def editable(thin: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An editable install as hatchling builds it for pip and uv, unpacked beside this environment's packages.

    By hand: a package manager would ask a registry for the packages that are here already.
    """
    folder = tmp_path_factory.mktemp("editable")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", folder / "venv"], check=True)
    (packages,) = folder.glob("venv/lib/python*/site-packages")
    script = f"from hatchling.build import build_editable; print(build_editable({str(folder)!r}))"
    built = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    shutil.unpack_archive(folder / built.stdout.strip(), packages, "zip")
    shutil.copy(next(thin.glob("lib/python*/site-packages/theirs.pth")), packages)
    (folder / "project").mkdir()
    return Installation(folder / "venv", folder / "project")


def test_the_same_objects(editable: Installation) -> None:
    editable.python(SAME_OBJECTS)


def test_modules_run(editable: Installation) -> None:
    for module in ("livekit_companion.agent", "livekit_companion"):
        ran = editable.run("python", "-m", module, "--help")
        assert ran.returncode == 0, ran.stderr
        assert "console" in ran.stdout


def test_another_projects_module_is_never_taken_for_ours(editable: Installation, tmp_path: Path) -> None:
    (tmp_path / "cache.py").write_text("OWNER = 'the project'")
    beside = Installation(editable.venv, tmp_path)
    ran = beside.run("python", "-c", "import livekit_companion.cache")
    assert f"the name cache belongs to {tmp_path / 'cache.py'} here" in ran.stderr.splitlines()[-1]


def test_migrations_come_from_the_repository(editable: Installation, tmp_path: Path) -> None:
    ran = editable.run("python", "-m", "livekit_companion", "migrations", tmp_path / "sql")
    assert ran.returncode == 0, ran.stderr
    assert {path.name for path in (tmp_path / "sql").iterdir()} == {
        path.name for path in (ROOT / "supabase" / "migrations").glob("*.sql")
    }
