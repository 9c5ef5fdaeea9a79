"""Identities and metadata that name a caller, and those that name none."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from typing import Any
from unicodedata import normalize
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import keys
from companion import Caller, current_caller, use_caller
from companion.identity import (
    UnusableIdentity,
    caller_from_identity,
    caller_from_metadata,
    identity_of,
    user_id_of,
)

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


HOSTILE = [
    "",
    "user-*",
    " a",
    "x" * 10_000,
    "😀",
    "a\n",
    "a\x00",
    "[^x]",
    "a\u200b",
    "\ud800",
    None,
    7,
    b"ada",
    ["ada"],
]


@pytest.mark.parametrize("identity", [*HOSTILE, MagicMock()])
def test_an_unusable_identity_is_an_unknown_caller(identity: Any) -> None:
    assert caller_from_identity(identity, OPERATORS) is None


def test_an_unusable_identity_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    for identity in (123, "auth0|*ada lovelace", "lovelace ", "anonymous"):
        assert caller_from_identity(identity, OPERATORS) is None
    assert "the user id must be a string, not int" in caplog.text
    assert "the user id has '*' at position 6" in caplog.text
    assert "the user id begins or ends with a blank" in caplog.text
    assert "the user id names no particular person" in caplog.text
    assert len(caplog.records) == 4
    assert "lovelace" not in caplog.text


# As identity providers make them, and what they become. None: the hash of a text that is too long.
PROVIDERS: dict[str, str | None] = {
    "auth0|5f7c8ec7c33c6c004bbafe82": "~=auth0=7c5f7c8ec7c33c6c004bbafe82",
    "google-oauth2|103547991597142817347": "~=google-oauth2=7c103547991597142817347",
    f"us-east-1:{UUID}": f"~=us-east-1=3a{UUID}",
    "did:key:z6MkhaXgBZD": "~=did=3akey=3az6MkhaXgBZD",
    "did:web:example.com%3A3000:ada#me": "~=did=3aweb=3aexample.com=253A3000=3aada=23me",
    "José": "~=Jos=c3=a9",
    "o'brien@example.org": "~=o=27brien@example.org",
    "müller@bücher.example": "~=m=c3=bcller@b=c3=bccher.example",
    "spiffe://example.org/ada": "~=spiffe=3a=2f=2fexample.org=2fada",
    "CN=José García,OU=Users": "~=CN=3dJos=c3=a9=20Garc=c3=ada=2cOU=3dUsers",
    "CORP\\ada": "~=CORP=5cada",
    "../x": "~=..=2fx",
    "user:ada": "~=user=3aada",
    "नेहा": "~=" + "".join(f"={byte:02x}" for byte in "नेहा".encode()),
    f"u\u017fer-{UUID}": f"~=u=c5=bfer-{UUID}",  # a long s equals s under case folding
    "~=auth0=7cada": "~=~=3dauth0=3d7cada",
    "x" * 129: None,
    "did:key:" + "z" * 400: None,
}


@pytest.mark.parametrize(("identity", "user_id"), PROVIDERS.items())
def test_the_id_of_an_identity_provider_is_a_person(identity: str, user_id: str | None) -> None:
    caller = caller_from_identity(identity, OPERATORS)
    assert caller is not None
    assert keys.user_id(caller.user_id) == caller.user_id
    if user_id is None:
        assert caller.user_id == f"~==sha256={sha256(identity.encode()).hexdigest()}"
        assert identity_of(caller.user_id) is None
    else:
        assert caller.user_id == user_id
        assert identity_of(user_id) == identity
    assert caller_from_metadata(json.dumps({"user_id": identity}), OPERATORS) == (True, caller)


def test_the_normal_form_of_unicode_decides() -> None:
    assert user_id_of("Jose\u0301") == user_id_of("Jos\u00e9") != user_id_of("Jose")


ids = st.text(st.characters(codec="utf-8"), max_size=60) | st.text("ab~=|3d7c", max_size=60)


@given(ids, ids)
def test_two_ids_never_become_one(one: str, other: str) -> None:
    texts = [normalize("NFC", text) for text in (one, other)]
    try:
        found = [user_id_of(text) for text in texts]
    except UnusableIdentity:
        return
    assert (found[0] == found[1]) == (texts[0] == texts[1])
    for text, user_id in zip(texts, found, strict=True):
        assert keys.user_id(user_id) == user_id
        assert identity_of(user_id) in (text, None)
        assert user_id_of(user_id) == user_id or user_id.startswith("~=")  # a stored id is no identity


@given(st.from_regex(r"[A-Za-z0-9._@+=~-]{1,128}", fullmatch=True))
def test_an_id_that_was_usable_before_stays_as_it_is(identity: str) -> None:
    assert user_id_of(identity) in (identity, identity.lower()) or identity.lower().startswith(("~=", "user-"))


def test_operators_are_named() -> None:
    assert caller_from_identity("root", OPERATORS) == Caller("root", operator=True)
    assert caller_from_metadata('{"user_id": "root"}', OPERATORS) == (True, Caller("root", operator=True))
    # Callers cannot make themselves operators.
    assert caller_from_metadata('{"user_id": "ada", "operator": true}', OPERATORS) == (True, Caller("ada"))


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
