"""The commands, replies and errors of redis-py that the cache depends on. See docs/upgrading.md."""

from __future__ import annotations

import pytest
from redis.exceptions import (
    AuthenticationError,
    LockNotOwnedError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.contract.redis.redis_stand_in import bulk, connected, failure

pytestmark = pytest.mark.integration


# -- what is raised ------------------------------------------------------------------------------------------------


def test_the_families_of_exceptions() -> None:
    """``cache.transport.fallback`` distinguishes a rejected command from a lost connection by type.

    An AuthenticationError is a ConnectionError, so ``cache.transport.fallback`` tests for it first.
    """
    assert issubclass(AuthenticationError, RedisConnectionError)
    assert not issubclass(ResponseError, RedisConnectionError | RedisTimeoutError)
    assert issubclass(RedisConnectionError, RedisError)
    assert issubclass(RedisTimeoutError, RedisError)
    assert issubclass(LockNotOwnedError, RedisError)
    assert issubclass(RedisClusterException, Exception)


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("WRONGTYPE Operation against a key", "WRONGTYPE"),
        ("NOPERM this user has no permissions", "NOPERM"),
        ("NOSCRIPT No matching script. Please use EVAL.", "NOSCRIPT"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "OOM"),
        ("READONLY You can't write against a read only replica.", "READONLY"),
    ],
)
async def test_the_code_of_a_refusal_can_be_read(reply: str, code: str) -> None:
    """``cache.transport.fallback`` (``status_code``): redis-py removes some codes from the text and keeps them here.

    Without the code NOSCRIPT would not be recognised, and scripts would never be loaded again.
    """
    async with connected(lambda _: f"-{reply}\r\n".encode()) as (client, _):
        problem = await failure(client.get("key"))
    assert isinstance(problem, ResponseError)
    assert code in (problem.status_code, str(problem).partition(" ")[0])


async def test_a_pipeline_raises_the_first_refusal_with_its_code() -> None:
    """``cache.transport.fallback``: ``execute`` raises the first rejection, with its ``status_code``.

    redis-py rewrites the text ("Command # 2 (...) of pipeline caused error"), so the code is not its first word.
    """
    replies = iter([b":1\r\n", b"-NOPERM no\r\n", b"-OOM full\r\n"])
    async with connected(lambda _: next(replies)) as (client, _):
        pipe = client.pipeline(transaction=False)
        for name in ("a", "b", "c"):
            pipe.execute_command("UNLINK", name)
        problem = await failure(pipe.execute())
    assert isinstance(problem, ResponseError)
    assert problem.status_code == "NOPERM"


async def test_the_text_of_an_error_in_a_script_is_kept() -> None:
    """``cache.exceptions``: servers before version 7 put the script's error code into the text."""
    text = "ERR Error running script (call to f_1): @user_script:3: WRONGTYPE Operation against a key"
    async with connected(lambda _: f"-{text}\r\n".encode()) as (client, _):
        problem = await failure(client.execute_command("EVALSHA", "1", 0))
    assert "@user_script:3: WRONGTYPE Operation" in str(problem)


@pytest.mark.parametrize("reply", ["WRONGPASS invalid username-password pair", "NOAUTH Authentication required."])
async def test_a_refused_password_is_an_authentication_error(reply: str) -> None:
    """``cache.transport.fallback`` pauses longer after one before it connects again."""
    async with connected(lambda _: f"-{reply}\r\n".encode(), password="p") as (client, _):
        assert isinstance(await failure(client.ping()), AuthenticationError)


# -- what is sent and what comes back ------------------------------------------------------------------------------


async def test_replies_of_raw_commands() -> None:
    """``cache.transport.fallback`` (``execute_command``): replies have the types the multiplexer returns.

    Bytes for GET, an integer for UNLINK and PTTL, None for a SET NX that did nothing.
    """
    replies = {
        b"GET": bulk(b"\xff"),
        b"UNLINK": b":2\r\n",
        b"SET": b"$-1\r\n",
        b"PTTL": b":-1\r\n",
        b"EVALSHA": b"*0\r\n",
        b"SISMEMBER": b":1\r\n",
        b"SRANDMEMBER": b"*1\r\n$1\r\na\r\n",
    }
    async with connected(lambda command: replies[command[0]]) as (client, _):
        assert await client.execute_command("GET", "k") == b"\xff"
        assert await client.execute_command("UNLINK", "k", b"\xfe") == 2
        assert await client.execute_command("SET", "k", "v", "NX") is None
        assert await client.execute_command("PTTL", "k") == -1
        assert await client.execute_command("EVALSHA", "digest", 1, "k", 5) == []
        assert await client.execute_command("SISMEMBER", "index", b"\xfe") == 1
        assert await client.execute_command("SRANDMEMBER", "index", 10) == [b"a"]


async def test_without_callbacks_replies_stay_as_they_were_sent() -> None:
    """``cache.transport.fallback``: with a client's callbacks, SCAN, INFO, SET and others are parsed."""
    replies = {
        b"SCAN": b"*2\r\n$2\r\n17\r\n*2\r\n$1\r\na\r\n$1\r\n\xff\r\n",
        b"INFO": bulk(b"# Memory\r\nused_memory:1024\r\n"),
        b"SET": b"+OK\r\n",
    }
    async with connected(lambda command: replies[command[0]]) as (client, _):
        client.response_callbacks.clear()
        pipe = client.pipeline(transaction=False)
        for command in (("SCAN", 0), ("INFO", "memory"), ("SET", "k", "v")):
            pipe.execute_command(*command)
        assert await pipe.execute() == [[b"17", [b"a", b"\xff"]], b"# Memory\r\nused_memory:1024\r\n", b"OK"]
