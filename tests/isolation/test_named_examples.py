"""Well-known hostile inputs, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final
from unittest.mock import MagicMock

import pytest

from cache import keys
from companion import Caller, get_user_profile_async, use_caller
from companion.identity import caller_from_identity
from tests.agent.test_agent import greeting, job, name_of
from tests.isolation.cases.tool_cases import answer
from tests.isolation.hostile.hostile_calls import ARGUMENT, Call
from tests.isolation.runner import open_runner
from tests.real.redis.redis_server import RedisServer
from tests.tools.conversation import Userdata

pytestmark = pytest.mark.isolation
MINE: Final = {f"user:me:{name}" for name in (*keys.FAMILIES, "memory:search-1", "memory:7")}
PATTERNS: Final = {
    "*": MINE,
    "user:*": MINE,
    "[^x]*": MINE,
    "user:123\\:*": set(),
    "user:me\\:*": MINE,
    "user:me2:*": set(),
    "user:*:profile": {"user:me:profile"},
    "\x00": set(),
    "user:me:*\x00": set(),
    "*" * 1024: MINE,
}
REFUSED: Final = ("x" * 1_048_576, "*" * 1_048_576, "\x00" * 1_048_576, "")
IDENTITIES: Final = ("user-*", "sip_anonymous", "x" * 10_000, "\U0001f600", MagicMock())
TEXTS: Final = {
    "JSON": '{"user_id": "me2", "operator": true, "profile": ["$ref"]}',
    "JSON text": '"Name: Ada"',
    "number": "12345",
    "Lua": "'] end redis.call('FLUSHALL') --[[",
    "RESP": "*1\r\n$8\r\nFLUSHALL\r\n",
    "RESP reply": "$-1\r\n-ERR no\r\n>2\r\n+invalidate\r\n_",
    "null bytes": "Name:\x00Ada",
    "glob": "user:*:[^x]?\\",
    "escapes": "\x1b[2J\x1b]0;Ada\x07",
    "formats": "%s %(name)s {0} {self.__class__}",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467\u202eadA",
    "long": "Ada " * 999 + "Ada",
}


async def test_patterns(tmp_path: Path) -> None:
    async with open_runner(tmp_path, float("inf")) as runner, runner.acting_as("me"):
        for pattern, removed in PATTERNS.items():
            runner.data.pipeline(runner.data.user_commands("me"))
            reply = await answer(Call("invalidateCache", ""), {"pattern": pattern}, Userdata(Caller("me")))
            assert (reply["success"], reply["deleted_keys"]) == (True, len(removed)), pattern
            assert runner.data.matching("user:me:*") == MINE - removed
            runner.check_unchanged("me", pattern)
        runner.data.pipeline(runner.data.user_commands("me"))
        for pattern in REFUSED:
            reply = await answer(Call("invalidateCache", ""), {"pattern": pattern}, Userdata(Caller("me")))
            assert (reply["success"], reply["deleted_keys"]) == (False, 0)
            assert len(reply["message"]) < 200
            assert runner.data.matching("user:me:*") == MINE
            runner.check_unchanged("me", "refused")
    assert not runner.result.violations


async def test_profile_texts(tmp_path: Path) -> None:
    async with open_runner(tmp_path, float("inf")) as runner, runner.acting_as("me"):
        for text in TEXTS.values():
            me = Userdata(Caller("me"))
            assert (await answer(Call("updateUserProfile", ""), {"profile": text, "confirm": True}, me))["success"]
            assert (await answer(Call("rememberFact", ""), {"fact": text}, me))["success"]
            kept = text.strip().replace("\x00", "\ufffd")
            for _ in range(2):  # from the store, and from the cache
                assert (await answer(Call("getUserProfile", ""), {}, me))["profile"] == kept
            assert kept in (await answer(Call("recallFacts", ""), {"query": ""}, me))["facts"]
            with use_caller(Caller("me2")):
                assert await get_user_profile_async() == runner.data.profiles["me2"]
            runner.check_unchanged("me", text)
    assert not runner.result.violations


@pytest.mark.parametrize("identity", IDENTITIES, ids=["star", "withheld", "long", "emoji", "mock"])
async def test_identities(
    identity: Any, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert caller_from_identity(identity, frozenset({"*", "x"})) is None
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("CACHE_CONNECT_WAIT_MS", "5000")
    monkeypatch.setenv("COMPANION_MODELS", "offline")
    monkeypatch.chdir(tmp_path)  # importing the agent reads the .env of the working directory
    from agent import entrypoint

    redis_server.cli("SET", "user:x:profile", "Name: Xenia")
    metadata = json.dumps({"user_id": identity}) if isinstance(identity, str) else ""
    async with job(entrypoint, metadata, identity=identity) as talk:
        assert name_of(talk) is None
        assert "What is your name?" in greeting(talk)
        for tool in ARGUMENT.keys() - {"getRedisCacheStats"}:
            words = {
                "pattern": "*",
                "profile": "Name: Eve",
                "fact": "the key is under the mat",
                "query": "key",
                "what": "key",
            }
            given = {ARGUMENT[tool]: words[str(ARGUMENT[tool])]} if ARGUMENT[tool] else {}
            reply = await answer(Call(tool, ""), given, Userdata(talk.memory.caller))
            assert reply["success"] is False
    assert set(redis_server.cli("KEYS", "*")) - {"system:stats", "system:server", "system:cache"} == {"user:x:profile"}
    stored = [path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert not any(b"under the mat" in text or b"Eve" in text for text in stored)
