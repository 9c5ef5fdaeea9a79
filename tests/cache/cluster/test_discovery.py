"""A cluster is recognised at any of its nodes, with few rights, and behind addresses that are not to be dialled."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from cache import CacheConfigError, CacheSettings, RedisCache
from tests.cache.cluster.conftest import Connect
from tests.cache.cluster.spread import elsewhere, key_on, profiles
from tests.cache.test_acl import RULE
from tests.real.proxy import Proxy
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.replicated_cluster import ReplicatedCluster, slot
from tests.real.redis.resp import ask
from tests.wait import initialised, until

pytestmark = pytest.mark.integration
PEM = Path(__file__).parents[2] / "real" / "localhost.pem"
SECURITY = (Path(__file__).parents[3] / "docs" / "security.md").read_text()
MORE = re.findall(r"\+[a-z|]+", re.search(r"\ba cluster ([^.]*)", SECURITY)[1])  # type: ignore[index]  # fails loudly
"""What docs/security.md grants beside the rule where it is a cluster."""


@pytest.fixture
def user(cluster: ReplicatedCluster) -> Iterator[Callable[..., str]]:
    """Makes a user on each node. It returns the URL of the first node with its name and password."""

    def make(*rule: str) -> str:
        cluster.on_each("ACL", "SETUSER", "companion", *(part.replace("PASSWORD", "pw") for part in rule))
        return f"redis://companion:pw@127.0.0.1:{cluster.port}/0"

    cluster.on_each("ACL", "LOG", "RESET")
    yield make
    cluster.on_each("ACL", "DELUSER", "companion")


@pytest.fixture
def announced(cluster: ReplicatedCluster) -> Iterator[ReplicatedCluster]:
    """The nodes announce names that no resolver knows: only this, and neither replication nor votes, is broken."""
    for number, node in enumerate(cluster.nodes):
        node.cli("CONFIG", "SET", "cluster-announce-hostname", f"Node{number}.invalid")
        node.cli("CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname")
    yield cluster
    for node in cluster.nodes:
        node.cli("CONFIG", "SET", "cluster-preferred-endpoint-type", "ip")
        node.cli("CONFIG", "SET", "cluster-announce-hostname", "")


async def all_stored(cache: RedisCache, names: list[str]) -> bool:
    """Whether the keys are stored and read, on whatever nodes."""
    values = dict.fromkeys(names, "a profile")
    return await cache.set_many(values, ttl=60) == len(names) and await cache.get_many(names) == values


@pytest.mark.parametrize("number", [1, 3], ids=["a primary", "a replica"])
async def test_any_node_will_do(cluster: ReplicatedCluster, connect: Connect, number: int) -> None:
    cache = await connect(cluster.nodes[number].url)
    assert await all_stored(cache, profiles(60))
    assert await cache.health_check()


async def test_a_user_without_a_right_to_the_mark_is_answered(connect: Connect, user: Callable[..., str]) -> None:
    cache = await connect(user("reset", "on", ">PASSWORD", "~user:*", "&*", "+@all"))
    await until(lambda: cache.connected)
    await until(cache.health_check)


async def test_a_user_who_may_not_ask_for_info(
    connect: Connect, user: Callable[..., str], cluster: ReplicatedCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cache = await connect(user("reset", "on", ">PASSWORD", "~*", "&*", "+@all", "-info"))
    assert await all_stored(cache, profiles(60))
    stats = await cache.get_stats()
    assert stats["cache_hits"] == 60
    assert caplog.text.count("INFO is refused") == 1, "once, and not once for each node"


async def test_the_smallest_rule_suffices(
    connect: Connect, user: Callable[..., str], cluster: ReplicatedCluster
) -> None:
    cache = await connect(user(*RULE, *MORE), near=frozenset({"profile"}))
    names = profiles(60)
    assert await all_stored(cache, names)
    cluster.move_slot(slot(names[0]), elsewhere(cluster, names[0]))
    assert await all_stored(cache, names)
    target = elsewhere(cluster, names[0])
    with cluster.half_moved(slot(names[0]), target) as source:
        source.cli("MIGRATE", "127.0.0.1", target.port, names[0], 0, 2000)
        assert await cache.get(names[0], fresh=True) == "a profile"
    assert (await cache.get_stats())["redis_memory"] != "0B"
    async with cache.lock("greeting", "1"):
        pass
    assert await cache.clear_user_cache("5") == 1
    assert await cache.invalidate_pattern("user:*") == 59
    assert [entry for entries in cluster.on_each("ACL", "LOG", "128") for entry in entries] == []


@pytest.mark.parametrize("right", MORE)
async def test_no_right_for_a_cluster_is_without_a_reason(
    make_cache: Any, user: Callable[..., str], cluster: ReplicatedCluster, right: str
) -> None:
    cache = make_cache(user(*RULE, *(other for other in MORE if other != right)), connect_wait=5.0)
    await cache.initialize()
    key = key_on(cluster, cluster.nodes[1])
    await cache.set(key, 1, ttl=60)
    target = elsewhere(cluster, key)
    with cluster.half_moved(slot(key), target) as source:
        source.cli("MIGRATE", "127.0.0.1", target.port, key, 0, 2000)
        await cache.get(key)
    await cache.get(key)
    await cache.close()
    refused = [entry for entries in cluster.on_each("ACL", "LOG", "128") for entry in entries]
    assert refused, f"{right} is not used"


def mapped(url: str, text: str) -> CacheSettings:
    return CacheSettings.from_env(
        environ={"REDIS_URL": url, "CACHE_CLUSTER_ADDRESS_MAP": text, "CACHE_NEAR": "profile"}
    )


async def test_announced_addresses_are_dialled_as_the_map_says(announced: ReplicatedCluster) -> None:
    entries = [f"node{number}.invalid:{node.port}=127.0.0.1:{node.port}" for number, node in enumerate(announced.nodes)]
    cache = RedisCache(settings=mapped(announced.url, ", ".join(entries)))
    try:
        await initialised(cache)
        names = profiles(60)
        await until(lambda: all_stored(cache, names))
        moved, target = names[0], elsewhere(announced, names[0])
        announced.move_slot(slot(moved), target)
        await until(lambda: cache.set(moved, "followed", ttl=60))
        assert target.cli("GET", moved) == "followed"
    finally:
        await cache.close()


async def test_a_node_that_is_full_has_said_so_itself(
    cluster: ReplicatedCluster, make_cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """No map would help there."""
    full = cluster.nodes[1]
    key = key_on(cluster, full)
    with full.connect() as link, full.connect():
        ask(link, ("CONFIG", "SET", "maxclients", 2))
        try:
            cache = make_cache(cluster.url, deadline=2.0, connect_wait=5.0)
            await initialised(cache)
            assert await cache.set(key, 1, ttl=60) is False
            await until(lambda: "max number of clients" in caplog.text)
            assert "CACHE_CLUSTER_ADDRESS_MAP" not in caplog.text
            assert await cache.health_check()
        finally:
            ask(link, ("CONFIG", "SET", "maxclients", 10_000))
    await until(lambda: cache.set(key, 1, ttl=60))


async def test_tls_and_a_map(announced: ReplicatedCluster) -> None:
    """Every node behind a proxy that speaks TLS, whose certificate names the address that is dialled."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(node.port, ssl_context=context)) for node in announced.nodes]
        entries = [
            f"node{number}.invalid:{node.port}=127.0.0.1:{proxy.port}"
            for number, (node, proxy) in enumerate(zip(announced.nodes, proxies, strict=True))
        ]
        url = f"rediss://127.0.0.1:{proxies[0].port}/0?ssl_ca_certs={PEM}"
        cache = RedisCache(settings=mapped(url, ",".join(entries)))
        await initialised(cache)
        await until(lambda: all_stored(cache, profiles(60)))
        assert all(proxy.connections_open for proxy in proxies[:3])
        await cache.close()


async def test_without_a_map_one_line_says_what_to_set(
    announced: ReplicatedCluster, make_cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    cache = make_cache(announced.url, connect_wait=0.5)
    await cache.initialize()
    await cache.set_many(dict.fromkeys(profiles(60), 1), ttl=60)
    await until(lambda: caplog.text.count("CACHE_CLUSTER_ADDRESS_MAP") >= 1)
    await cache.set_many(dict.fromkeys(profiles(60), 1), ttl=60)
    await cache.close()
    assert caplog.text.count("CACHE_CLUSTER_ADDRESS_MAP") == 1


async def test_a_node_that_knows_no_address_is_where_it_was_asked(cluster: ReplicatedCluster, connect: Connect) -> None:
    """``unknown-endpoint``: the host of CLUSTER SLOTS is null, and that of MOVED empty."""
    for node in cluster.nodes:
        node.cli("CONFIG", "SET", "cluster-preferred-endpoint-type", "unknown-endpoint")
    try:
        cache = await connect(cluster.url)
        names = profiles(60)
        assert await all_stored(cache, names)
        moved, target = names[0], elsewhere(cluster, names[0])
        cluster.move_slot(slot(moved), target)
        assert await all_stored(cache, names)
        assert target.cli("EXISTS", moved) == 1
    finally:
        for node in cluster.nodes:
            node.cli("CONFIG", "SET", "cluster-preferred-endpoint-type", "ip")


async def test_one_node_alone_behind_an_address_of_its_own(clusters: dict[str, list[RedisServer]]) -> None:
    """A cluster of one in a container: it announces the address that it has in there."""
    (node,) = clusters["cluster of one"]
    node.cli("FLUSHALL")
    node.cli("CONFIG", "SET", "cluster-announce-ip", "192.0.2.7")
    try:
        await until(lambda: "192.0.2.7" in node.cli("CLUSTER", "NODES"))
        cache = RedisCache(settings=mapped(node.url, f"192.0.2.7:{node.port}=127.0.0.1:{node.port}"))
        await initialised(cache)
        await until(lambda: all_stored(cache, profiles(20)))
        await cache.close()
    finally:
        node.cli("CONFIG", "SET", "cluster-announce-ip", "")


@pytest.mark.parametrize(
    "text",
    [
        *("x", "10.0.0.1:6379", "10.0.0.1:6379=", "=127.0.0.1:7001", "10.0.0.1=127.0.0.1:7001", "a:1=b"),
        *("10.0.0.1:6379=127.0.0.1:99999", "10.0.0.1:x=127.0.0.1:7001"),
        "10.0.0.1:1=127.0.0.1:2,10.0.0.1:1=127.0.0.1:3",
    ],
)
def test_a_map_that_cannot_be_read_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(CacheConfigError, match="CACHE_CLUSTER_ADDRESS_MAP"):
        mapped("redis://127.0.0.1:7000/0", text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "10.0.0.1=127.0.0.1",
        "[2001:db8::1]:6379=[::1]:7001",
        "node-1.example:6379=127.0.0.1:7001 , b:1=c:2",
        "a:1=b:2,",
    ],
)
def test_a_map_may_be(text: str) -> None:
    assert mapped("redis://127.0.0.1:7000/0", text)


async def test_two_nodes_that_a_map_takes_for_one(
    cluster: ReplicatedCluster, make_cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A node that sends us to where it is itself is not asked again and again, and the log says what it answers."""
    one, other = (f"127.0.0.1:{node.port}" for node in cluster.nodes[:2])
    cache = make_cache(cluster.url, deadline=2.0, connect_wait=5.0, cluster_address_map={other: one})
    await initialised(cache)
    before = cluster.calls("get")
    for _ in range(3):
        assert await cache.get(key_on(cluster, cluster.nodes[1])) is None
    assert cluster.nodes[0].cli("INFO", "errorstats").count("errorstat_MOVED") == 1, "or this has tested nothing"
    assert cluster.calls("get") - before < 10
    assert caplog.text.count("commands are refused (MOVED)") == 1


@pytest.mark.usefixtures("maintained_often")
async def test_a_right_that_is_missing_on_one_node(
    connect: Connect, user: Callable[..., str], cluster: ReplicatedCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Nodes do not share their users. What one refuses counts until that node does not, whatever others say."""
    url, node = user("reset", "on", ">PASSWORD", "~*", "&*", "+@all"), cluster.nodes[1]
    node.cli("ACL", "SETUSER", "companion", "-unlink")
    caplog.set_level("INFO", "cache")
    cache = await connect(url)
    names = profiles(60)
    assert await all_stored(cache, names)
    assert await cache.delete(*names) == 60
    assert not cache.invalidations.undelivered
    assert (caplog.text.count("UNLINK is refused"), caplog.text.count("No longer refused")) == (1, 0)
    node.cli("ACL", "SETUSER", "companion", "+unlink")
    await until(lambda: "No longer refused: UNLINK" in caplog.text)
    assert await all_stored(cache, names)
    assert await cache.delete(*names) == 60
    assert (caplog.text.count("UNLINK is refused"), caplog.text.count("are refused")) == (1, 0)
