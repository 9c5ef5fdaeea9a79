"""Fixtures: a user of whom nothing is known, and terminals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.console.terminal import Terminal

Open = Callable[..., Terminal]


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> str:
    """A user without data in a Redis of this machine, if there is one."""
    user = f"test-{uuid4()}"
    monkeypatch.setenv("COMPANION_USER_ID", user)
    monkeypatch.setenv("CACHE_DEADLINE_MS", "2000")  # generous: deadlines are not under test
    return user


@pytest.fixture
def terminal(user: str, tmp_path: Path) -> Iterator[Open]:
    """Opens terminals in an empty directory."""
    opened: list[Terminal] = []

    def start(*arguments: str, columns: int = 300, lines: int = 60, **env: str) -> Terminal:
        opened.append(Terminal(*arguments, cwd=tmp_path, env=env, columns=columns, lines=lines))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.kill()
