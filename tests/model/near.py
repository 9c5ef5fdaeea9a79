"""The near cache as a small world: one reader, another process that writes, and a connection that may be lost.

Replies and pushes travel to the client in order, on one connection. A reply that has arrived is kept only when the
reader's task gets its turn, and anything may happen in between. The connection may be lost without anybody noticing;
then time passes, and in the end the client notices and connects anew.

Wrong is: a value that is no longer the server's is served after more than the bound has passed since the connection
died, or is still there when everything has come to rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .search import Verdict, search

READS, WRITES = 4, 3


@dataclass(frozen=True)
class Rules:
    """What a near cache does; the defaults are this layer's."""

    token: bool = True  # keep a reply only if nothing spoilt the token registered before the read
    drop_on_loss: bool = True  # forget everything when the connection is lost
    spoil_on_loss: bool = True  # and spoil the reads under way
    only_proven: bool = True  # serve only while a ping sent within the bound has been answered
    told_of_own: bool = True  # be told also of what our own commands change (no NOLOOP)


class World(NamedTuple):
    version: int = 0
    tracked: bool = False
    coming: tuple[tuple[str, int], ...] = ()
    kept: int | None = None
    reading: str = ""  # "", "asked", "sent" or "arrived"
    clean: bool = True
    arrived: int = 0
    reads: int = READS
    writes: int = WRITES
    losses: int = 1
    evictions: int = 1
    link: str = "up"  # "up", "dead" (nobody knows), "aged" (dead for longer than the bound)
    stale_served: bool = False


def check(rules: Rules) -> Verdict[World]:
    """Every interleaving of the world under ``rules``."""

    def steps(world: World) -> Iterator[tuple[str, World]]:
        yield from reader(world)
        if world.link == "up" and world.coming:
            yield receive(world)
        if world.writes:
            push = (("push", 0),) if world.tracked and world.link == "up" else ()
            yield (
                "another process writes",
                world._replace(
                    version=world.version + 1,
                    writes=world.writes - 1,
                    coming=world.coming + push,
                    tracked=False,
                ),
            )
        if world.evictions and world.link == "up":
            push = (("push", 0),) if world.tracked and rules.told_of_own else ()
            yield (
                "a command of ours evicts the key",
                world._replace(
                    version=world.version + 1,
                    evictions=0,
                    coming=world.coming + push,
                    tracked=False,
                ),
            )
        if world.losses and world.link == "up":
            yield "the link dies", world._replace(losses=0, link="dead", coming=(), tracked=False)
        if world.link == "dead":
            yield "the bound passes", world._replace(link="aged")
        if world.link != "up":
            yield "the loss is noticed", noticed(world)

    def reader(world: World) -> Iterator[tuple[str, World]]:
        if not world.reading and world.reads:
            if world.kept is not None and (world.link != "aged" or not rules.only_proven):
                stale = world.kept != world.version and world.link == "aged"
                yield "a value is served", world._replace(reads=world.reads - 1, stale_served=stale)
            elif world.kept is None:
                yield "a read begins", world._replace(reads=world.reads - 1, reading="asked", clean=True)
        if world.reading == "asked" and world.link == "up":
            reply = (("reply", world.version),)
            yield "the server answers", world._replace(reading="sent", tracked=True, coming=world.coming + reply)
        if world.reading == "arrived":
            keep = world.clean or not rules.token
            kept = world.arrived if keep else world.kept
            yield ("kept" if keep else "not kept"), world._replace(reading="", kept=kept)

    def receive(world: World) -> tuple[str, World]:
        (kind, version), *rest = world.coming
        after = world._replace(coming=tuple(rest))
        if kind == "push":
            return "a push arrives", after._replace(kept=None, clean=False)
        return "the reply arrives", after._replace(reading="arrived", arrived=version)

    def noticed(world: World) -> World:
        after = world._replace(link="up", coming=())
        if rules.drop_on_loss:
            after = after._replace(kept=None)
        if rules.spoil_on_loss:
            after = after._replace(clean=False)
        # Whoever waits for a reply gets an error; one that has arrived is still in the reader's hands.
        return after if world.reading == "arrived" else after._replace(reading="")

    def wrong(world: World, final: bool) -> str:
        if world.stale_served:
            return "an old value was served although the link had been dead for longer than the bound"
        if final and world.kept is not None and world.kept != world.version:
            return f"at rest, {world.kept} is kept and the server has {world.version}"
        return ""

    return search(World(), steps, wrong)
