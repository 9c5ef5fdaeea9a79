"""Job metadata: what names a caller, what names none, and what is about a user id but cannot be read."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any
from unittest.mock import MagicMock

import pytest

from companion import Caller
from companion.identity import caller_from_metadata

pytestmark = pytest.mark.unit
OPERATORS = frozenset({"root"})
LOVELACE = '{"user_id": "lovelace"}'
ADA = '{"user_id": "ada"}'


@pytest.mark.parametrize(
    "metadata",
    [
        *("", " ", "not json", "[]", "{}", '"ada"', "7", "null", None, MagicMock(), "[" * 100_000, '{"language": "en"'),
        *('{"room": {"id": 7}}', '{"user": "ada"}', '{"current_user_identity": 1}', "greet the user identically"),
        *("d2hhdCB0aGUgdXNlciBkaWQ=", b64encode(b'{"room": "x"}').decode(), "00ff", "=" * 100, "\0", "e30="),
        *('{"note": "ask for the user_id"}', '{"owner_user_id": "ada"}', "{'language': 'en'}", '{"user": {"id": 7}}'),
    ],
)
def test_metadata_about_something_else_leaves_it_to_the_participant(
    metadata: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert caller_from_metadata(metadata, OPERATORS) == (False, None)
    assert not [record for record in caplog.records if record.name == "companion"]


@pytest.mark.parametrize(
    ("metadata", "user_id"),
    [
        (ADA, "ada"),
        (f"\n {ADA} \t", "ada"),
        ('{"user_id": 42}', "42"),
        ('{"user_id": "42"}', "42"),
        ('{"user_id": "auth0|ada"}', "~=auth0=7cada"),
        ('{"user\\u005fid": "ada"}', "ada"),
        ('{"user_id": "ada", "userId": "eve"}', "ada"),
        ('{"user_id": "ada", "room": {"user_id": "eve"}}', "ada"),
        ('{"tag": 1, "tag": 2, "user_id": "ada"}', "ada"),
    ],
)
def test_metadata_names_a_user(metadata: str, user_id: str) -> None:
    assert caller_from_metadata(metadata, OPERATORS) == (True, Caller(user_id))


@pytest.mark.parametrize(
    "user_id",
    [
        *("", "*", "x" * 10_000, "a\n", "a\x00", "😀", None, True, False, 1.0, 7.5, float("nan"), float("inf"), 0),
        *(["ada"], {"id": "ada"}, "anonymous", "Guest", "undefined", "null", "0", "user-undefined", "sip_"),
    ],
)
def test_metadata_with_an_unusable_user_is_an_unknown_caller(user_id: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert caller_from_metadata(json.dumps({"user_id": user_id}), OPERATORS) == (True, None)
    assert len(caplog.records) == 1


# What is wrong with it, and a word of the warning.
UNREADABLE = {
    '{"user_id": "lovelace"': "not JSON",  # a lost brace
    '"user_id": "lovelace"}': "not JSON",
    "{'user_id': 'lovelace'}": "not JSON",
    '{"user_id": "lovelace",}': "not JSON",
    "\ufeff" + '{"user_id": "lovelace"}': "not JSON",
    '{"user_id": lovelace}': "not JSON",
    '{user_id: "lovelace"}': "not JSON",
    '{"user_id": “lovelace”}': "not JSON",
    '{"user_id": "lovelace"} {}': "not JSON",
    "user_id=lovelace": "not JSON",
    "user_id: lovelace": "not JSON",
    "userId=lovelace": "not JSON",
    "USER-ID lovelace": "not JSON",
    "%7B%22user%5Fid%22: lovelace": "not JSON",
    "{user\\u005fid lovelace": "not JSON",
    "ｕｓｅｒ＿ｉｄ lovelace": "not JSON",
    '{"\\u0075\\u0073\\u0065\\u0072\\u005f\\u0069\\u0064": "lovelace"': "not JSON",
    "{&quot;user&#95;id&quot;:&quot;lovelace&quot;}": "not JSON",
    "%257B%2522user%255Fid%2522: lovelace": "not JSON",
    LOVELACE.encode("utf-16-le").decode(): "not JSON",
    LOVELACE.encode("utf-16").decode("latin-1"): "not JSON",
    b64encode(LOVELACE.encode()).decode(): "not JSON",
    b64encode(LOVELACE.encode("utf-16")).decode(): "not JSON",
    f"data:application/json;base64,{b64encode(LOVELACE.encode()).decode()}": "not JSON",
    f"eyJhbGciOiJIUzI1NiJ9.{b64encode(LOVELACE.encode()).decode().rstrip('=')}.c2lnbmVk": "not JSON",
    json.dumps(b64encode(LOVELACE.encode()).decode()): "encoded twice",
    LOVELACE.encode().hex(): "not JSON",
    '<user_id>"lovelace"</user_id>': "not JSON",
    '{"user_id": ' + "7" * 5000 + "}": "not JSON",
    '{"user_id": ' + "[" * 100_000: "not JSON",
    json.dumps('{"user_id": "lovelace"}'): "encoded twice",
    json.dumps(json.dumps('{"user_id": "lovelace"}')): "encoded twice",
    '[{"user_id": "lovelace"}]': "a list",
    '["user_id", "lovelace"]': "a list",
    '{"user_id": "lovelace", "user_id": "eve"}': "more than once",
    '{"user_id": "lovelace", "user_id": "lovelace"}': "more than once",
    '{"userId": "lovelace"}': "another place",
    '{"userid": "lovelace"}': "another place",
    '{"User_ID": "lovelace"}': "another place",
    '{" user_id ": "lovelace"}': "another place",
    '{"data": {"user_id": "lovelace"}}': "another place",
    '{"data": [{"x": {"user-id": "lovelace"}}]}': "another place",
    json.dumps({"data": '{"user_id": "lovelace"}'}): "another place",
}


@pytest.mark.parametrize(("metadata", "reason"), UNREADABLE.items(), ids=[key[:40] for key in UNREADABLE])
def test_unreadable_metadata_about_a_user_is_an_unknown_caller_and_one_warning_says_why(
    metadata: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert caller_from_metadata(metadata, OPERATORS) == (True, None)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert reason in record.getMessage()
    assert "lovelace" not in record.getMessage()
    assert len(record.getMessage()) < 200
