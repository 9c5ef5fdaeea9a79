"""Where the cache finds its data in a topology scenario: a cluster, Sentinels, or one address that moves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

from tests.faults.harness.background_proxy import BackgroundProxy
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.replicated_cluster import ReplicatedCluster, replicated_cluster, slot, wait_for
from tests.real.redis.sentinels import MASTER, Watched, watched

Kind = Literal["cluster", "Sentinel", "one address"]
NODE_TIMEOUT_MS = 1000


class Place(Protocol):
    """Servers of which some fail, and the URL that the cache has.

    Attributes:
        url: where the cache connects.
        unreplicated: whether what is written from now on will be lost.
    """

    url: str
    unreplicated: bool

    def fails(self, key: str) -> bool:
        """Whether the key lies where the fault is."""


class ClusterPlace:
    """A cluster of six nodes; a fault names those that it is about."""

    def __init__(self, cluster: ReplicatedCluster) -> None:
        self.cluster = cluster
        self.url = cluster.url
        self.unreplicated = False
        self.slots: frozenset[int] = frozenset()
        """What the fault is about."""

    def fails(self, key: str) -> bool:
        return slot(key) in self.slots

    def cut_off(self, primary: RedisServer) -> RedisServer:
        """End the primary's replication, and return its replica."""
        replica = self.cluster.cut_off(primary)
        self.unreplicated = True
        return replica

    def about(self, *nodes: RedisServer) -> None:
        """Note the slots of these nodes as those that may fail, and no others."""
        self.slots = frozenset().union(*(self.cluster.own_slots(node) for node in nodes))

    def elected(self, replica: RedisServer) -> float:
        """Wait until the replica has been elected; the moment."""
        self.unreplicated = False
        wait_for(lambda: self.cluster.own_slots(replica), "no failover")
        return time.perf_counter()


class SentinelPlace:
    """Two servers watched by three Sentinels."""

    def __init__(self, trio: Watched) -> None:
        self.trio = trio
        self.url = trio.url
        self.unreplicated = False

    def fails(self, key: str) -> bool:
        return True

    def cut_off(self) -> RedisServer:
        """End replication, and return the replica."""
        primary, replica = self.trio.primary(), self.trio.replica()
        replica.cli("CONFIG", "SET", "masterauth", "wrong")
        primary.cli("CLIENT", "KILL", "TYPE", "replica")
        wait_for(lambda: "connected_slaves:0" in primary.cli("INFO", "replication"), "still connected")
        self.unreplicated = True
        return replica

    def elected(self, replica: RedisServer) -> float:
        """Wait until the Sentinels have made the replica the primary; the moment."""

        def named() -> bool:
            living = next(sentinel for sentinel in self.trio.sentinels if sentinel.running)
            port = int(living.cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)[1])
            return port == replica.port and replica.cli("ROLE")[0] == "master"

        wait_for(named, "no failover")
        return time.perf_counter()


class AddressPlace:
    """A primary and its replica behind one address, as with a managed service. Open connections stay where they are.

    Args:
        first: the primary.
        second: its replica.
        proxy: the address.
    """

    def __init__(self, first: RedisServer, second: RedisServer, proxy: BackgroundProxy) -> None:
        self.first, self.second, self.proxy = first, second, proxy
        self.url = f"redis://127.0.0.1:{proxy.port}/0"
        self.unreplicated = False

    def fails(self, key: str) -> bool:
        return True


@contextmanager
def cluster_place(directory: Path) -> Iterator[ClusterPlace]:
    with replicated_cluster(directory, node_timeout_ms=NODE_TIMEOUT_MS) as cluster:
        yield ClusterPlace(cluster)


@contextmanager
def sentinel_place(directory: Path) -> Iterator[SentinelPlace]:
    with watched(directory) as trio:
        yield SentinelPlace(trio)


@contextmanager
def address_place(directory: Path) -> Iterator[AddressPlace]:
    with RedisServer(directory / "first") as first:
        args = ["--replicaof", f"127.0.0.1 {first.port}"]
        with RedisServer(directory / "second", args=args) as second, BackgroundProxy(first.port) as proxy:
            wait_for(lambda: "master_link_status:up" in second.cli("INFO", "replication"), "no replication")
            yield AddressPlace(first, second, proxy)
