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
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "PRIVATE SERVER: there is no private server on a system without fcntl: on Windows use WSL" in ran.stdout
    assert "Going on without a cache: there is no private server" in ran.stderr
    said = ran.stdout.partition("SAID:")[2]
    assert "Ada" in said
    assert "chess" in said
    assert "Traceback" not in ran.stderr
