"""Starts a real Redis Cluster of three primaries with a replica each, for fault injection."""

from __future__ import annotations

import binascii
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil
from psutil import STATUS_STOPPED

from cache import keys
from cache.slots import tag_of_slot
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.resp import Part, RedisReplyError

T = TypeVar("T")
SLOTS: Final = 16384
PATIENCE: Final = 30.0
"""Seconds that a cluster may take for what it does by itself."""
_BUS: Final = 10_000
"""By how much the port of the nodes' own conversation is higher."""
_NO_FAILOVER: Final = "cluster-slave-no-failover"  # the name that every version knows
_ALL_PACKETS, _NO_PACKET = -2, -1
_MANY_KEYS: Final = ("DEL", "EXISTS", "UNLINK")
_WITHOUT_KEY: Final = ("CLIENT", "CONFIG", "DBSIZE", "FLUSHALL", "INFO", "KEYS", "SCRIPT")


def slot(key: Part) -> int:
    """The slot of a key, as the cluster specification has it: CRC16 of the key, or of its hash tag."""
    name = key if isinstance(key, bytes) else str(key).encode(errors="surrogateescape")
    start = name.find(b"{") + 1
    end = name.find(b"}", start) if start else -1
    return binascii.crc_hqx(name[start:end] if end > start else name, 0) % SLOTS


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
    """Poll until the condition is true. An error while asking counts as false."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (OSError, RedisReplyError, LookupError, RuntimeError):
            pass  # a node that is not running, or not in the cluster yet
        assert time.monotonic() < give_up, what
        time.sleep(0.01)


@dataclass(frozen=True)
class Seen:
    """What one node knows of another, or of itself."""

    port: int
    flags: frozenset[str]
    primary: str
    slots: frozenset[int]


class ReplicatedCluster:
    """Three primaries, then a replica of each, in this order; failovers change the roles.

    Attributes:
        nodes: all servers, running or not. A client gets the address of the first.
    """

    def __init__(self, nodes: Sequence[RedisServer]) -> None:
        self.nodes = list(nodes)
        self._changed = False  # settings of a node

    @property
    def url(self) -> str:
        return self.nodes[0].url

    @property
    def port(self) -> int:
        return self.nodes[0].port

    @property
    def running(self) -> list[RedisServer]:
        """The nodes that answer: neither killed nor stopped."""
        return [node for node in self.nodes if node.running and psutil.Process(node.pid).status() != STATUS_STOPPED]

    # -- who is what ------------------------------------------------------------------------------------

    def seen_by(self, node: RedisServer) -> dict[str, Seen]:
        """The nodes as this one knows them, by their ids."""
        found = {}
        for line in node.cli("CLUSTER", "NODES").splitlines():
            name, address, flags, primary, _, _, _, _, *ranges = line.split()
            port = int(address.partition("@")[0].rpartition(":")[2])
            found[name] = Seen(port, frozenset(flags.split(",")), primary, _slots(*ranges))
        return found

    def owner(self, key: Part) -> RedisServer:
        """The node that has the key's slot."""
        return self.owners([key])[0]

    def owners(self, names: Sequence[Part]) -> list[RedisServer]:
        """The node of each key, as the first running node knows them."""
        seen = self.seen_by(self.running[0])
        by_port = {node.port: node for node in self.nodes}
        primaries = [(each.slots, by_port[each.port]) for each in seen.values() if each.slots]
        return [first(node for slots, node in primaries if number in slots) for number in map(slot, names)]

    def owner_of_slot(self, number: int) -> RedisServer:
        """The running node that says that the slot is its own; others may not know yet that it has moved."""
        nodes = self.running
        likely = [node for node in nodes if number in self.slots_of(node, nodes[0])]
        return first(node for node in (*likely, *nodes) if number in self.own_slots(node))

    def own_slots(self, node: RedisServer) -> frozenset[int]:
        """The slots that the node says are its own; empty for a replica."""
        return first(seen for seen in self.seen_by(node).values() if "myself" in seen.flags).slots

    def primaries(self) -> list[RedisServer]:
        """The running nodes that own slots, as the first of them knows."""
        nodes = self.running
        ports = {seen.port for seen in self.seen_by(nodes[0]).values() if seen.slots}
        return [node for node in nodes if node.port in ports]

    def replica_of(self, primary: RedisServer) -> RedisServer:
        """Waits until the primary has heard of it: one that was a primary itself may say later that it follows."""
        name, found = primary.cli("CLUSTER", "MYID"), list[RedisServer]()

        def has_one() -> bool:
            ports = [seen.port for seen in self.seen_by(primary).values() if seen.primary == name]
            found.extend(node for node in self.running if node.port in ports)
            return bool(found)

        wait_for(has_one, "no replica")
        return found[0]

    # -- commands ---------------------------------------------------------------------------------------

    def cli(self, *command: Part) -> Any:
        """As ``RedisServer.cli``, on the node that owns the key; several keys of DEL or EXISTS one by one.

        A command without a key goes to all primaries. The answer is their sum, or all they say one after the other.
        """
        name, key, *others = *command, *[""] * (len(command) == 1)
        if name in _WITHOUT_KEY:
            return self._on_primaries(command)
        if others and name in _MANY_KEYS:
            return sum(self.cli(name, each) for each in (key, *others))
        return self.owner(others[1] if name == "EVAL" else key).cli(*command)

    def many(self, commands: Iterable[Sequence[Part]]) -> list[Any]:
        """As ``RedisServer.many``, for commands with one key each; the replies come node by node."""
        commands = list(commands)
        owners = self.owners([command[1] for command in commands])
        replies = []
        for node in dict.fromkeys(owners):
            replies += node.many([each for each, owner in zip(commands, owners, strict=True) if owner is node])
        return replies

    def _on_primaries(self, command: Sequence[Part]) -> Any:
        replies = [node.cli(*command) for node in self.primaries()]
        if isinstance(replies[0], list):
            return [each for reply in replies for each in reply]
        return sum(replies) if isinstance(replies[0], int) else "\n".join(replies)

    def on_each(self, *command: Part) -> list[Any]:
        """The replies of all running nodes."""
        return [node.cli(*command) for node in self.running]

    def calls(self, command: str) -> int:
        """Executions of the command on all running nodes."""
        return sum(node.calls(command) for node in self.running)

    def flush(self) -> None:
        self.cli("FLUSHALL")

    def set_epoch(self) -> None:
        """As ``RedisServer.set_epoch``, on each primary."""
        for node in self.primaries():
            node.set_epoch(self.mark_of(node))

    def mark_of(self, node: RedisServer) -> str:
        """The key of the node's mark: in the first slot that it has, and with its id."""
        return keys.system_server(f"{{{tag_of_slot(min(self.own_slots(node)))}}}:{node.cli('CLUSTER', 'MYID')}")

    def names(self) -> set[str]:
        """All keys of all primaries."""
        return set(self.cli("KEYS", "*"))

    # -- faults -----------------------------------------------------------------------------------------

    def cut_off(self, primary: RedisServer) -> RedisServer:
        """End replication of the primary, whose writes are lost in a failover from now on. Returns its replica."""
        replica = self.replica_of(primary)
        wait_for(lambda: _offset(replica, "slave_repl_offset") == _offset(primary, "master_repl_offset"), "not in sync")
        self._changed = True
        replica.cli("CONFIG", "SET", "masterauth", "wrong")
        primary.cli("CLIENT", "KILL", "TYPE", "replica")
        wait_for(lambda: "connected_slaves:0" in primary.cli("INFO", "replication"), "still connected")
        return replica

    def keep_from_failing_over(self, replica: RedisServer) -> None:
        """No failover but :meth:`promote`: this replica takes no part in an election."""
        self._changed = True
        replica.cli("CONFIG", "SET", _NO_FAILOVER, "yes")

    def promote(self, replica: RedisServer) -> None:
        """Make the replica the owner of its primary's slots at once; returns when all running nodes know."""
        replica.cli("CLUSTER", "FAILOVER", "TAKEOVER")
        wait_for(lambda: self.own_slots(replica), "not promoted")
        mine = self.own_slots(replica)
        wait_for(lambda: all(mine == self.slots_of(replica, node) for node in self.running), "not known to all")

    def isolate(self, node: RedisServer) -> None:
        """No other node hears of this one, until :meth:`rejoin`; clients do."""
        node.cli("DEBUG", "DROP-CLUSTER-PACKET-FILTER", _ALL_PACKETS)

    def rejoin(self, node: RedisServer) -> None:
        """End :meth:`isolate`. A link on which an answer was dropped would wait for it for ever: they are made anew."""
        node.cli("DEBUG", "DROP-CLUSTER-PACKET-FILTER", _NO_PACKET)
        for name, seen in self.seen_by(node).items():
            if "myself" not in seen.flags:
                node.cli("DEBUG", "CLUSTERLINK", "KILL", "ALL", name)

    def slots_of(self, node: RedisServer, at: RedisServer) -> frozenset[int]:
        """The slots of a node, as another one knows them."""
        return first(seen.slots for seen in self.seen_by(at).values() if seen.port == node.port)

    def settle(self) -> None:
        """Undo faults: every node runs, the first three are the primaries, their replicas in step, and all agree."""
        for node in self.nodes:
            if node.running:
                node.resume()
            else:
                node.start()
            if self._changed:
                node.cli("CONFIG", "SET", "masterauth", "")
                node.cli("CONFIG", "SET", _NO_FAILOVER, "no")
        self._changed = False
        self._wait_until_healthy("the cluster does not recover")
        for node in self.nodes[:3]:
            if not self.own_slots(node):
                self.promote(node)
                self._wait_until_healthy("the roles are not as they were")

    def _wait_until_healthy(self, what: str) -> None:
        try:
            wait_for(lambda: self.healthy() or self._take_lost_slots(), what)
        except AssertionError:
            views = [f"{node.port}:\n{node.cli('CLUSTER', 'NODES')}" for node in self.running]
            raise AssertionError("\n".join([what, *views])) from None

    def _take_lost_slots(self) -> None:
        """Give a slot to the node that any other believes to have it, if that one does not.

        A packet that its source sent before it gave the slot away may undo the move at the target.
        """
        by_port = {node.port: node for node in self.nodes}
        believed = {
            number: by_port[each.port]
            for node in self.nodes
            for each in self.seen_by(node).values()
            for number in each.slots
        }
        for number in believed.keys() - frozenset[int]().union(*map(self.own_slots, self.nodes)):
            target = believed[number]
            target.cli("CLUSTER", "SETSLOT", number, "NODE", target.cli("CLUSTER", "MYID"))

    def healthy(self) -> bool:
        """Whether every slot has one owner with a replica in step, and all nodes know."""
        views = [self.seen_by(node) for node in self.nodes]
        owners = {name: seen.slots for name, seen in views[0].items() if seen.slots}
        return (
            len(self.running) == len(self.nodes)
            and sum(map(len, owners.values())) == SLOTS
            and all({name: seen.slots for name, seen in view.items() if seen.slots} == owners for view in views)
            and not any("fail" in flag for view in views for seen in view.values() for flag in seen.flags)
            and all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in self.nodes)
            and all(
                "master_link_status:up" in text if "role:slave" in text else "connected_slaves:1" in text
                for text in self.on_each("INFO", "replication")
            )
        )

    def move_slot(self, number: int, target: RedisServer, *, pause: float = 0.0) -> None:
        """Move a slot with its keys, live. ``pause``: seconds in the middle, when ASK is answered."""
        if self.owner_of_slot(number) is not target:
            with self.half_moved(number, target):
                time.sleep(pause)

    @contextmanager
    def half_moved(self, number: int, target: RedisServer) -> Iterator[RedisServer]:
        """A slot between two nodes; the block gets the one that it leaves, which answers ASK for keys it lacks.

        At the end of the block it moves altogether.
        """
        source = self.owner_of_slot(number)
        # The target takes the slot with a higher epoch than it knows of. With one below the source's, what that has
        # said before would undo the move: then the slot would have no owner.
        wait_for(lambda: _epoch(target, "current") >= _epoch(source, "my"), "the target does not hear of the source")
        source_id, target_id = (node.cli("CLUSTER", "MYID") for node in (source, target))
        target.cli("CLUSTER", "SETSLOT", number, "IMPORTING", source_id)
        source.cli("CLUSTER", "SETSLOT", number, "MIGRATING", target_id)
        try:
            yield source
        finally:
            while names := source.cli("CLUSTER", "GETKEYSINSLOT", number, 100):
                source.cli("MIGRATE", "127.0.0.1", target.port, "", 0, 2000, "KEYS", *names)
            for node in (target, source):
                node.cli("CLUSTER", "SETSLOT", number, "NODE", target_id)


def first(found: Iterable[T]) -> T:
    """The first that there is. Raises LookupError, because a thread that is awaited hangs over a StopIteration."""
    for each in found:
        return each
    raise LookupError("none: the cluster has not settled")


@lru_cache(maxsize=32)  # they are asked for with each command, and hardly ever change
def _slots(*ranges: str) -> frozenset[int]:
    slots = set[int]()
    for text in ranges:
        if not text.startswith("["):  # a slot on its way
            first, _, last = text.partition("-")
            slots.update(range(int(first), int(last or first) + 1))
    return frozenset(slots)


def _epoch(node: RedisServer, whose: str) -> int:
    return int(node.cli("CLUSTER", "INFO").partition(f"cluster_{whose}_epoch:")[2].split()[0])


def _offset(node: RedisServer, name: str) -> str:
    lines = node.cli("INFO", "replication").splitlines()
    return first(line.partition(":")[2] for line in lines if line.startswith(f"{name}:"))


@contextmanager
def replicated_cluster(
    directory: Path, *, binary: Path | None = None, node_timeout_ms: int = 2000
) -> Iterator[ReplicatedCluster]:
    """A cluster of three primaries and three replicas, formed from the start: its nodes find it in their files.

    It takes two seconds all the same, for which a primary that starts accepts no commands.
    """
    while True:
        cluster = _made(directory / secrets.token_hex(4), binary, node_timeout_ms)
        try:
            with ThreadPoolExecutor(len(cluster.nodes)) as starting:
                list(starting.map(RedisServer.start, cluster.nodes))
            break
        except RuntimeError as error:  # a port was taken between the choice and the start
            for node in cluster.nodes:
                node.kill()
            if "Address already in use" not in str(error):
                raise
    try:
        wait_for(cluster.healthy, "the cluster does not form")
        yield cluster
    finally:
        for node in cluster.nodes:
            node.kill()


def _made(directory: Path, binary: Path | None, node_timeout_ms: int) -> ReplicatedCluster:
    args = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms)]
    args += ["--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"]
    args += ["--cluster-allow-replica-migration", "no"]  # no replica leaves for a primary whose own was away for long
    ports = _ports(6)
    nodes = [RedisServer(directory / str(port), port=port, binary=binary, args=args) for port in ports]
    names = [secrets.token_hex(20) for _ in nodes]
    for mine, node in enumerate(nodes):
        node.directory.mkdir(parents=True)
        lines = [_line(number, mine, ports, names) for number in range(6)]
        (node.directory / "nodes.conf").write_text("\n".join([*lines, "vars currentEpoch 3 lastVoteEpoch 0", ""]))
    return ReplicatedCluster(nodes)


def _line(number: int, mine: int, ports: list[int], names: list[str]) -> str:
    """A node in the file of the node that is number ``mine``."""
    share, primary = SLOTS // 3, number % 3
    flags = ("myself," if number == mine else "") + ("master" if number < 3 else "slave")
    first, last = primary * share, SLOTS - 1 if primary == 2 else (primary + 1) * share - 1
    facts = [names[number], f"127.0.0.1:{ports[number]}@{ports[number] + _BUS}", flags]
    facts += ["-" if number < 3 else names[primary], "0", "0", str(primary + 1), "connected"]
    return " ".join([*facts, f"{first}-{last}"] if number < 3 else facts)


def _ports(count: int) -> list[int]:
    """Ports that are free, as are those of the nodes' own conversation above them."""
    found: list[int] = []
    taken: list[socket.socket] = []
    try:
        while len(found) < count:
            probe, bus = socket.socket(), socket.socket()
            taken += [probe, bus]
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            try:
                bus.bind(("127.0.0.1", port + _BUS))
                found.append(port)
            except (OSError, OverflowError):
                pass
    finally:
        for each in taken:
            each.close()
    return found
