"""A wheel of this repository, and a foreign project that has installed it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

ROOT = Path(__file__).parents[2]
OWN_FILES = {
    "agent.py": "OWNER = 'the project'\n",
    "cache.py": "OWNER = 'the project'\n",
    "companion/__init__.py": "OWNER = 'the project'\n",
    "tools/__init__.py": "OWNER = 'the project'\n",
    "supabase/migrations/0.sql": "select 1;\n",
}
"""A project with modules of its own under each name that this repository uses."""


@dataclass(frozen=True)
class Installation:
    """A virtual environment, and a project's folder to run it in."""

    venv: Path
    project: Path
    before_extras: str = ""

    def run(self, program: str, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in the project."""
        return subprocess.run(
            [self.venv / "bin" / program, *arguments],
            cwd=self.project,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def python(self, script: str, *arguments: str, **env: str) -> str:
        """Run a script that stands in the project; what it printed. Fails if the script does."""
        path = self.project / f"script_{uuid4().hex}.py"
        path.write_text(script)
        ran = self.run("python", path, *arguments, **env)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel. Built without isolation: hatchling is among the tests' requirements."""
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def build(target: str, source: Path, into: Path) -> Path:
    """Build a ``wheel`` or an ``sdist`` of the repository in ``source``."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", into]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = into.iterdir()
    return path


def make_project(folder: Path) -> Path:
    """Write a project with files of its own."""
    for name, text in OWN_FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def install(venv: Path, *what: str | Path) -> None:
    """Install into a new or an existing virtual environment, in the tested versions.

    With uv, which links the files from its cache: 2 s for the wheel and everything it needs. With pip where uv is
    missing or cannot: most of a minute.
    """
    python, constraint = venv / "bin" / "python", ["--constraint", ROOT / "constraints.txt"]
    with_uv = [
        ["uv", "venv", "--quiet", "--allow-existing", "--python", sys.executable, venv],
        ["uv", "pip", "install", "--quiet", "--python", python, *constraint, *what],
    ]
    with_pip = [
        [sys.executable, "-m", "venv", venv],
        [python, "-m", "pip", "install", "--quiet", *constraint, *what],
    ]
    if not (shutil.which("uv") and all(_run(venv.parent, command).returncode == 0 for command in with_uv)):
        for command in with_pip:
            ran = _run(venv.parent, command)
            assert ran.returncode == 0, ran.stderr


def _run(folder: Path, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}  # as in the Makefile
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel with every extra, in an environment that had nothing, beside a project with files of its own.

    First without extras: ``before_extras`` is what the worker said then. One environment serves both, and all workers
    of pytest-xdist, because compiling what it imports costs as much as the installation.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "installed"
    said = folder / "before_extras.txt"
    with (shared / "installed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            alone = Installation(folder / "venv", make_project(folder / "project"))
            install(alone.venv, wheel)
            project = {"SUPABASE_URL": "https://a.supabase.co", "SUPABASE_SECRET_KEY": "sb_secret_x"}
            ran = alone.run("companion", "console", "--text", **project)
            install(alone.venv, f"{wheel}[all]", "fastapi")  # which an example needs
            said.write_text(ran.stdout + ran.stderr)
    return Installation(folder / "venv", folder / "project", said.read_text())


@pytest.fixture(scope="session")
def thin(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with nothing but the wheel's files; what the wheel needs comes from this one's packages.

    For the type checker: it has analysed those packages already, where they are here.
    """
    venv = tmp_path_factory.mktemp("thin") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", venv], check=True)
    (packages,) = venv.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    theirs = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "theirs.pth").write_text("\n".join(theirs))
    return venv
