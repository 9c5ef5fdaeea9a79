"""Where ``fcntl`` is missing, as on Windows: cache and store work, and one line names what does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
