"""The fill protocol as a small world: two writers, three readers, one key, and a server that may evict.

The source counts its committed writes. A reader that misses asks for the right to fill, reads the source, and fills
with what it read, each a step of its own. A writer commits, then invalidates, in as many steps as its protocol needs.
The server may evict the value once, and the protocol's metadata once, at any moment.

Wrong is: everybody has finished, and the cache holds a value older than the source. Every write was then followed by
an acknowledged invalidation, so a fill that began before it has landed.

In a world that forgets, a value and a last good one are there already, readers may refresh them, and the source loses
what it had without anybody telling the cache. Then it is also wrong if either is older than what a reader with the
right to fill has found: that there is none.
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
    stale: int | None = None  # the last good value; an invalidation removes it with the metadata
    due: int = 0  # nothing older may be held in the end
    forgets: int = 0
    gone: int = -1  # what the source counted when it had none


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

    def emptied(self, world: World) -> World:
        """What a fill changes beside that where the source has none."""
        return world._replace(value=None, stale=None)

    def removed(self, world: World, what: str) -> World:
        if "value" in what:
            world = world._replace(value=None)
        return world._replace(meta=None, stale=None) if "meta" in what else world


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


class NoneIsNotKept(TokenPerFill):
    """The same, but a None only gives the right to fill back."""

    def emptied(self, world: World) -> World:
        return world


class NoneKeepsTheLastGood(TokenPerFill):
    """The same, but a None removes the value alone."""

    def emptied(self, world: World) -> World:
        return world._replace(value=None)


class TokenPerClient(TokenPerFill):
    """The token names the client, not the fill: two loads of one client cannot be told apart."""

    def miss(self, world: World, who: int) -> tuple[World, int] | None:
        return None if world.meta is not None else (world._replace(meta=1), 1)


def check(protocol: Protocol, *, evicts_meta: bool = True, forgets: bool = False) -> Verdict[World]:
    """Every interleaving of the world under ``protocol``; with ``forgets`` one writer, and two readers who refresh."""

    def steps(world: World) -> Iterator[tuple[str, World]]:
        for who, reader in enumerate(world.readers):
            yield from read(world, who, reader)
        for who, at in enumerate(world.writers):
            if at <= len(protocol.invalidation):
                writers = (*world.writers[:who], at + 1, *world.writers[who + 1 :])
                if at == 0:
                    newer = world.source + 1
                    yield f"W{who} commits", world._replace(source=newer, due=newer, writers=writers)
                else:
                    what = protocol.invalidation[at - 1]
                    yield f"W{who} removes {what}", protocol.removed(world, what)._replace(writers=writers)
        if world.forgets:
            yield "the source forgets", world._replace(source=world.source + 1, gone=world.source + 1, forgets=0)
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
                if forgets and (granted := protocol.miss(world, who)) is not None:
                    yield f"R{who} may refresh", moved(granted[0], at=GRANTED, token=granted[1])
            elif (granted := protocol.miss(world, who)) is not None:
                yield f"R{who} may fill", moved(granted[0], at=GRANTED, token=granted[1])
            else:  # a waiter that gives up, or the end of the world
                yield f"R{who} goes without", moved(world, at=DONE)
        elif reader.at == GRANTED:
            yield f"R{who} loads {world.source}", moved(world, at=LOADED, loaded=world.source)
        elif reader.at == LOADED:
            if protocol.may_fill(world, reader) and reader.loaded == world.gone:
                emptied = protocol.emptied(protocol.filled(world))
                yield f"R{who} fills with none", moved(emptied._replace(due=max(world.due, world.gone)), at=DONE)
            elif protocol.may_fill(world, reader):
                stale = reader.loaded if forgets else None
                filled = protocol.filled(world)._replace(value=reader.loaded, stale=stale)
                yield f"R{who} fills with {reader.loaded}", moved(filled, at=DONE)
            else:
                yield f"R{who} is refused", moved(world, at=DONE)

    def wrong(world: World, final: bool) -> str:
        if final and world.value is not None and world.value < world.due:
            return f"the cache holds {world.value}, the source {world.source}"
        if final and world.stale is not None and world.stale < world.due:
            return f"the last good value is {world.stale}, the source {world.source}"
        return ""

    start = World(writers=(0,) * protocol.writers)
    if forgets:
        start = World(value=0, stale=0, forgets=1, writers=(0,), readers=(Reader(),) * 2)
    return search(start, steps, wrong)
