"""The behaviour of redis-py's cluster client that the cache depends on. See docs/upgrading.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisClusterException, ResponseError

from tests.contract.redis.redis_stand_in import (
    SOON,
    Command,
    RedisStandIn,
    bulk,
    client_options,
    failure,
    redis_stand_in,
)

pytestmark = pytest.mark.integration

KEYS = b"".join(
    b"*6\r\n$%d\r\n%b\r\n:-2\r\n*0\r\n:1\r\n:%d\r\n:1\r\n" % (len(name), name, last)
    for name, last in ((b"get", 1), (b"set", 1), (b"unlink", -1))
)
INFO = bulk(b"used_memory:1024\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n")


@asynccontextmanager
async def cluster_of_one(replies: dict[bytes, bytes], **options: Any) -> AsyncIterator[tuple[Any, RedisStandIn]]:
    """An initialised client of a cluster that has one node."""

    def answer(command: Command) -> bytes:
        slots = b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$3\r\nabc\r\n" % server.port
        usual = {b"CLUSTER": slots, b"COMMAND": b"*3\r\n" + KEYS}
        return {**usual, **replies}[command[0]]

    async with redis_stand_in(answer) as server:
        client: Any = RedisCluster.from_url(server.url, client_name="contract", **client_options() | options)
        try:
            async with asyncio.timeout(SOON):
                await client.initialize()
                yield client, server
        finally:
            await client.aclose()


def test_a_database_other_than_0_is_refused() -> None:
    """``cache.transport.redis_py`` (``open_cluster``): raised by the constructor, and reported as the reason."""
    with pytest.raises(RedisClusterException):
        RedisCluster.from_url("redis://127.0.0.1:1/3", **client_options())


async def test_a_node_can_be_named_for_scan_dbsize_and_info() -> None:
    """``cache.invalidation.scan`` and ``cache.core.stats`` ask the primaries one by one.

    Without ``target_nodes`` a scan would miss the keys of the other nodes.
    """
    replies = {b"SCAN": b"*2\r\n$1\r\n7\r\n*1\r\n$1\r\nk\r\n", b"DBSIZE": b":3\r\n", b"INFO": INFO}
    async with cluster_of_one(replies) as (client, _):
        (node,) = client.get_primaries()
        positions, found = await client.scan(0, match="*", count=10, target_nodes=node)
        assert (list(positions.values()), found) == ([7], [b"k"])
        assert await client.dbsize(target_nodes=node) == 3
        assert (await client.info("memory", target_nodes=node))["used_memory"] == 1024


async def test_raw_commands_find_their_node() -> None:
    """``cache.transport.commands``: keyed commands, scripts, and server-wide commands are routed by redis-py."""
    replies = {
        b"GET": bulk(b"v"),
        b"SET": b"+OK\r\n",
        b"UNLINK": b":1\r\n",
        b"DBSIZE": b":3\r\n",
        b"INFO": INFO,
        b"EVALSHA": b"-NOSCRIPT No matching script.\r\n",
        b"SCRIPT": bulk(b"digest"),
    }
    async with cluster_of_one(replies) as (client, server):
        assert await client.execute_command("GET", "key") == b"v"
        assert await client.execute_command("DBSIZE") == 3
        assert (await client.execute_command("INFO", "memory"))["maxmemory_policy"] == "noeviction"
        problem = await failure(client.execute_command("EVALSHA", "digest", 2, "{key}1", "{key}2", "argument"))
        assert isinstance(problem, ResponseError)
        assert problem.status_code == "NOSCRIPT"
        await client.execute_command("SCRIPT LOAD", "return 1")
        pipe = client.pipeline(transaction=False)
        for name in ("a", "b"):
            pipe.execute_command("UNLINK", name)
        assert await pipe.execute() == [1, 1]
    assert server.all(b"SCRIPT") == [[b"SCRIPT", b"LOAD", b"return 1"]]


async def test_a_full_pool_of_a_node_raises() -> None:
    """``cache.transport.pool``: a node's full pool raises, so the cache limits its calls with a semaphore."""
    async with cluster_of_one({b"GET": bulk(b"v")}) as (client, _):
        outcomes = await asyncio.gather(*(client.get("k") for _ in range(20)), return_exceptions=True)
    assert any(isinstance(outcome, Exception) for outcome in outcomes)
