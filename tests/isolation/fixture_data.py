"""Fixture data: keys and rows of several users in Redis and the store, and keys of the layer and other applications."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from cache.serialization.codec import encode
from tests.isolation.log_capture import MARKER, SECRET
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.resp import Part, ask, ask_each

CALLERS: Final = ("me", "m", "me.2")
OPERATOR: Final = "ops"
OTHER_USERS: Final = ("me2", "ME", "user-me", "other", "0f8fad5b-d9cb-469f-a165-70867728950e", "x" * 128, "-", "~")
USERS: Final = (*CALLERS, OPERATOR, *OTHER_USERS)
PASSWORD: Final = f"{SECRET}-of-redis"
_USER_KEYS: Final = ("profile", "greeting_instructions", "settings", "state", "summary", "memory:search-1", "memory:7")
_UNOWNED_KEYS: Final = (
    *(
        "user:",
        "user:me",
        "user:me*",
        "user:*:profile",
        "user:\\me:profile",
        "xuser:me:profile",
        "user:me2",
        "User:me:profile",
    ),
    *(
        "lock:user:me",
        "lock:greeting:me2",
        "system:config",
        "temp:session:key",
        "temp:me:profile",
        "unrelated",
        "me",
        "session:me",
    ),
    *(
        "celery-task-meta-1",
        "lease:{me}",
        "stale:{temp:session:key}",
        "index:me",
        "leases",
        "{user:me:profile}",
        "ä:ö",
        "a b\nc",
    ),
)
BOOKKEEPING_KEYS: Final = {"system:stats", "system:server", "system:cache"}
_TABLES: Final = ("profiles", "turns", "memories", "summaries", "states", "outbox", "forgotten")
# Digest of every key that is not the user's. A TTL counts by the second in which it expires; the TTLs of these tests
# expire in the middle of one. The layer's bookkeeping keys are excluded.
_DIGEST: Final = """
local user, now, all, found = ARGV[1], redis.call('TIME'), {}, redis.call('KEYS', '*')
table.sort(found)
local mine = {'user:' .. user .. ':', 'lease:{user:' .. user .. ':', 'stale:{user:' .. user .. ':'}
for _, key in ipairs(found) do
    local notes = key == 'system:stats' or key == 'system:server' or key == 'system:cache'
    local own = key == 'index:{' .. user .. '}'
    for _, prefix in ipairs(mine) do own = own or string.sub(key, 1, #prefix) == prefix end
    if user == '' or not own then
        if not notes then
            local left = redis.call('PTTL', key)
            local ends = left < 0 and left or math.floor((now[1] * 1000 + now[2] / 1000 + left) / 1000)
            all[#all + 1] = key .. '\\0' .. redis.call('DUMP', key) .. ends
        end
    end
end
return redis.sha1hex(table.concat(all, '\\0'))
"""


def marker(user: str) -> str:
    """The word contained in all of this user's data."""
    return f"{MARKER}{USERS.index(user):02d}q"


def owns(user: str | None, key: str) -> bool:
    """Whether a key is this user's: values, their leases and stale copies, and the index."""
    if user is None:
        return False
    return (
        key.startswith((f"user:{user}:", f"lease:{{user:{user}:", f"stale:{{user:{user}:"))
        or key == f"index:{{{user}}}"
    )


class FixtureData:
    """Fixture data in Redis and SQLite, read and written on connections of its own, bypassing the code under test."""

    def __init__(self, server: RedisServer, database: Path) -> None:
        self._connection = server.connect()
        if server.password:
            ask(self._connection, ("AUTH", server.password))
        self._database = database
        self.profiles = {user: f"Name: {marker(user)}" for user in USERS}
        """Profile of each user in the store and in the cache."""
        self._rows: sqlite3.Connection | None = None
        self._server = ""
        self._seen: tuple[int, str | None] | None = None
        self._rows_digest = ""
        self._script = str(self.cli("SCRIPT", "LOAD", _DIGEST))
        self._end = (int(self.cli("TIME")[0]) + 7_200) * 1_000 + 500

    def close(self) -> None:
        self._connection.close()
        if self._rows is not None:
            self._rows.close()

    def cli(self, *command: Part) -> Any:
        return ask(self._connection, command)

    def pipeline(self, commands: Iterable[Sequence[Part]]) -> list[Any]:
        """Send the commands in one pipeline and return the replies."""
        return ask_each(self._connection, commands)

    def load(self) -> None:
        """Flush Redis and write every user's keys and the unowned keys."""
        if known := self.cli("GET", "system:server"):
            self._server = known
        # With the server's epoch key: a server without it that already holds keys would be quarantined.
        commands: list[tuple[Part, ...]] = [("FLUSHALL",), ("SET", "system:server", self._server)]
        for user in USERS:
            commands += self.user_commands(user)
            for kind in ("lease", "stale"):
                commands.append(("SET", f"{kind}:{{user:{user}:profile}}", f"{kind} {marker(user)}"))
        commands += [("SET", key, f"of {key}") for key in _UNOWNED_KEYS]
        commands += [
            ("HSET", "bull:queue", "job", "1"),
            ("RPUSH", "list", "a", "b"),
            ("ZADD", "scores", 1, "user:me:profile"),
        ]
        commands += [
            ("PEXPIREAT", key, self._end) for key in ("temp:session:key", "lock:user:me", "unrelated", "system:config")
        ]
        self.pipeline(commands)

    def user_commands(self, user: str) -> list[tuple[Part, ...]]:
        """The commands that write every key of a user."""
        values: dict[str, Part] = {name: f"{name} of {marker(user)}" for name in _USER_KEYS}
        values["profile"] = encode(self.profiles[user])
        values["greeting_instructions"] = json.dumps({"opening": "follow_up", "topic": marker(user)})
        values["state"] = json.dumps({"conversations": 3, "stage": "acquainted", "note": marker(user)})
        values["memory:search-1"] = json.dumps([marker(user)])
        commands: list[tuple[Part, ...]] = [("SET", f"user:{user}:{name}", value) for name, value in values.items()]
        commands.append(("SADD", f"index:{{{user}}}", "memory:search-1", "memory:7"))
        return [*commands, ("PEXPIREAT", f"user:{user}:profile", self._end)]

    def delete_added_rows(self, user: str | None) -> None:
        """Delete the facts and turns that cases added, so that searches stay fast."""
        if user is not None:
            with closing(sqlite3.connect(self._database)) as rows, rows:
                rows.execute("DELETE FROM memories WHERE user_id = ? AND id <> 'm'", (user,))
                rows.execute("DELETE FROM turns WHERE user_id = ? AND id <> 't'", (user,))

    def matching(self, pattern: str = "*") -> set[str]:
        """The keys that match a pattern, according to Redis."""
        found: list[str] = self.cli("KEYS", pattern.encode(errors="surrogateescape"))
        return set(found)

    def dump(self) -> dict[str, str]:
        """Every key and its serialized value, except the bookkeeping keys."""
        names = sorted(self.matching() - BOOKKEEPING_KEYS)
        return dict(
            zip(names, self.pipeline(("DUMP", name.encode(errors="surrogateescape")) for name in names), strict=True)
        )

    def digest_of_others(self, user: str | None) -> tuple[str, str]:
        """Digests of Redis and of the store without this user's data (None: of everything)."""
        return str(self.cli("EVALSHA", self._script, 0, user or "")), self._row_digest_of_others(user)

    def _row_digest_of_others(self, user: str | None) -> str:
        if self._rows is None:
            self._rows = sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, isolation_level=None)
        (version,) = self._rows.execute("PRAGMA data_version").fetchone()
        if self._seen != (version, user):
            digest = hashlib.sha1(usedforsecurity=False)
            for table in _TABLES:
                rows = self._rows.execute(f"SELECT * FROM {table} WHERE user_id IS NOT ?", (user,)).fetchall()
                digest.update(repr(sorted(rows, key=repr)).encode(errors="surrogatepass"))
            self._seen, self._rows_digest = (version, user), digest.hexdigest()
        return self._rows_digest
