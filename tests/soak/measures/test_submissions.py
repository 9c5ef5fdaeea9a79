"""The expected state knows what a queue shows of profiles that were submitted together."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from companion import Caller, save_user_profile_async, use_caller
from companion.runtime import Runtime, close_runtime, set_runtime
from companion.store import SqliteStore, StoreError
from tests.soak.measures.expected_state import ExpectedState
from tests.soak.measures.submissions import recorded_profiles

pytestmark = pytest.mark.soak
STORED = "Name: Ada\nLives in: Oslo"


async def test_two_that_are_submitted_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPANION_HOME", str(tmp_path))
    store = SqliteStore(tmp_path / "companion.db")
    await store.get_profile("ada")  # creates the file
    expected = ExpectedState(tmp_path / "companion.db")
    await store.save_profile("ada", STORED)
    assert expected.profile_acknowledged("ada", "Oslo")

    async def refuse(*args: Any, **kwargs: Any) -> Any:
        raise StoreError("swap_profile", "refused")

    monkeypatch.setattr(store, "swap_profile", refuse)
    runtime = set_runtime(Runtime(store=store))
    with recorded_profiles(expected):
        with use_caller(Caller("ada")):
            saving = (save_user_profile_async(text, made_from="") for text in ("Name: Ada\nWork: pilot", "Likes: tea"))
            assert await asyncio.gather(*saving) == [False, False]
        shown = "; ".join((runtime.write_behind.pending_profile("ada") or "").splitlines())
    assert shown == "Name: Ada; Work: pilot; Likes: tea"
    assert expected.allows_profile("ada", expected.floor("ada"), shown)
    assert not expected.allows_profile("ada", expected.floor("ada"), "Name: Ada; Work: pilot; Likes: coffee")
    await close_runtime()
    expected.close()
