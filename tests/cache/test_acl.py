"""The ACL rule in docs/security.md is sufficient for every operation, and each right in it is needed."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache import LockUnavailable, RedisCache, keys
from tests.cache.surface import Surface
from tests.inside import epoch_of
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.resp import RedisReplyError, ask
from tests.wait import initialised, until

pytestmark = [pytest.mark.integration, pytest.mark.every_server, pytest.mark.usefixtures("maintained_often")]
DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "security.md").read_text()
RULE = re.search(r"(?m)^ACL SETUSER companion (.*)$", DOCUMENT)[1].split()  # type: ignore[index]  # fails loudly
COMMANDS = [part for part in RULE if part.startswith("+")]
KEYS = [part for part in RULE if part.startswith("~")]
WITHOUT = dict(re.findall(r"(?m)^\| `(\+[a-z|\\]+)` \| [^|]+ \| ([^|]+) \|$", DOCUMENT.replace("\\|", "\\")))

# The outcomes that change without a right; all others must stay the same.
LOST = {
    "+client|tracking": {"near"},
    "+dbsize": {
        *("clear_user_cache", "cleared", "index pruned"),
        *("fleet's statistics", "number of keys", "memory"),
    },
    "+scan": {"invalidate", "invalidated", "own cleared", "stray cleared"},
    "+info": {"fleet's statistics", "number of keys", "memory"},
    "+srem": {"index pruned"},
    "+sismember": {"own cleared"},
    "+getrange": {"own cleared"},
    "+incrby": {"incr"},
    "+hincrby": {"fleet's statistics"},
    "+hmget": {"fleet's statistics", "number of keys", "memory"},
    "+exists": {"exists"},
    "+ttl": {"ttl"},
    "+pexpire": {"lease renewed"},
    "~lock:*": {"lock", "lock twice"},
    "~temp:*": {"incr", "set nx", "set_many", "get_many", "exists", "expire", "ttl", "delete"},
}


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[RedisServer]:
    """Flush scripts and the epoch key, so that the cache must restore them; delete the user afterwards."""
    redis_server.cli("SCRIPT", "FLUSH")
    redis_server.cli("DEL", keys.system_server())
    redis_server.cli("ACL", "LOG", "RESET")
    yield redis_server
    redis_server.cli("ACL", "DELUSER", "companion")


def become(server: RedisServer, *rule: str, database: int = 0) -> str:
    """The URL of the user created by the rule."""
    server.cli("ACL", "SETUSER", "companion", *(part.replace("PASSWORD", "pw") for part in rule))
    return f"redis://companion:pw@127.0.0.1:{server.port}/{database}"


def refusals(server: RedisServer) -> list[str]:
    """The commands that the user was denied."""
    entries: list[dict[str, str]] = [
        dict(zip(entry[::2], entry[1::2], strict=True)) for entry in server.cli("ACL", "LOG", "128")
    ]
    return [entry["object"] for entry in entries]


@pytest.fixture(scope="session")
def outcomes_of_an_administrator() -> dict[str, Any]:
    """The outcomes with all rights, computed by the first test that needs them."""
    return {}


@pytest.fixture
async def everything(
    server: RedisServer, outcomes_of_an_administrator: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    if not outcomes_of_an_administrator:
        outcomes_of_an_administrator |= await Surface(server, server.url).walk(monkeypatch)
        server.cli("FLUSHALL")
        server.cli("SCRIPT", "FLUSH")
    return outcomes_of_an_administrator


def test_the_document_explains_every_command() -> None:
    assert COMMANDS
    assert sorted(command.replace("|", "\\") for command in COMMANDS) == sorted(WITHOUT)
    assert "-@all" not in RULE, "reset has taken everything away already"
    assert RULE[0] == "reset"


async def test_the_rule_suffices(
    server: RedisServer, everything: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await Surface(server, become(server, *RULE)).walk(monkeypatch) == everything
    assert refusals(server) == []
    assert all(everything[name] is True for name in ("connect", "near", "refreshed", "removed by none"))


@pytest.mark.parametrize("part", COMMANDS + KEYS)
async def test_nothing_in_the_rule_is_without_a_reason(
    server: RedisServer, everything: dict[str, Any], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    url = become(server, *(kept for kept in RULE if kept != part))
    # All other outcomes must stay the same on a loaded machine too; only what is lost is not waited for so long.
    surface = Surface(server, url, patience=10.0 if part in LOST else 0.05, hopeless=LOST.get(part, set()))
    outcomes = await surface.walk(monkeypatch)
    assert refusals(server), f"{part} is not used"
    lost = {name for name in everything if outcomes.get(name) != everything[name]}
    assert lost == LOST.get(part, lost)
    assert lost or part == "+unlink", f"{part} is not needed"  # DEL takes the place of UNLINK


@pytest.mark.parametrize("known", [True, False], ids=["known what changed", "cleared"])
@pytest.mark.parametrize("part", ["+dbsize", "+get", "+set", "+info", "+ttl"])
async def test_a_server_without_a_mark_that_does_not_answer_all_questions(
    server: RedisServer, make_cache: Any, part: str, known: bool
) -> None:
    """The server is quarantined and released as usual, without immediate retries; without INFO it is trusted."""
    server.cli("SET", "user:1:profile", "by hand")
    url = become(server, *(kept for kept in RULE if kept != part))
    cache: RedisCache = make_cache(url, deadline=2.0, connect_wait=5.0)
    asked = []

    async def ask() -> bool:
        asked.append(True)
        return True

    cache.recall_with(ask if known else None)
    await initialised(cache)
    await until(lambda: not cache.invalidations.undelivered)
    if part != "+info":
        assert asked == [True] * known
        await until(lambda: epoch_of(cache).checked_at > 0)
    assert server.cli("EXISTS", "user:1:profile") == (known or part == "+info")
    assert server.cli("EXISTS", keys.system_server()) == (part not in ("+info", "+set"))
    if part not in ("+get", "+set"):
        assert await cache.set("user:2:profile", "Ada", ttl=60)
        assert await cache.get("user:2:profile") == "Ada"


async def test_other_keys_and_other_commands_are_refused(server: RedisServer, make_cache: Any) -> None:
    server.cli("SET", "others:1", "theirs")
    server.cli("SET", "user:1:profile", "Ada")
    cache = make_cache(become(server, *RULE), deadline=2.0, connect_wait=5.0)
    await initialised(cache)
    assert await cache.get("others:1") is None
    assert await cache.set("others:1", "ours") is False
    assert (await cache.invalidate("others:*")).complete is False
    for command in ("KEYS *", "FLUSHALL", "CONFIG GET *", "EVAL return 0", "ACL LIST", "DEBUG SLEEP 0", "MONITOR"):
        with (
            socket.create_connection(("127.0.0.1", server.port)) as link,
            pytest.raises(RedisReplyError, match="NOPERM"),
        ):
            ask(link, ["AUTH", "companion", "pw"], command.split())
    assert server.cli("GET", "others:1") == "theirs"


async def test_another_database_needs_select(server: RedisServer, make_cache: Any) -> None:
    refused = make_cache(become(server, *RULE, database=1), connect_wait=5.0)
    assert await refused.initialize() is False
    cache: RedisCache = make_cache(become(server, *RULE, "+select", database=1), deadline=2.0, connect_wait=5.0)
    await initialised(cache)
    assert await cache.set("user:1:profile", "Ada")
    assert (await cache.invalidate("user:*")).deleted == 1


async def test_a_cluster_needs_two_more(clusters: dict[str, list[RedisServer]], make_cache: Any) -> None:
    (server,) = clusters["cluster of one"]
    server.cli("FLUSHALL")
    server.cli("ACL", "LOG", "RESET")
    url = become(server, *RULE, "+cluster|slots", "+asking")
    cache: RedisCache = make_cache(url, deadline=2.0, connect_wait=5.0)
    await until(cache.initialize)
    assert await cache.set("user:1:profile", "Ada")
    assert await cache.get("user:1:profile") == "Ada"
    assert (await cache.invalidate("user:*")).deleted == 1
    assert (await cache.get_stats())["redis_memory"] != "0B"
    assert refusals(server) == []
    server.cli("ACL", "DELUSER", "companion")


async def test_connections_name_themselves(server: RedisServer, make_cache: Any) -> None:
    cache: RedisCache = make_cache(become(server, *RULE), deadline=2.0, connect_wait=5.0)
    await cache.initialize()
    async with cache.lock("a", "b"):
        (ours,) = [line for line in server.cli("CLIENT", "LIST").splitlines() if "user=companion" in line]
    assert "name=companion-cache" in ours
    await cache.close()
    await until(lambda: "user=companion" not in server.cli("CLIENT", "LIST"))


async def test_a_wrong_password_and_no_rights_at_all(server: RedisServer, make_cache: Any) -> None:
    url = become(server, "reset", "on", ">PASSWORD")
    for cache in (make_cache(url, connect_wait=5.0), make_cache(url.replace(":pw@", ":no@"), connect_wait=5.0)):
        await cache.initialize()
        assert await cache.get("user:1:profile", "default") == "default"
        assert await cache.set("user:1:profile", "Ada") is False
        with pytest.raises(LockUnavailable):
            async with cache.lock("a", "b"):
                pass
