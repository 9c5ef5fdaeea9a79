"""Identities and metadata that name a caller, and those that name none."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from unittest.mock import MagicMock

import pytest

from companion import Caller, current_caller, use_caller
from companion.identity import caller_from_identity, caller_from_metadata

pytestmark = pytest.mark.unit
UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
OPERATORS = frozenset({"root"})


@pytest.mark.parametrize(
    ("identity", "user_id"),
    [
        (f"user-{UUID}", UUID),
        (UUID, UUID),
        (f"user-{UUID.upper()}", UUID),
        ("ada", "ada"),
        ("user-ada", "user-ada"),
        ("a.b@c.org", "a.b@c.org"),
    ],
)
def test_an_identity_is_a_user(identity: str, user_id: str) -> None:
    assert caller_from_identity(identity, OPERATORS) == Caller(user_id)


HOSTILE = ["", "user-*", "../x", "a b", "x" * 10_000, "😀", "a\n", "a:b", "a\x00", "[^x]", None, 7, b"ada", ["ada"]]
HOSTILE += [f"u\u017fer-{UUID}"]  # a long s equals s under case folding


@pytest.mark.parametrize("identity", [*HOSTILE, MagicMock()])
def test_an_unusable_identity_is_an_unknown_caller(identity: Any) -> None:
    assert caller_from_identity(identity, OPERATORS) is None


def test_an_unusable_identity_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    for identity in (123, "auth0|ada lovelace"):
        assert caller_from_identity(identity, OPERATORS) is None
    assert "the user id must be a string, not int" in caplog.text
    assert "the user id has '|' at position 5" in caplog.text
    assert "lovelace" not in caplog.text


def test_operators_are_named() -> None:
    assert caller_from_identity("root", OPERATORS) == Caller("root", operator=True)
    assert caller_from_metadata('{"user_id": "root"}', OPERATORS) == (True, Caller("root", operator=True))
    # Callers cannot make themselves operators.
    assert caller_from_metadata('{"user_id": "ada", "operator": true}', OPERATORS) == (True, Caller("ada"))


@pytest.mark.parametrize("metadata", ["", "not json", "[]", "{}", '"ada"', "7", None, MagicMock(), "[" * 100_000])
def test_metadata_without_a_user_leaves_it_to_the_participant(metadata: Any) -> None:
    assert caller_from_metadata(metadata, OPERATORS) == (False, None)


@pytest.mark.parametrize("user_id", [one for one in HOSTILE if not isinstance(one, bytes)])
def test_metadata_with_an_unusable_user_is_an_unknown_caller(user_id: Any) -> None:
    assert caller_from_metadata(json.dumps({"user_id": user_id}), OPERATORS) == (True, None)


async def test_the_caller_belongs_to_a_task_tree() -> None:
    async def who() -> Caller | None:
        await asyncio.sleep(0)
        return current_caller()

    async def conversation(name: str) -> list[Caller | None]:
        with use_caller(Caller(name)):
            inside = asyncio.create_task(who())
            thread = await asyncio.to_thread(current_caller)
            return [await who(), await inside, thread]

    seen = await asyncio.gather(*(conversation(f"u{n}") for n in range(20)))
    assert seen == [[Caller(f"u{n}")] * 3 for n in range(20)]
    assert current_caller() is None
