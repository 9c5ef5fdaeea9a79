"""Encryption at rest: a ciphertext decrypts only under its own key; anything else is a miss."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import CacheConfigError, CacheSettings, RedisCache, keys
from cache.serialization import codec
from cache.serialization.encryption import ValueCipher
from companion.settings import Settings, SettingsError
from tests.cache.serialization.test_codec import same, values
from tests.real.redis.redis_server import RedisServer
from tests.wait import initialised, until

pytestmark = [pytest.mark.integration, pytest.mark.every_deployment]
OLD, NEW = b"o" * 32, b"n" * 32
SAID = "the surgery is on Tuesday"
KEY = keys.profile("123")
JSON = {"topic": SAID, "notes": [SAID]}


@pytest.fixture
async def make(redis_server: RedisServer, make_cache: Any) -> Any:
    """Makes connected caches on the shared server, with the given secrets; without any, values are plaintext."""

    async def make(*sealed_with: bytes, **settings: Any) -> RedisCache:
        options = {"deadline": 2.0, "connect_wait": 5.0, "encryption_keys": sealed_with} | settings
        cache: RedisCache = make_cache(redis_server.url, **options)
        await initialised(cache)
        return cache

    return make


def everything_in(server: RedisServer) -> Iterator[tuple[str, str]]:
    """Every string and every part of a hash or set that the server holds, by key; bytes as surrogates."""
    read = {"string": ["GET"], "hash": ["HGETALL"], "set": ["SMEMBERS"]}
    for key in server.cli("KEYS", "*"):
        found = server.cli(*read[server.cli("TYPE", key)], key)
        for one in found if isinstance(found, list) else [found]:
            yield key, one


def raw(server: RedisServer, key: str) -> bytes:
    return str(server.cli("GET", key)).encode(errors="surrogateescape")


# -- the seal itself -----------------------------------------------------------------------------------


@given(values | st.binary(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_round_trip(value: Any, key: str) -> None:
    plain = codec.encode(value)
    sealed = ValueCipher([NEW]).encrypt(key, plain)
    assert same(codec.decode(ValueCipher([NEW]).decrypt(key, sealed)), value)
    assert sealed[0] == codec.ENCRYPTED
    assert not plain.startswith(sealed[:1]), "a plain value begins as a sealed one"
    assert len(sealed) == len(plain) + 33


def test_two_ciphertexts_of_one_value_differ() -> None:
    one, other = (ValueCipher([NEW]).encrypt(KEY, b"x" * 64) for _ in range(2))
    assert one[:5] == other[:5], "the name of the secret"
    assert not any(one[5 + n : 13 + n] == other[5 + n : 13 + n] for n in range(len(one) - 13))


def test_any_byte_changed_any_bit_any_length() -> None:
    sealer = ValueCipher([NEW, OLD])
    sealed = sealer.encrypt(KEY, SAID.encode())
    places = [(at, bit) for at in range(len(sealed)) for bit in (1, 128)]
    changed = [sealed[:at] + bytes([sealed[at] ^ bit]) + sealed[at + 1 :] for at, bit in places]
    for spoilt in [*changed, *(sealed[:end] for end in range(len(sealed))), sealed + b"\0"]:
        with pytest.raises(codec.UndecodableValue):
            sealer.decrypt(KEY, spoilt)


@given(st.binary())
def test_foreign_bytes_do_not_open(foreign: bytes) -> None:
    for text in (foreign, bytes([codec.ENCRYPTED]) + foreign, ValueCipher([NEW]).encrypt(KEY, b"")[:5] + foreign):
        with pytest.raises(codec.UndecodableValue):
            ValueCipher([NEW]).decrypt(KEY, text)


@pytest.mark.parametrize("secrets", [[], [b"short"], [NEW, b"x" * 16], [b"x" * 33]])
def test_a_secret_of_another_length_is_refused(secrets: list[bytes]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        ValueCipher(secrets)


# -- through the cache ---------------------------------------------------------------------------------


async def test_nothing_readable_in_redis(redis_server: RedisServer, make: Any) -> None:
    cache = await make(NEW)
    await cache.set(KEY, SAID, ttl=60)
    await cache.set_many({"temp:s:a": JSON, "user:123:memory:m1": [SAID]}, ttl=60)
    assert await cache.get_or_load(keys.state("123"), lambda: _value(JSON), ttl=60, stale_for=600) == JSON
    key = keys.greeting_instructions("123")
    await cache.get_or_load(key, lambda: _value("an older plan"), ttl=60)
    redis_server.cli("EXPIRE", key, 10)
    assert await cache.get_or_load(key, lambda: _value(SAID), ttl=60, refresh_after=30) == "an older plan"
    before = raw(redis_server, key)
    await until(lambda: raw(redis_server, key) != before)
    await cache.close()  # writes the statistics

    held = dict(everything_in(redis_server))
    assert {"temp:s:a", "user:123:memory:m1", "user:123:state", "stale:{user:123:state}", KEY, key} <= set(held)
    assert not [key for key, value in everything_in(redis_server) if "surgery" in value or "plan" in value]
    # Values that belong to no user stay plaintext: shared counters, and names.
    assert redis_server.cli("HGET", "system:stats", "total_requests").isdecimal()
    assert redis_server.cli("SMEMBERS", "index:{123}") == ["memory:m1"]


async def _value(value: Any) -> Any:
    return value


async def test_what_goes_in_comes_out(make: Any) -> None:
    cache = await make(NEW)
    for value in (SAID, JSON, None, 7, 1.5, True, [1, ["2"]], "", "7", "\ud800", b"", b"\xff\xfe"):
        assert await cache.set(KEY, value, ttl=60)
        assert same(await cache.get(KEY, "absent"), value)
        assert same((await cache.get_many([KEY]))[KEY], value)
        assert same(await cache.get_or_load(KEY, lambda: _value("never asked"), ttl=60), value)


async def test_get_or_load_in_another_process(make: Any) -> None:
    first, second = await make(NEW), await make(NEW)
    assert await first.get_or_load(KEY, lambda: _value(JSON), ttl=60) == JSON
    assert await second.get_or_load(KEY, lambda: _value("never asked"), ttl=60) == JSON


async def test_the_last_good_value_is_sealed_and_opened(redis_server: RedisServer, make: Any) -> None:
    cache = await make(NEW)
    await cache.get_or_load(KEY, lambda: _value(SAID), ttl=60, stale_for=600)
    redis_server.cli("DEL", KEY)  # as if it had expired
    assert await cache.get_or_load(KEY, _failing, ttl=60, stale_for=600) == SAID


async def _failing() -> Any:
    raise ConnectionError("the source is away")


async def test_a_last_good_value_that_cannot_be_opened_is_none(redis_server: RedisServer, make: Any) -> None:
    await (await make(OLD)).get_or_load(KEY, lambda: _value(SAID), ttl=60, stale_for=600)
    redis_server.cli("DEL", KEY)
    cache = await make(NEW)
    loads = 0

    async def failing() -> Any:
        nonlocal loads
        loads += 1
        raise ConnectionError("the source is away")

    with pytest.raises(ConnectionError):
        await cache.get_or_load(KEY, failing, ttl=60, stale_for=600)
    assert loads == 1
    assert await cache.get_or_load(KEY, lambda: _value("new"), ttl=60, stale_for=600) == "new"
    redis_server.cli("DEL", KEY)
    assert await cache.get_or_load(KEY, failing, ttl=60, stale_for=600) == "new"


async def test_rotation_loses_nothing_in_the_documented_order(make: Any) -> None:
    before = await make(OLD)
    assert await before.set(KEY, SAID, ttl=60)
    # 1: every worker can decrypt with the new key, and encrypts with the old one.
    learnt, not_yet = await make(OLD, NEW), before
    assert await learnt.get(KEY) == SAID
    assert await learnt.set(KEY, "by one that has learnt", ttl=60)
    assert await not_yet.get(KEY) == "by one that has learnt"
    # 2: every worker encrypts with the new key.
    changed = await make(NEW, OLD)
    assert await changed.get(KEY) == "by one that has learnt"
    assert await changed.set(KEY, "by one that has changed", ttl=60)
    assert await learnt.get(KEY) == "by one that has changed"
    # 3: values encrypted with the old key have expired.
    assert await (await make(NEW)).get(KEY) == "by one that has changed"


@pytest.mark.parametrize(
    ("wrote", "reads", "says"),
    [
        ((OLD,), (NEW,), "does not list"),
        ((), (NEW,), "not encrypted"),
        ((NEW,), (), "CACHE_ENCRYPTION_KEYS is not set"),
    ],
    ids=["unknown key", "plain", "off"],
)
async def test_what_another_setting_wrote_is_a_miss(
    redis_server: RedisServer,
    make: Any,
    caplog: pytest.LogCaptureFixture,
    wrote: tuple[bytes, ...],
    reads: tuple[bytes, ...],
    says: str,
) -> None:
    writer, reader = await make(*wrote), await make(*reads)
    for value in (SAID, 7, JSON):
        await writer.set(KEY, value, ttl=60)
        assert await reader.get(KEY, "absent") == "absent"
        await until(lambda: redis_server.cli("EXISTS", KEY) == 0)
    await writer.set(KEY, SAID, ttl=60)
    assert await reader.get_many([KEY]) == {}
    await until(lambda: redis_server.cli("EXISTS", KEY) == 0)
    await writer.set(KEY, SAID, ttl=60)
    assert await reader.get_or_load(KEY, lambda: _value("loaded"), ttl=60) == "loaded"
    assert await reader.get(KEY) == "loaded"
    stats = await reader.get_stats()
    assert (stats["cache_hits"], stats["cache_misses"]) == (1, 5)
    assert says in caplog.text
    assert "123" not in caplog.text
    assert "surgery" not in caplog.text


@pytest.mark.one_server  # a cluster renames no key to another slot
async def test_a_value_copied_to_another_users_key_is_a_miss(
    redis_server: RedisServer, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    cache = await make(NEW)
    other = keys.profile("456")
    await cache.set(KEY, SAID, ttl=60)
    await cache.set(other, "of somebody else", ttl=60)
    redis_server.cli("RENAME", KEY, "temp:swap:a")
    redis_server.cli("RENAME", other, KEY)
    redis_server.cli("RENAME", "temp:swap:a", other)
    assert await cache.get(KEY) is None
    assert await cache.get(other) is None
    await until(lambda: redis_server.cli("EXISTS", KEY, other) == 0)
    assert "moved from another cache key" in caplog.text


async def test_a_changed_value_is_a_miss(redis_server: RedisServer, make: Any) -> None:
    cache = await make(NEW)
    for at in (0, 3, 9, 20, -1):
        await cache.set(KEY, SAID, ttl=60)
        sealed = bytearray(raw(redis_server, KEY))
        sealed[at] ^= 1
        redis_server.cli("SET", KEY, bytes(sealed))
        assert await cache.get(KEY) is None
        await until(lambda: redis_server.cli("EXISTS", KEY) == 0)


@pytest.mark.one_server  # a cluster's other nodes are asked for their marks meanwhile
async def test_the_near_cache_keeps_it_open(redis_server: RedisServer, make: Any) -> None:
    cache = await make(NEW, near=frozenset({"profile"}))
    writer = await make(NEW)
    await writer.set(KEY, SAID, ttl=60)
    assert await cache.get(KEY) == SAID
    redis_server.cli("CONFIG", "RESETSTAT")
    assert await cache.get(KEY) == SAID
    assert "cmdstat_get:" not in redis_server.cli("INFO", "commandstats")
    await writer.set(KEY, "changed", ttl=60)
    await until(lambda: _reads(cache, "changed"))
    redis_server.cli("SET", KEY, "planted")  # undecryptable values are removed
    await until(lambda: _reads(cache, None))
    assert await cache.get(KEY) is None


async def _reads(cache: RedisCache, wanted: Any) -> bool:
    return bool(await cache.get(KEY) == wanted)


async def test_redis_cannot_increment_an_encrypted_value(redis_server: RedisServer, make: Any) -> None:
    await (await make(NEW)).set("temp:s:n", 41, ttl=60)
    assert redis_server.cli("STRLEN", "temp:s:n") == 2 + 33


async def test_switched_off_every_byte_is_as_it_was(redis_server: RedisServer, make: Any) -> None:
    cache = await make()
    await cache.set(KEY, SAID, ttl=60)
    assert redis_server.cli("GET", KEY) == SAID
    await cache.get_or_load(keys.state("123"), lambda: _value({"mood": 1}), ttl=60, stale_for=600)
    for key in (keys.state("123"), keys.stale(keys.state("123"))):
        assert redis_server.cli("GET", key) == '{"mood":1}'


async def test_the_size_limit_applies_before_encryption(make: Any) -> None:
    cache = await make(NEW, max_value_bytes=100)
    assert await cache.set(KEY, "x" * 100, ttl=60)
    assert await cache.get(KEY) == "x" * 100
    assert await cache.get_many([KEY]) == {KEY: "x" * 100}
    assert await cache.get_or_load("k", lambda: _value("y" * 100), ttl=60, stale_for=60) == "y" * 100
    assert await cache.get_or_load("k", lambda: _value("not kept?"), ttl=60, stale_for=60) == "y" * 100
    with pytest.raises(ValueError, match="101 bytes"):
        await cache.set(KEY, "x" * 101, ttl=60)


# -- the setting ---------------------------------------------------------------------------------------


def test_the_setting_takes_keys_as_the_documented_command_makes_them() -> None:
    one, two = secrets.token_urlsafe(32), secrets.token_urlsafe(32) + "="
    settings = CacheSettings.from_env(environ={"CACHE_ENCRYPTION_KEYS": f" {one}, {two} "})
    assert len(settings.encryption_keys) == len(set(settings.encryption_keys)) == 2
    assert {len(key) for key in settings.encryption_keys} == {32}
    for secret in (one, two, repr(settings.encryption_keys[0])):
        assert secret not in repr(settings)
    for nothing in ({}, {"CACHE_ENCRYPTION_KEYS": "  "}):
        assert CacheSettings.from_env(environ=nothing).encryption_keys == ()


@pytest.mark.parametrize(
    ("text", "which"),
    [
        ("hush-hush", "1 of 1"),
        ("A" * 42, "1 of 1"),
        ("A" * 45, "1 of 1"),
        ("+" * 43, "1 of 1"),
        ("A" * 43 + ",", "2 of 2"),
        (",", "1 of 2"),
        ("A" * 43 + ";" + "B" * 43, "1 of 1"),
        ("é" * 43, "1 of 1"),
    ],
)
def test_a_key_that_is_none_is_named_but_never_shown(text: str, which: str) -> None:
    environ = {"CACHE_ENCRYPTION_KEYS": text}
    with pytest.raises(CacheConfigError, match=f"CACHE_ENCRYPTION_KEYS: key {which} ") as refusal:
        CacheSettings.from_env(environ=environ)
    assert len(text) < 2 or text not in str(refusal.value)
    assert "token_urlsafe(32)" in str(refusal.value)
    with pytest.raises(SettingsError, match="CACHE_ENCRYPTION_KEYS"):
        Settings.from_env(environ)  # reported at the start of the worker


async def test_no_key_in_any_log(make: Any, caplog: pytest.LogCaptureFixture, redis_server: RedisServer) -> None:
    with caplog.at_level(logging.DEBUG):
        cache = await make(NEW, OLD)
        redis_server.cli("SET", KEY, "planted")
        await cache.get(KEY)
        await cache.set(KEY, SAID, ttl=60)
        await cache.get(KEY)
        await cache.close()
    assert "nnnn" not in caplog.text
    assert "surgery" not in caplog.text
