"""``companion forget`` and ``companion export``: a person on the command line."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from companion.cli import make_app
from companion.identity import phone_caller
from companion.store import Memory, PersonData, SqliteStore, StoreError, Summary, Turn, person_from_json, person_to_json
from companion.writes import Spool
from tests.real.redis.redis_server import RedisServer

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
NOTHING = PersonData(None, [], [], [], [], None)
STRANGE = 'tea \u2028 \x1b[2J \U0001f375 "quoted" \\ 日本語'


@pytest.fixture
def home(home: Path, redis_server: RedisServer) -> Path:
    """Where a worker has kept something of everything."""
    asyncio.run(fill(home, "ada"))
    redis_server.cli("SET", "user:ada:profile", STRANGE)
    return home


async def fill(home: Path, user: str) -> None:
    store = SqliteStore(home / "companion.db")
    await store.save_profile(user, "Name: Ada")
    await store.save_profile(user, f"Name: Ada\nLikes: {STRANGE}")
    await store.add_turn(user, Turn("user", STRANGE, NOON, "c1"))
    await store.add_turn(user, Turn("assistant", "", NOON, "c1"))
    await store.add_memory(user, Memory(STRANGE, NOON))
    await store.save_summary(user, Summary("c1", STRANGE, NOON))
    await store.save_state(user, {"stage": "new", "deep": [1, None, {"x": 0.5}]})
    await store.close()


async def kept(home: Path, user: str = "ada") -> PersonData:
    store = SqliteStore(home / "companion.db")
    try:
        return await store.export_user(user)
    finally:
        await store.close()


def companion(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(make_app("0", lambda: None), arguments, input=answer)


def test_an_export_can_be_read_back(home: Path) -> None:
    Spool(home).add("ada", [Memory("waits", NOON)])
    shown = companion("export", "ada")
    assert shown.exit_code == 0
    expected = asyncio.run(kept(home))
    assert len(expected.versions) == len(expected.turns) == 2
    assert person_from_json(shown.stdout) == ("ada", expected)
    assert [fields["text"] for fields in json.loads(shown.stdout)["waiting"]] == ["waits"]
    assert companion("export", "ada", "ada.json").exit_code == 0
    file = Path("ada.json")
    assert person_from_json(file.read_text(encoding="utf-8")) == ("ada", expected)
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_export_of_nothing(home: Path) -> None:
    shown = companion("export", "eve")
    assert person_from_json(shown.stdout) == ("eve", NOTHING)
    assert person_from_json(person_to_json("eve", NOTHING)) == ("eve", NOTHING)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"user_id": "ada"}', '{"user_id": "a", "turns": [{"at": "x"}]}'])
def test_what_is_no_export_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not an export|Expecting value"):
        person_from_json(text)


def test_an_export_that_cannot_be_written(home: Path) -> None:
    result = companion("export", "ada", "no/such/folder.json")
    assert result.exit_code == 1
    assert result.stderr.startswith("companion: nothing was written: ")


def test_it_asks_before_it_erases(home: Path, redis_server: RedisServer) -> None:
    asked = companion("forget", "ada", answer="n\n")
    assert "ada (1 profile, 2 turns, 1 fact, 1 summary)? It cannot be undone." in asked.output
    assert asked.exit_code == 1
    assert asyncio.run(kept(home)) != NOTHING
    done = companion("forget", "ada", answer="y\n")
    assert done.exit_code == 0, done.output
    assert done.output.endswith("Everything that was kept of ada is erased.\n")
    assert asyncio.run(kept(home)) == NOTHING
    assert redis_server.cli("KEYS", "*ada*") in ([], "")


def test_with_yes_it_does_not_ask(home: Path) -> None:
    done = companion("forget", "ada", "--yes")
    assert done.output == "Everything that was kept of ada is erased.\n"
    assert asyncio.run(kept(home)) == NOTHING


def test_an_identity_names_a_person_too(home: Path) -> None:
    asyncio.run(fill(home, "~=auth0=7cada"))
    expected = asyncio.run(kept(home, "~=auth0=7cada"))
    for given in ("auth0|ada", "~=auth0=7cada"):
        assert person_from_json(companion("export", given).stdout) == ("~=auth0=7cada", expected)
    assert companion("forget", "auth0|ada", "--yes").exit_code == 0
    assert asyncio.run(kept(home, "~=auth0=7cada")) == NOTHING


def test_what_cannot_be_done_now_is_done_later(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> int:
        raise StoreError("erase_user", "timeout")

    with monkeypatch.context() as outage:
        outage.setattr(SqliteStore, "erase_user", fail)
        result = companion("forget", "ada", "--yes")
    assert result.exit_code == 1
    assert "is not erased everywhere yet" in result.stderr
    assert [path.suffix for path in Spool(home).folder.iterdir()] == [".erase"]
    assert companion("forget", "ada", "--yes").exit_code == 0
    assert asyncio.run(kept(home)) == NOTHING


def test_a_caller_on_the_phone_is_named_by_their_number(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPANION_PHONE_IDENTITY", "true")
    monkeypatch.setenv("COMPANION_ID_KEY", "a key of 32 characters for tests")
    user = phone_caller("", "+4930123456", key=b"a key of 32 characters for tests").user_id
    asyncio.run(fill(home, user))
    asyncio.run(fill(home, "sip_+4930123456"))  # until their next call
    asyncio.run(fill(home, "sip_4930123456"))
    exported, data = person_from_json(companion("export", "+49 30 123456").stdout)
    assert exported == user
    assert len(data.turns) == 6, "what was kept before the key was set is theirs too"
    Spool(home).add("sip_+4930123456", [Memory("waits", NOON)])  # of before, as a replay finds it
    for given in ("+49 30 123456", "sip_+4930123456"):
        shown = companion("export", given).stdout
        assert person_from_json(shown) == (user, data)
        assert [fields["text"] for fields in json.loads(shown)["waiting"]] == ["waits"]
    asyncio.run(fill(home, "sip_4930654321"))
    for number in ("+49 30 123456", "+4930654321"):
        assert companion("forget", number, "--yes").exit_code == 0
    for each in (user, "sip_+4930123456", "sip_4930123456", "sip_4930654321"):
        assert asyncio.run(kept(home, each)) == NOTHING
