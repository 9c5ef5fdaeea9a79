"""The fill protocol as a small world: two writers, three readers, one key, and a server that may evict.

The source counts its committed writes. A reader that misses asks for the right to fill, reads the source, and fills
with what it read, each a step of its own. A writer commits, then invalidates, in as many steps as its protocol needs.
The server may evict the value once, and the protocol's metadata once, at any moment.

Wrong is: everybody has finished, and the cache holds a value older than the source. Every write was then followed by
an acknowledged invalidation, so a fill that began before it has landed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .search import Verdict, search

WRITERS, READERS = 2, 3
# Where a reader is.
START, GRANTED, LOADED, DONE = range(4)


class Reader(NamedTuple):
    at: int = START
    token: int = 0
    loaded: int = -1


class World(NamedTuple):
    source: int = 0
    value: int | None = None
    meta: int | None = None  # lease, lock or generation, as the protocol likes
    minted: int = 0
    writers: tuple[int, ...] = (0,) * WRITERS
    readers: tuple[Reader, ...] = (Reader(),) * READERS
    value_evictions: int = 1
    meta_evictions: int = 1


class Protocol:
    """GET, then SET. Nothing guards the key."""

    invalidation: tuple[str, ...] = ("value",)
    """What an invalidation removes, one step after the other; "a+b" is one step."""
    writers = WRITERS

    def miss(self, world: World, who: int) -> tuple[World, int] | None:
        """The right to fill, with a token; None while somebody else has it."""
        return world, 0

    def may_fill(self, world: World, reader: Reader) -> bool:
        return True

    def filled(self, world: World) -> World:
        """What a fill changes beside the value."""
        return world

    def removed(self, world: World, what: str) -> World:
        if "value" in what:
            world = world._replace(value=None)
        return world._replace(meta=None) if "meta" in what else world


class SetNx(Protocol):
    """SET NX: a fill never overwrites."""

    def may_fill(self, world: World, reader: Reader) -> bool:
        return world.value is None


class LockAndDelete(Protocol):
    """A lock round the load; the invalidation deletes the value."""

    def miss(self, world: World, who: int) -> tuple[World, int] | None:
        return None if world.meta is not None else (world._replace(meta=1), 1)

    def filled(self, world: World) -> World:
        return world._replace(meta=None)


class Generation(Protocol):
    """A counter that an invalidation raises; a fill needs the one it began with. Absent counts as 0."""

    invalidation = ("value+raise",)

    def miss(self, world: World, who: int) -> tuple[World, int] | None:
        return world, world.meta or 0

    def may_fill(self, world: World, reader: Reader) -> bool:
        return (world.meta or 0) == reader.token

    def removed(self, world: World, what: str) -> World:
        return world._replace(value=None, meta=(world.meta or 0) + 1)


class TokenPerFill(Protocol):
    """What this layer does: a token per fill, absent means no; lease first, then value."""

    invalidation = ("meta", "value")

    def miss(self, world: World, who: int) -> tuple[World, int] | None:
        if world.meta is not None:
            return None
        token = world.minted + 1
        return world._replace(meta=token, minted=token), token

    def may_fill(self, world: World, reader: Reader) -> bool:
        return world.meta == reader.token

    def filled(self, world: World) -> World:
        return world._replace(meta=None)


class OneStep(TokenPerFill):
    """The same, lease and value removed in one step."""

    invalidation = ("meta+value",)


class ValueFirst(TokenPerFill):
    """The same, but the value is removed before the lease."""

    invalidation = ("value", "meta")


class Store(TokenPerFill):
    """``set``: the new value takes the old one's place, and the lease goes in the same step.

    One writer: of two who set what they committed, the slower may set what is older, whatever the cache does.
    """

    invalidation = ("store+meta",)
    writers = 1

    def removed(self, world: World, what: str) -> World:
        world = super().removed(world, what)
        return world._replace(value=world.source) if "store" in what else world


class StoreThenFree(Store):
    """The same in two steps: first the value, then the lease."""

    invalidation = ("store", "meta")


class TokenPerClient(TokenPerFill):
    """The token names the client, not the fill: two loads of one client cannot be told apart."""

    def miss(self, world: World, who: int) -> tuple[World, int] | None:
        return None if world.meta is not None else (world._replace(meta=1), 1)


def check(protocol: Protocol, *, evicts_meta: bool = True) -> Verdict[World]:
    """Every interleaving of the world under ``protocol``."""

    def steps(world: World) -> Iterator[tuple[str, World]]:
        for who, reader in enumerate(world.readers):
            yield from read(world, who, reader)
        for who, at in enumerate(world.writers):
            if at <= len(protocol.invalidation):
                writers = (*world.writers[:who], at + 1, *world.writers[who + 1 :])
                if at == 0:
                    yield f"W{who} commits", world._replace(source=world.source + 1, writers=writers)
                else:
                    what = protocol.invalidation[at - 1]
                    yield f"W{who} removes {what}", protocol.removed(world, what)._replace(writers=writers)
        if world.value_evictions and world.value is not None:
            yield "value evicted", world._replace(value=None, value_evictions=0)
        if evicts_meta and world.meta_evictions and world.meta is not None:
            yield "metadata evicted", world._replace(meta=None, meta_evictions=0)

    def read(world: World, who: int, reader: Reader) -> Iterator[tuple[str, World]]:
        def moved(to: World, **change: int) -> World:
            readers = (*to.readers[:who], reader._replace(**change), *to.readers[who + 1 :])
            return to._replace(readers=readers)

        if reader.at == START:
            if world.value is not None:
                yield f"R{who} hits", moved(world, at=DONE)
            elif (granted := protocol.miss(world, who)) is not None:
                yield f"R{who} may fill", moved(granted[0], at=GRANTED, token=granted[1])
            else:  # a waiter that gives up, or the end of the world
                yield f"R{who} goes without", moved(world, at=DONE)
        elif reader.at == GRANTED:
            yield f"R{who} loads {world.source}", moved(world, at=LOADED, loaded=world.source)
        elif reader.at == LOADED:
            if protocol.may_fill(world, reader):
                filled = protocol.filled(world)._replace(value=reader.loaded)
                yield f"R{who} fills with {reader.loaded}", moved(filled, at=DONE)
            else:
                yield f"R{who} is refused", moved(world, at=DONE)

    def wrong(world: World, final: bool) -> str:
        if final and world.value is not None and world.value < world.source:
            return f"the cache holds {world.value}, the source {world.source}"
        return ""

    return search(World(writers=(0,) * protocol.writers), steps, wrong)
