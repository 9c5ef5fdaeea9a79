"""A redis-server and a store in which several people have something, and everything anybody else may have there."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from cache.serialization.codec import encode
from tests.isolation.ear import MARK, SECRET
from tests.real.redis_server import RedisServer
from tests.real.resp import Part, ask, ask_each

CALLERS: Final = ("me", "m", "me.2")
OPERATOR: Final = "ops"
OTHERS: Final = ("me2", "ME", "user-me", "other", "0f8fad5b-d9cb-469f-a165-70867728950e", "x" * 128, "-", "~")
PEOPLE: Final = (*CALLERS, OPERATOR, *OTHERS)
PASSWORD: Final = f"{SECRET}-of-redis"
_OWN: Final = ("profile", "greeting_instructions", "settings", "state", "summary", "memory:search-1", "memory:7")
_NOBODYS: Final = (
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
_NOTES: Final = {"system:stats", "system:server"}
_TABLES: Final = ("profiles", "turns", "memories", "summaries", "states", "outbox")
# All that is not the caller's, as one digest. A lifetime counts by the second in which it ends; those of these tests
# end in the middle of one. The layer's own notes of the server and of everybody's calls are left out.
_DIGEST: Final = """
local user, now, all, found = ARGV[1], redis.call('TIME'), {}, redis.call('KEYS', '*')
table.sort(found)
local mine = {'user:' .. user .. ':', 'lease:{user:' .. user .. ':', 'stale:{user:' .. user .. ':'}
for _, key in ipairs(found) do
    local notes = key == 'system:stats' or key == 'system:server'
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


def mark(user: str) -> str:
    """The word that stands in everything this user has said."""
    return f"{MARK}{PEOPLE.index(user):02d}q"


def owns(user: str | None, key: str) -> bool:
    """Whether a key is this user's: his values, what guards them, his index."""
    if user is None:
        return False
    return (
        key.startswith((f"user:{user}:", f"lease:{{user:{user}:", f"stale:{{user:{user}:"))
        or key == f"index:{{{user}}}"
    )


class Town:
    """The two of them, filled. Looks at both past everything that is under test."""

    def __init__(self, server: RedisServer, database: Path) -> None:
        self._link = server._connect()
        if server.password:
            ask(self._link, ("AUTH", server.password))
        self._database = database
        self.profiles = {user: f"Name: {mark(user)}" for user in PEOPLE}
        """What each has in the store, and so in the cache."""
        self._rows: sqlite3.Connection | None = None
        self._server = ""
        self._seen: tuple[int, str | None] | None = None
        self._rows_digest = ""
        self._script = str(self.cli("SCRIPT", "LOAD", _DIGEST))
        self._end = (int(self.cli("TIME")[0]) + 7_200) * 1_000 + 500

    def close(self) -> None:
        self._link.close()
        if self._rows is not None:
            self._rows.close()

    def cli(self, *command: Part) -> Any:
        return ask(self._link, command)

    def many(self, commands: Iterable[Sequence[Part]]) -> list[Any]:
        """The replies to commands that are sent together."""
        return ask_each(self._link, commands)

    def fill(self) -> None:
        """Give everybody everything in Redis."""
        if known := self.cli("GET", "system:server"):
            self._server = known
        # With its mark: a server without one, and with all this in it, would be doubted.
        commands: list[tuple[Part, ...]] = [("FLUSHALL",), ("SET", "system:server", self._server)]
        for user in PEOPLE:
            commands += self.belongings(user)
            for kind in ("lease", "stale"):
                commands.append(("SET", f"{kind}:{{user:{user}:profile}}", f"{kind} {mark(user)}"))
        commands += [("SET", key, f"of {key}") for key in _NOBODYS]
        commands += [
            ("HSET", "bull:queue", "job", "1"),
            ("RPUSH", "list", "a", "b"),
            ("ZADD", "scores", 1, "user:me:profile"),
        ]
        commands += [
            ("PEXPIREAT", key, self._end) for key in ("temp:session:key", "lock:user:me", "unrelated", "system:config")
        ]
        self.many(commands)

    def belongings(self, user: str) -> list[tuple[Part, ...]]:
        """The commands that give a user a value of every kind."""
        values: dict[str, Part] = {name: f"{name} of {mark(user)}" for name in _OWN}
        values["profile"] = encode(self.profiles[user])
        values["greeting_instructions"] = json.dumps({"opening": "follow_up", "topic": mark(user)})
        values["state"] = json.dumps({"conversations": 3, "stage": "acquainted", "note": mark(user)})
        values["memory:search-1"] = json.dumps([mark(user)])
        commands: list[tuple[Part, ...]] = [("SET", f"user:{user}:{name}", value) for name, value in values.items()]
        commands.append(("SADD", f"index:{{{user}}}", "memory:search-1", "memory:7"))
        return [*commands, ("PEXPIREAT", f"user:{user}:profile", self._end)]

    def forget_facts(self, user: str | None) -> None:
        """Remove what a caller had remembered, so that searching does not take longer and longer."""
        if user is not None:
            with closing(sqlite3.connect(self._database)) as rows, rows:
                rows.execute("DELETE FROM memories WHERE user_id = ? AND id <> 'm'", (user,))
                rows.execute("DELETE FROM turns WHERE user_id = ? AND id <> 't'", (user,))

    def names(self, pattern: str = "*") -> set[str]:
        """The keys that Redis itself says match a pattern."""
        found: list[str] = self.cli("KEYS", pattern.encode(errors="surrogateescape"))
        return set(found)

    def details(self) -> dict[str, str]:
        """Every key with all that is in it, but for the layer's own notes."""
        names = sorted(self.names() - _NOTES)
        return dict(
            zip(names, self.many(("DUMP", name.encode(errors="surrogateescape")) for name in names), strict=True)
        )

    def of_others(self, user: str | None) -> tuple[str, str]:
        """A digest of all in Redis and of all in the store that is not this user's (None: of all)."""
        return str(self.cli("EVALSHA", self._script, 0, user or "")), self._rows_of_others(user)

    def _rows_of_others(self, user: str | None) -> str:
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
