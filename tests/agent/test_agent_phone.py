"""Callers on the phone in the real entrypoint: known by their number, found again, and in no log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc

from companion.store import Memory, SqliteStore, StoreError, Turn
from tests.agent.test_agent import entrypoint, greeting, job, name_of
from tests.companion.store.test_erasure import files_with
from tests.companion.store.test_moving import NOON
from tests.real.redis.redis_server import RedisServer
from tests.tools.conversation import Conversation

pytestmark = pytest.mark.integration
__all__ = ["entrypoint"]  # the fixture
SIP, STANDARD = rtc.ParticipantKind.PARTICIPANT_KIND_SIP, rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD
KEY = "a key of 32 characters for tests"
OURS = {"sip.trunkPhoneNumber": "+18005551234"}


@pytest.fixture
def by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPANION_PHONE_IDENTITY", "true")


def call(
    entrypoint: Any,
    number: str,
    *,
    identity: str = "",
    kind: rtc.ParticipantKind.ValueType = SIP,
    metadata: object = "",
    attributes: Mapping[str, str] = OURS,
) -> AbstractAsyncContextManager[Conversation]:
    """A call from a number, as a trunk delivers it."""

    def prepare(ctx: Any) -> None:
        (caller,) = ctx.room.remote_participants.values()
        caller.kind, caller.attributes = kind, {"sip.phoneNumber": number, **attributes}
        ctx.room.name = f"call-_{number}_x1"

    return job(entrypoint, metadata, identity=identity or f"sip_{number}", prepare=prepare)


async def remember(tmp_path: Path, user_id: str) -> None:
    store = SqliteStore(tmp_path / "home" / "companion.db")
    await store.save_profile(user_id, "Name: Ada")
    await store.add_turn(user_id, Turn("user", "I moved to Oslo", NOON, "c1"))
    await store.add_memory(user_id, Memory("The key is under the mat.", NOON))
    await store.close()


async def test_without_the_setting_the_identity_is_the_caller(entrypoint: Any) -> None:
    async with call(entrypoint, "15551234567") as talk:
        assert name_of(talk) == "sip_15551234567"


async def test_one_caller_is_one_user_whatever_the_trunk_delivers(entrypoint: Any, by_number: None) -> None:
    async with call(entrypoint, "+15551234567") as talk:
        await talk.session.run(user_input="My name is Ada.")
    async with call(entrypoint, "5551234567", identity="sip_5551234567") as talk:
        assert name_of(talk) == "sip_+15551234567"
        assert "Ada" in greeting(talk)


@pytest.mark.parametrize("identity", ["sip_+15551234567", "sip_15551234567", "sip_5551234567"])
async def test_who_was_known_by_livekits_identity_is_found_again(
    entrypoint: Any, by_number: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identity: str
) -> None:
    await remember(tmp_path, identity)
    async with call(entrypoint, identity.removeprefix("sip_")) as talk:
        assert name_of(talk) == "sip_+15551234567"
        assert "Ada" in greeting(talk)
    monkeypatch.setenv("COMPANION_ID_KEY", KEY)  # set later
    async with call(entrypoint, identity.removeprefix("sip_")) as talk:
        user_id = name_of(talk)
        assert user_id is not None
        assert user_id.startswith("~==phone=")
        assert "Ada" in greeting(talk)
    async with call(entrypoint, "+1 (555) 123-4567", identity="sip_+1 (555) 123-4567") as talk:
        assert name_of(talk) == user_id
        assert "Ada" in greeting(talk)
    store = SqliteStore(tmp_path / "home" / "companion.db")
    kept = await store.export_user(user_id)
    await store.close()
    assert "I moved to Oslo" in [turn.text for turn in kept.turns]
    assert [memory.text for memory in kept.memories] == ["The key is under the mat."]


async def test_with_a_key_no_number_is_kept_or_logged(
    entrypoint: Any,
    by_number: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    redis_server: RedisServer,
) -> None:
    for logger in ("", "livekit", "livekit.agents", "companion", "cache"):
        caplog.set_level(logging.DEBUG, logger)
    await remember(tmp_path, "sip_+15551234567")
    async with call(entrypoint, "+15551234567") as talk:  # without: the number is in the store and in Redis
        assert "Ada" in greeting(talk)
    assert "+15551234567" in redis_server.cli("KEYS", "user:*")[0]
    monkeypatch.setenv("COMPANION_ID_KEY", KEY)
    async with call(entrypoint, "+15551234567") as talk:
        await talk.session.run(user_input="My cat is called Tom.")
    assert not any("5551234567" in key for key in redis_server.cli("KEYS", "*"))
    assert files_with(tmp_path / "home", "5551234567") == []
    written = [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    assert {"livekit.agents", "cache"} <= {record.name for record in caplog.records}
    assert [text for text in written if "5551234567" in text] == []


async def test_attributes_of_others_than_phones_are_no_numbers(entrypoint: Any, by_number: None) -> None:
    async with call(entrypoint, "+15551234567", identity="eve", kind=STANDARD) as talk:
        assert name_of(talk) == "eve"


async def test_a_withheld_number_is_an_unknown_caller(entrypoint: Any, by_number: None) -> None:
    for number in ("anonymous", "+266696687"):
        async with call(entrypoint, number) as talk:
            assert name_of(talk) is None


async def test_metadata_can_name_a_caller_on_the_phone(entrypoint: Any, by_number: None) -> None:
    async with call(entrypoint, "+15551234567", metadata={"user_id": "ada"}) as talk:
        assert name_of(talk) == "ada"


async def test_a_store_that_cannot_move_greets_all_the_same(
    entrypoint: Any, by_number: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await remember(tmp_path, "sip_5551234567")

    async def fails(*_: object) -> Any:
        raise StoreError("move_user", "timeout")

    monkeypatch.setattr(SqliteStore, "move_user", fails)
    async with call(entrypoint, "5551234567") as talk:
        assert name_of(talk) == "sip_+15551234567"
        assert greeting(talk)
    assert "kept under earlier ids was not moved" in caplog.text
    assert "555" not in "".join(record.getMessage() for record in caplog.records if record.name == "companion")
