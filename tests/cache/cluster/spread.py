"""Keys on every node of a cluster, and between two of them, and what callers get of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cache import RedisCache, keys
from tests.real.redis.redis_server import RedisServer
from tests.real.redis.replicated_cluster import ReplicatedCluster, first


def profiles(count: int, first: int = 0) -> list[str]:
    """Names of documented keys, which lie on all nodes if there are a few dozen."""
    return [keys.profile(str(number)) for number in range(first, first + count)]


def key_on(cluster: ReplicatedCluster, node: RedisServer, first: int = 0) -> str:
    """The first of the profiles that lies on this node."""
    return keys_on(cluster, node, profiles(100, first))[0]


def keys_on(cluster: ReplicatedCluster, node: RedisServer, names: Sequence[str]) -> list[str]:
    """Those of the names that lie on this node."""
    return [name for name, owner in zip(names, cluster.owners(names), strict=True) if owner is node]


def elsewhere(cluster: ReplicatedCluster, key: str) -> RedisServer:
    """A primary on which the key does not lie."""
    owner = cluster.owner(key)
    return first(node for node in cluster.primaries() if node is not owner)


def by_node(cluster: ReplicatedCluster, names: Iterable[str]) -> list[list[str]]:
    """The names, a list for each primary in the order of the nodes."""
    names = list(names)
    found = [keys_on(cluster, node, names) for node in cluster.primaries()]
    assert all(found), "more names are needed to reach every node"
    return found


@dataclass
class Reading:
    """Reads all keys again and again, several callers at once, and keeps what went wrong.

    Attributes:
        allowed: what may be read of each key, beside a miss.
        hits, misses: how often each key was found, and not.
        wrong: keys that had another value than is allowed.
        slowest: seconds that the slowest read took.
    """

    cache: RedisCache
    allowed: dict[str, object]
    hits: dict[str, int] = field(default_factory=dict)
    misses: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0

    async def once(self) -> None:
        """Read every key, ten callers at a time."""
        names = list(self.allowed)
        for start in range(0, len(names), 10):
            await asyncio.gather(*map(self._read, names[start : start + 10]))

    async def lasts(self, seconds: float) -> None:
        """Read all keys until then."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            await self.once()
            await asyncio.sleep(0.005)

    async def _read(self, key: str) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        value = await self.cache.get(key, self)
        self.slowest = max(self.slowest, loop.time() - began)
        if value is self:
            self.misses[key] = self.misses.get(key, 0) + 1
        elif value == self.allowed[key]:
            self.hits[key] = self.hits.get(key, 0) + 1
        else:
            self.wrong.append(key)
