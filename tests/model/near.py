"""A model of the near cache: one reader, another process that writes, and a connection that may be lost.

Replies and pushes reach the client in order on one connection. A reply that has arrived is cached only when the
reader's task runs, and other steps may happen in between. The connection may be lost silently; then time passes, and
finally the client detects the loss and reconnects.

A state is wrong if an outdated value is served after more than the bound has passed since the connection was lost, or
is still cached in a final state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .search import SearchResult, search

READS, WRITES = 4, 3


@dataclass(frozen=True)
class Rules:
    """Rules of a near cache; the defaults are those of this layer."""

    token: bool = True  # cache a reply only if the token registered before the read is still valid
    drop_on_loss: bool = True  # clear the cache when the connection is lost
    invalidate_reads_on_loss: bool = True  # and invalidate the tokens of reads in flight
    requires_ping: bool = True  # serve only while a ping sent within the bound has been answered
    tracks_own_writes: bool = True  # receive pushes for our own commands too (no NOLOOP)


class State(NamedTuple):
    version: int = 0
    tracked: bool = False
    in_flight: tuple[tuple[str, int], ...] = ()
    cached: int | None = None
    reading: str = ""  # "", "asked", "sent" or "arrived"
    clean: bool = True
    arrived: int = 0
    reads: int = READS
    writes: int = WRITES
    losses: int = 1
    evictions: int = 1
    connection: str = "up"  # "up", "dead" (not detected), "aged" (dead for longer than the bound)
    stale_served: bool = False


def check(rules: Rules) -> SearchResult[State]:
    """Search every interleaving under ``rules``."""

    def steps(state: State) -> Iterator[tuple[str, State]]:
        yield from reader(state)
        if state.connection == "up" and state.in_flight:
            yield receive(state)
        if state.writes:
            push = (("push", 0),) if state.tracked and state.connection == "up" else ()
            yield (
                "another process writes",
                state._replace(
                    version=state.version + 1,
                    writes=state.writes - 1,
                    in_flight=state.in_flight + push,
                    tracked=False,
                ),
            )
        if state.evictions and state.connection == "up":
            push = (("push", 0),) if state.tracked and rules.tracks_own_writes else ()
            yield (
                "a command of ours evicts the key",
                state._replace(
                    version=state.version + 1,
                    evictions=0,
                    in_flight=state.in_flight + push,
                    tracked=False,
                ),
            )
        if state.losses and state.connection == "up":
            yield "the connection dies", state._replace(losses=0, connection="dead", in_flight=(), tracked=False)
        if state.connection == "dead":
            yield "the bound passes", state._replace(connection="aged")
        if state.connection != "up":
            yield "the loss is noticed", noticed(state)

    def reader(state: State) -> Iterator[tuple[str, State]]:
        if not state.reading and state.reads:
            if state.cached is not None and (state.connection != "aged" or not rules.requires_ping):
                stale = state.cached != state.version and state.connection == "aged"
                yield "a value is served", state._replace(reads=state.reads - 1, stale_served=stale)
            elif state.cached is None:
                yield "a read begins", state._replace(reads=state.reads - 1, reading="asked", clean=True)
        if state.reading == "asked" and state.connection == "up":
            reply = (("reply", state.version),)
            yield "the server answers", state._replace(reading="sent", tracked=True, in_flight=state.in_flight + reply)
        if state.reading == "arrived":
            keep = state.clean or not rules.token
            cached = state.arrived if keep else state.cached
            yield ("cached" if keep else "not cached"), state._replace(reading="", cached=cached)

    def receive(state: State) -> tuple[str, State]:
        (kind, version), *rest = state.in_flight
        after = state._replace(in_flight=tuple(rest))
        if kind == "push":
            return "a push arrives", after._replace(cached=None, clean=False)
        return "the reply arrives", after._replace(reading="arrived", arrived=version)

    def noticed(state: State) -> State:
        after = state._replace(connection="up", in_flight=())
        if rules.drop_on_loss:
            after = after._replace(cached=None)
        if rules.invalidate_reads_on_loss:
            after = after._replace(clean=False)
        # A read waiting for its reply fails; a reply that has arrived is still with the reader.
        return after if state.reading == "arrived" else after._replace(reading="")

    def wrong(state: State, final: bool) -> str:
        if state.stale_served:
            return "an old value was served although the connection had been dead for longer than the bound"
        if final and state.cached is not None and state.cached != state.version:
            return f"finally, {state.cached} is cached and the server has {state.version}"
        return ""

    return search(State(), steps, wrong)
