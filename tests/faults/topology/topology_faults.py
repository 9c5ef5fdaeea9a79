"""The faults of clusters, of Sentinels and of an address that moves: how each is injected.

A fault runs in a thread beside the traffic. It returns the moment at which another server had taken over, from which on
the cache has three seconds; None where nothing was lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cache.transport.handshake import CLIENT_NAME
from tests.faults.harness.scenario import DEADLINE
from tests.faults.topology.places import AddressPlace, ClusterPlace, Kind, SentinelPlace
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.replicated_cluster import slot, wait_for
from tests.real.redis.sentinels import MASTER

Inject = Callable[[Any], float | None]
_UNREPLICATED: float = 0.5  # seconds of writes and deletes that a failover loses
_MOVED: int = 40
CACHES: int = 3
"""The caches of a scenario."""


@dataclass(frozen=True)
class TopologyFault:
    """A fault of more than one server.

    Attributes:
        kind: where it happens.
        name: in the table.
        inject: see above. Its argument is the place of this kind.
        changes: how often the cache may see something go away, and come back: one line each.
        grace: seconds for which a server that was replaced, and does not know, may still be read.
        lossless: whether no call may fail, or miss what is there.
        deadline: of a call; longer where none may fail, because a busy machine is late now and then.
    """

    kind: Kind
    name: str
    inject: Inject
    changes: int = 1
    grace: float = 0.0
    lossless: bool = False
    deadline: float = DEADLINE

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"


# -- a cluster -----------------------------------------------------------------------------------------------------


def lose(number: int, how: Callable[[RedisServer], None], *, unreplicated: bool = False) -> Inject:
    """Lose a primary, with what it has not replicated; its replica is elected."""

    def inject(place: ClusterPlace) -> float:
        lost = place.cluster.nodes[number]
        place.about(lost)
        replica = place.cut_off(lost) if unreplicated else place.cluster.replica_of(lost)
        if unreplicated:
            time.sleep(_UNREPLICATED)
        how(lost)
        return place.elected(replica)

    return inject


def lose_all_but_one(how: Callable[[RedisServer], None]) -> Inject:
    """Without a majority there is no election: the cache works again when the nodes are back."""

    def inject(place: ClusterPlace) -> float:
        cluster = place.cluster
        place.about(*cluster.primaries())
        for node in cluster.nodes:
            if node is not cluster.nodes[2]:
                how(node)
        wait_for(lambda: "cluster_state:fail" in cluster.nodes[2].cli("CLUSTER", "INFO"), "it goes on")
        time.sleep(0.5)
        cluster.settle()
        return time.perf_counter()

    return inject


def hand_over(place: ClusterPlace) -> float:
    """A planned failover: connections to the old primary, which is a replica from now on, stay open."""
    lost = place.cluster.nodes[1]
    place.about(lost)
    replica = place.cluster.replica_of(lost)
    replica.cli("CLUSTER", "FAILOVER")
    return place.elected(replica)


def take_over(place: ClusterPlace) -> float:
    """The replica takes the slots without an election. The old primary, and what it has not replicated, is there."""
    lost = place.cluster.nodes[1]
    place.about(lost)
    replica = place.cut_off(lost)
    time.sleep(_UNREPLICATED)
    replica.cli("CLUSTER", "FAILOVER", "TAKEOVER")
    return place.elected(replica)


def stop_and_continue(place: ClusterPlace) -> float:
    """The old primary goes on when another has been elected, and believes for a moment that it is still one."""
    lost = place.cluster.nodes[1]
    place.about(lost)
    replica = place.cluster.replica_of(lost)
    lost.pause()
    moment = place.elected(replica)
    time.sleep(_UNREPLICATED)
    lost.resume()
    return moment


def restart_one_by_one(place: ClusterPlace) -> float:
    """As an upgrade does it: the replica first, then a planned failover, then the primary of before."""
    cluster = place.cluster
    place.about(*cluster.primaries())
    for primary in cluster.primaries():
        replica = cluster.replica_of(primary)
        replica.stop()
        replica.start()
        wait_for(lambda primary=primary: "connected_slaves:1" in primary.cli("INFO", "replication"), "no replica")
        wait_for(lambda replica=replica: "master_link_status:up" in replica.cli("INFO", "replication"), "no link")
        wait_for(lambda: cluster.healthy(), "the replica is not back")
        replica.cli("CLUSTER", "FAILOVER")
        moment = place.elected(replica)
        primary.stop()
        primary.start()
        wait_for(lambda: cluster.healthy(), "the primary is not back")
    return moment


def reshard(place: ClusterPlace) -> None:
    """Move slots with keys back and forth, each for a moment on both nodes."""
    cluster = place.cluster
    source, target = cluster.primaries()[:2]
    names = [f"user:quiet{number}:profile" for number in range(1000)]
    numbers = [slot(name) for name in names if slot(name) in cluster.own_slots(source)][:_MOVED]
    for way in (target, source):
        for number in numbers:
            cluster.move_slot(number, way, pause=0.01)


# -- Sentinels -----------------------------------------------------------------------------------------------------


def lose_watched(how: Callable[[RedisServer], None], *, unreplicated: bool = False) -> Inject:
    def inject(place: SentinelPlace) -> float:
        primary = place.trio.primary()
        replica = place.cut_off() if unreplicated else place.trio.replica()
        if unreplicated:
            time.sleep(_UNREPLICATED)
        how(primary)
        return place.elected(replica)

    return inject


def lose_for_a_moment(place: SentinelPlace) -> float:
    """The old primary is back, and takes itself for one, while a Sentinel still names it."""
    primary, replica = place.trio.primary(), place.trio.replica()
    primary.kill()
    moment = place.elected(replica)
    primary.start()
    return moment


def planned(place: SentinelPlace) -> float:
    """The old primary goes on for ten seconds, so the cache is used all the time: it has to have followed by then."""
    replica = place.trio.replica()
    place.trio.sentinels[0].cli("SENTINEL", "FAILOVER", MASTER)
    moment = place.elected(replica)
    wait_for(lambda: replica.cli("CLIENT", "LIST").count(f" name={CLIENT_NAME} ") == CACHES, "not followed")
    return moment


def planned_and_one_stopped(place: SentinelPlace) -> float:
    """The caches that listen to the one that is stopped have to hear of it too."""
    stopped = place.trio.sentinels.pop(0)
    stopped.pause()
    place.trio.sentinels.append(stopped)
    return planned(place)


def lose_majority(place: SentinelPlace) -> float:
    """Two Sentinels are away when the primary dies: no replica is elected until one is back."""
    primary, replica = place.trio.primary(), place.trio.replica()
    for sentinel in place.trio.sentinels[1:]:
        sentinel.kill()
    time.sleep(0.5)  # the primary answers, and so is used
    primary.kill()
    time.sleep(1.5)
    place.trio.sentinels[1].start()
    return place.elected(replica)


# -- one address ---------------------------------------------------------------------------------------------------


def demote(place: AddressPlace) -> float:
    """The other server is the primary, new connections reach it, and the open ones stay with the old one."""
    place.second.cli("REPLICAOF", "NO", "ONE")

    async def turn() -> None:
        await place.proxy.apply(lambda proxy: setattr(proxy, "target_port", place.second.port))

    asyncio.run(turn())
    place.first.cli("REPLICAOF", "127.0.0.1", place.second.port)
    return time.perf_counter()


TOPOLOGY_FAULTS = (
    TopologyFault("cluster", "node of the URL killed", lose(0, RedisServer.kill)),
    TopologyFault("cluster", "node of the URL stopped", lose(0, RedisServer.pause)),
    TopologyFault("cluster", "another primary killed", lose(1, RedisServer.kill)),
    TopologyFault("cluster", "another primary stopped", lose(1, RedisServer.pause)),
    TopologyFault("cluster", "all but one killed", lose_all_but_one(RedisServer.kill), changes=3),
    TopologyFault("cluster", "all but one stopped", lose_all_but_one(RedisServer.pause), changes=3),
    TopologyFault("cluster", "failover, deletes lost", lose(1, RedisServer.kill, unreplicated=True)),
    TopologyFault("cluster", "taken over, deletes lost", take_over),
    TopologyFault("cluster", "stopped, continued later", stop_and_continue),
    TopologyFault("cluster", "planned failover", hand_over),
    TopologyFault("cluster", "rolling restart", restart_one_by_one, changes=6),
    TopologyFault("cluster", "live reshard", reshard, changes=0, lossless=True, deadline=0.5),
    TopologyFault("Sentinel", "primary killed", lose_watched(RedisServer.kill)),
    TopologyFault("Sentinel", "primary stopped", lose_watched(RedisServer.pause)),
    TopologyFault("Sentinel", "failover, deletes lost", lose_watched(RedisServer.kill, unreplicated=True)),
    TopologyFault("Sentinel", "primary killed, back at once", lose_for_a_moment),
    TopologyFault("Sentinel", "planned failover", planned),
    TopologyFault("Sentinel", "planned failover, one stopped", planned_and_one_stopped, grace=1.5),
    TopologyFault("Sentinel", "majority lost", lose_majority),
    TopologyFault("one address", "demoted, connections stay", demote, grace=1.5),
)
