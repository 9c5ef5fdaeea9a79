"""The parts of a cache, for tests that wait for, or break, what is not visible from outside.

First choice is what callers see: answers, ``cache.connected``, ``cache.invalidations``, ``get_stats``, the log,
and what Redis says (``redis_server.cli``). What is taken from here is the part's own public face.
"""

from __future__ import annotations

from cache import RedisCache
from cache.coherence.pending_pattern import PendingInvalidations
from cache.coherence.server_epoch import ServerEpoch
from cache.core.engine import Engine
from cache.loading.fill import Filler
from cache.locks import Locks


def engine_of(cache: RedisCache) -> Engine:
    """Its transport, near cache, pending invalidations, epochs and counters."""
    return cache._engine  # private: a user of the cache has no business with its connection


def enqueue(cache: RedisCache, pending: PendingInvalidations) -> None:
    """As if Redis had not acknowledged these."""
    queue = engine_of(cache).pending
    if pending.keys:
        queue.add(*pending.keys)
    for pattern in pending.patterns:
        queue.add_pattern(*pattern)


def epoch_of(cache: RedisCache) -> ServerEpoch:
    """Of its only server."""
    (epoch,) = engine_of(cache).servers.epochs.values()
    return epoch


def filler_of(cache: RedisCache) -> Filler:
    """Its loads, waiters and leases under way."""
    return cache._filler  # private: loads under way are seen only in what they cost


def locks_of(cache: RedisCache) -> Locks:
    """Its locks, and those it gives back."""
    return cache._locks  # private: a lock is given back behind the holder's back
