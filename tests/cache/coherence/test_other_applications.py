"""Other applications' keys in the same Redis survive everything that this layer does of its own accord."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cache import RedisCache, keys
from tests.cache.loading.loader import Loader
from tests.inside import engine_of
from tests.real.redis.redis_server import RedisServer
from tests.wait import initialised, until

pytestmark = pytest.mark.integration
Make = Callable[..., RedisCache]

OTHERS: dict[str, tuple[Any, ...]] = {
    "user:7:orders": ("SET", '["bread"]'),
    "user:7:orders:19": ("SET", "paid"),
    "user:7:cart:items": ("RPUSH", "bread", "milk"),
    "user:7:memory": ("SET", "of another kind"),
    "user:7:memory:used:bytes": ("SET", "512"),
    "user:7:settings:theme": ("SET", "dark"),
    "user:7": ("HSET", "name", "Ada"),
    "user:next": ("SET", "8"),
    "user:müller:profile": ("SET", "an id that is none here"),
    "user:\udcff\udcfe:orders": ("SET", "an id that is no text"),
    "user:7:\udcff": ("SET", "a name that is no text"),
    # Exactly the shape of ours:
    "user:7:profile": ("HSET", "name", "Ada"),
    "user:7:summary": ("SADD", "a"),
    "user:8:profile": ("SET", b"\x80\x04\x95 pickled"),
    "user:8:state": ("SET", b"\xff\xd8\xff\xe0 a picture" + bytes(100)),
    "user:8:settings": ("SET", '{"cut short": '),
    "user:8:memory:photo": ("SET", b"\x1f\x8b\x08 packed" + bytes(range(256)) * 20),
    "session:1": ("HSET", "user", "7"),
    "lock:build": ("SET", "runner-3"),
    "system:version": ("SET", "12"),
    "index:site": ("SADD", "user:7:orders"),
    "index:{7}:by-date": ("ZADD", "1", "orders"),
    "lease:car:7": ("SET", "until May"),
    "lease:{room:7}": ("SET", "booked"),
    "stale:{bread}": ("SET", "yesterday's"),
    "temp:7:draft": ("SET", "dear"),
    "users": ("SADD", "7"),
}
OURS = [*(f"user:7:{name}" for name in ("state", "greeting_instructions", "memory:m1", "notes", "a:b")), "user:1:notes"]


def write_others(server: RedisServer) -> None:
    server.many((command, key, *arguments) for key, (command, *arguments) in OTHERS.items())


def others(server: RedisServer) -> list[str]:
    """Which of the others' keys are no longer as they were written."""
    kinds = {"SET": "string", "HSET": "hash", "RPUSH": "list", "SADD": "set", "ZADD": "zset"}
    found = server.many(("TYPE", key) for key in OTHERS)
    return [key for key, kind in zip(OTHERS, found, strict=True) if kind != kinds[OTHERS[key][0]]]


async def write_ours(cache: RedisCache) -> None:
    """Values of each kind that this layer writes for users, under documented names and names of a caller."""
    for key in OURS[:-1]:
        assert await cache.set(key, "old", ttl=3600)
    await cache.get_or_load(OURS[-1], Loader("old"), ttl=3600, stale_for=3600)


def ours(server: RedisServer) -> set[str]:
    """The keys of users, and what guards them, that are not another application's."""
    return set(server.cli("KEYS", "*user:*")) - OTHERS.keys()


async def connected(server: RedisServer, make_cache: Make, **settings: Any) -> RedisCache:
    cache = make_cache(server.url, **({"connect_wait": 5.0, "deadline": 1.0} | settings))
    await initialised(cache)
    return cache


async def settled(cache: RedisCache, server: RedisServer) -> None:
    """Wait until nothing is pending and the server has our mark."""
    pending = engine_of(cache).pending

    async def done() -> bool:
        return cache.connected and not pending and bool(server.cli("EXISTS", keys.system_server()))

    await until(done)


async def first_connect(cache: RedisCache, server: RedisServer, _: Path) -> None:
    await cache.close()
    server.cli("DEL", keys.system_server())


async def evicted(cache: RedisCache, server: RedisServer, _: Path) -> None:
    """The mark, one user's key and its name; the last good value is left."""
    await cache.close()
    server.cli("DEL", keys.system_server(), keys.index("1"), "user:1:notes")


async def restarted(cache: RedisCache, server: RedisServer, _: Path) -> None:
    await asyncio.to_thread(server.restart)


async def restored(cache: RedisCache, server: RedisServer, _: Path) -> None:
    dump = await asyncio.to_thread(server.dump)
    await cache.delete(*OURS)
    await asyncio.to_thread(server.restore, dump)


async def failed_over(cache: RedisCache, server: RedisServer, folder: Path) -> None:
    settings = ["--replicaof", "127.0.0.1", str(server.port)]
    with RedisServer(folder / "replica", args=settings, binary=server.binary) as replica:
        await until(lambda: replica.cli("EXISTS", *OTHERS) == len(OTHERS))
        replica.cli("REPLICAOF", "NO", "ONE")
        await cache.delete(*OURS)  # lost
        server.cli("REPLICAOF", "127.0.0.1", replica.port)
        await until(lambda: server.cli("EXISTS", *OURS) == len(OURS))
        server.cli("REPLICAOF", "NO", "ONE")


async def flushed(cache: RedisCache, server: RedisServer, _: Path) -> None:
    server.cli("FLUSHALL")
    write_others(server)


async def flushed_while_away(cache: RedisCache, server: RedisServer, _: Path) -> None:
    await cache.close()
    server.cli("FLUSHALL")
    write_others(server)


async def too_much_pending(cache: RedisCache, server: RedisServer, _: Path) -> None:
    server.pause()
    await until(lambda: not cache.connected)
    for number in range(101):
        await cache.delete(*(f"user:{number}:memory:{other}" for other in range(100)))
        await cache.invalidate(f"no-such-key-{number}", user_id="7")
        await cache.invalidate(f"user:*:no-such-key-{number}")
    server.resume()


async def another_mark(cache: RedisCache, server: RedisServer, _: Path) -> None:
    await until(lambda: engine_of(cache).servers.tracks(""))
    server.cli("SET", keys.system_server(), "another run:another history")


@pytest.mark.parametrize(
    "happens",
    [
        first_connect,
        evicted,
        restarted,
        restored,
        failed_over,
        flushed,
        flushed_while_away,
        too_much_pending,
        another_mark,
    ],
    ids=lambda happens: str(happens.__name__),
)
async def test_everything_implicit_touches_only_ours(
    own_redis: RedisServer,
    make_cache: Make,
    tmp_path: Path,
    happens: Callable[[RedisCache, RedisServer, Path], Awaitable[None]],
) -> None:
    cache = await connected(own_redis, make_cache)
    write_others(own_redis)
    await write_ours(cache)
    await settled(cache, own_redis)
    await happens(cache, own_redis, tmp_path)
    caches = [cache] if cache.connected or engine_of(cache).transport.client else []
    caches.append(await connected(own_redis, make_cache))
    for each in caches:
        await settled(each, own_redis)
        assert await each.get_many(OURS) == {}
    assert ours(own_redis) == set()
    assert others(own_redis) == []


async def test_keys_indistinguishable_from_ours_are_in_a_documented_family_and_texts(
    own_redis: RedisServer, make_cache: Make
) -> None:
    own_redis.cli("DEL", keys.system_server())
    own_redis.cli("MSET", "user:9:profile", "a text of another application", "user:9:orders", "bread")
    cache = await connected(own_redis, make_cache)
    assert await cache.get("user:9:profile") is None
    await settled(cache, own_redis)
    assert own_redis.cli("EXISTS", "user:9:profile", "user:9:orders") == 1
    assert await cache.get("user:9:orders") == "bread"


async def test_too_much_pending_of_one_user_reaches_only_ours(own_redis: RedisServer, make_cache: Make) -> None:
    """Of one user what is known by name is deleted without a scan."""
    cache = await connected(own_redis, make_cache)
    write_others(own_redis)
    await write_ours(cache)
    await settled(cache, own_redis)
    own_redis.pause()
    await until(lambda: not cache.connected)
    for number in range(101):
        await cache.invalidate(f"no-such-key-{number}", user_id="7")
    assert not engine_of(cache).pending.masks("user:1:notes"), "that would be all users"
    own_redis.resume()
    await settled(cache, own_redis)
    assert await cache.get_many(OURS) == {"user:1:notes": "old"}
    assert others(own_redis) == []


async def test_with_encryption_values_of_either_kind_are_ours(own_redis: RedisServer, make_cache: Make) -> None:
    """A fleet that has begun to encrypt has values of both kinds."""
    plain = await connected(own_redis, make_cache)
    sealed = await connected(own_redis, make_cache, encryption_keys=(bytes(32),))
    write_others(own_redis)
    await plain.set("user:1:state", "old", ttl=60)
    await sealed.set("user:2:state", "old", ttl=60)
    await sealed.set("user:3:summary", "long " * 2000, ttl=60)
    for cache in (plain, sealed):
        await cache.close()
    own_redis.cli("DEL", keys.system_server())
    sealed = await connected(own_redis, make_cache, encryption_keys=(bytes([1] * 32), bytes(32)))
    await settled(sealed, own_redis)
    assert ours(own_redis) == set()
    assert others(own_redis) == []


async def test_an_explicit_call_reaches_every_key_that_matches(
    own_redis: RedisServer, make_cache: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for small in (2_000, 0):
        monkeypatch.setattr("cache.invalidation.invalidator.SMALL", small)
        cache = await connected(own_redis, make_cache)
        write_others(own_redis)
        await cache.clear_user_cache("7")
        await cache.invalidate_pattern("user:8:*")
        own_redis.cli("SET", "user:9:orders", "bread")
        assert await cache.invalidate_pattern("user:9:orders") == 1
        await settled(cache, own_redis)
        left = [key for key in OTHERS if key.startswith(("user:7:", "user:8:"))]
        assert others(own_redis) == left


async def test_what_was_stored_while_it_is_cleared_is_served(
    own_redis: RedisServer, make_cache: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mask over all users' values hides no newer value of this process, and the scan deletes none."""
    cache = await connected(own_redis, make_cache)

    async def not_yet() -> None:
        return

    with monkeypatch.context() as patch:
        patch.setattr(cache.invalidations, "redeliver", not_yet)
        await cache.invalidate(f"{keys.USERS}*", own=True)
        await cache.set("user:1:notes", "new", ttl=60)
        await cache.get_or_load(keys.profile("1"), Loader("new"), ttl=60)
        assert engine_of(cache).pending.to_scan()
        served = await cache.get_many(["user:1:notes", keys.profile("1")])
        assert served == {"user:1:notes": "new", "user:1:profile": "new"}
    await settled(cache, own_redis)
    assert await cache.get_many(["user:1:notes", keys.profile("1")]) == {"user:1:notes": "new", "user:1:profile": "new"}
