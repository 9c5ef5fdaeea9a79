"""A model of the fill protocol: two writers, three readers, one key, and a server that may evict.

The source counts its committed writes. A reader that misses requests the lease, reads the source, and fills the cache,
each in a step of its own. A writer commits, then invalidates, in as many steps as its protocol needs. The server may
evict the value once and the protocol's metadata once, at any moment.

A final state is wrong if the cache holds a value older than the source: every write was followed by an acknowledged
invalidation, so a fill that began before it was accepted.

With ``forgets``, a value and a last good one are cached initially, readers may refresh them, and the source deletes its
data without an invalidation. A final state is then also wrong if either value is older than the absence that a reader
with a lease has observed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .search import SearchResult, search

WRITERS, READERS = 2, 3
# States of a reader.
START, GRANTED, LOADED, DONE = range(4)


class Reader(NamedTuple):
    at: int = START
    token: int = 0
    loaded: int = -1


class State(NamedTuple):
    source: int = 0
    value: int | None = None
    meta: int | None = None  # lease, lock or generation, by protocol
    minted: int = 0
    writers: tuple[int, ...] = (0,) * WRITERS
    readers: tuple[Reader, ...] = (Reader(),) * READERS
    value_evictions: int = 1
    meta_evictions: int = 1
    stale: int | None = None  # the last good value; an invalidation removes it with the metadata
    due: int = 0  # oldest version permitted in a final state
    forgets: int = 0
    gone: int = -1  # count of the source at its deletion


class Protocol:
    """GET, then SET, without a guard."""

    invalidation: tuple[str, ...] = ("value",)
    """What an invalidation removes, in separate steps; "a+b" is one step."""
    writers = WRITERS

    def miss(self, state: State, who: int) -> tuple[State, int] | None:
        """Request the lease: the new state and the token; None while another reader holds it."""
        return state, 0

    def may_fill(self, state: State, reader: Reader) -> bool:
        return True

    def filled(self, state: State) -> State:
        """Changes of a fill beside the value."""
        return state

    def emptied(self, state: State) -> State:
        """Further changes of a fill if the source has no value."""
        return state._replace(value=None, stale=None)

    def removed(self, state: State, what: str) -> State:
        if "value" in what:
            state = state._replace(value=None)
        return state._replace(meta=None, stale=None) if "meta" in what else state


class SetNx(Protocol):
    """SET NX: a fill never overwrites."""

    def may_fill(self, state: State, reader: Reader) -> bool:
        return state.value is None


class LockAndDelete(Protocol):
    """A lock around the load; the invalidation deletes the value."""

    def miss(self, state: State, who: int) -> tuple[State, int] | None:
        return None if state.meta is not None else (state._replace(meta=1), 1)

    def filled(self, state: State) -> State:
        return state._replace(meta=None)


class Generation(Protocol):
    """A counter incremented by invalidations; a fill requires the one it began with. Absent counts as 0."""

    invalidation = ("value+raise",)

    def miss(self, state: State, who: int) -> tuple[State, int] | None:
        return state, state.meta or 0

    def may_fill(self, state: State, reader: Reader) -> bool:
        return (state.meta or 0) == reader.token

    def removed(self, state: State, what: str) -> State:
        return state._replace(value=None, meta=(state.meta or 0) + 1)


class TokenPerFill(Protocol):
    """The protocol of this layer: a token per fill, an absent lease denies; lease first, then value."""

    invalidation = ("meta", "value")

    def miss(self, state: State, who: int) -> tuple[State, int] | None:
        if state.meta is not None:
            return None
        token = state.minted + 1
        return state._replace(meta=token, minted=token), token

    def may_fill(self, state: State, reader: Reader) -> bool:
        return state.meta == reader.token

    def filled(self, state: State) -> State:
        return state._replace(meta=None)


class OneStep(TokenPerFill):
    """The same, lease and value removed in one step."""

    invalidation = ("meta+value",)


class ValueFirst(TokenPerFill):
    """The same, but the value is removed before the lease."""

    invalidation = ("value", "meta")


class Store(TokenPerFill):
    """``set``: replaces the value and removes the lease in one step.

    One writer: of two concurrent ones, the slower may set the older value under any protocol.
    """

    invalidation = ("store+meta",)
    writers = 1

    def removed(self, state: State, what: str) -> State:
        state = super().removed(state, what)
        return state._replace(value=state.source) if "store" in what else state


class StoreThenFree(Store):
    """The same in two steps: first the value, then the lease."""

    invalidation = ("store", "meta")


class NoneIsNotKept(TokenPerFill):
    """The same, but a None only releases the lease."""

    def emptied(self, state: State) -> State:
        return state


class NoneKeepsTheLastGood(TokenPerFill):
    """The same, but a None removes the value alone."""

    def emptied(self, state: State) -> State:
        return state._replace(value=None)


class TokenPerClient(TokenPerFill):
    """The token identifies the client, not the fill: two loads of one client share it."""

    def miss(self, state: State, who: int) -> tuple[State, int] | None:
        return None if state.meta is not None else (state._replace(meta=1), 1)


def check(protocol: Protocol, *, evicts_meta: bool = True, forgets: bool = False) -> SearchResult[State]:
    """Search every interleaving under ``protocol``; with ``forgets`` one writer, and two readers that refresh."""

    def steps(state: State) -> Iterator[tuple[str, State]]:
        for who, reader in enumerate(state.readers):
            yield from read(state, who, reader)
        for who, at in enumerate(state.writers):
            if at <= len(protocol.invalidation):
                writers = (*state.writers[:who], at + 1, *state.writers[who + 1 :])
                if at == 0:
                    newer = state.source + 1
                    yield f"W{who} commits", state._replace(source=newer, due=newer, writers=writers)
                else:
                    what = protocol.invalidation[at - 1]
                    yield f"W{who} removes {what}", protocol.removed(state, what)._replace(writers=writers)
        if state.forgets:
            yield "the source forgets", state._replace(source=state.source + 1, gone=state.source + 1, forgets=0)
        if state.value_evictions and state.value is not None:
            yield "value evicted", state._replace(value=None, value_evictions=0)
        if evicts_meta and state.meta_evictions and state.meta is not None:
            yield "metadata evicted", state._replace(meta=None, meta_evictions=0)

    def read(state: State, who: int, reader: Reader) -> Iterator[tuple[str, State]]:
        def moved(to: State, **change: int) -> State:
            readers = (*to.readers[:who], reader._replace(**change), *to.readers[who + 1 :])
            return to._replace(readers=readers)

        if reader.at == START:
            if state.value is not None:
                yield f"R{who} hits", moved(state, at=DONE)
                if forgets and (granted := protocol.miss(state, who)) is not None:
                    yield f"R{who} may refresh", moved(granted[0], at=GRANTED, token=granted[1])
            elif (granted := protocol.miss(state, who)) is not None:
                yield f"R{who} may fill", moved(granted[0], at=GRANTED, token=granted[1])
            else:  # a waiter that times out, or a final state
                yield f"R{who} goes without", moved(state, at=DONE)
        elif reader.at == GRANTED:
            yield f"R{who} loads {state.source}", moved(state, at=LOADED, loaded=state.source)
        elif reader.at == LOADED:
            if protocol.may_fill(state, reader) and reader.loaded == state.gone:
                emptied = protocol.emptied(protocol.filled(state))
                yield f"R{who} fills with none", moved(emptied._replace(due=max(state.due, state.gone)), at=DONE)
            elif protocol.may_fill(state, reader):
                stale = reader.loaded if forgets else None
                filled = protocol.filled(state)._replace(value=reader.loaded, stale=stale)
                yield f"R{who} fills with {reader.loaded}", moved(filled, at=DONE)
            else:
                yield f"R{who} is refused", moved(state, at=DONE)

    def wrong(state: State, final: bool) -> str:
        if final and state.value is not None and state.value < state.due:
            return f"the cache holds {state.value}, the source {state.source}"
        if final and state.stale is not None and state.stale < state.due:
            return f"the last good value is {state.stale}, the source {state.source}"
        return ""

    start = State(writers=(0,) * protocol.writers)
    if forgets:
        start = State(value=0, stale=0, forgets=1, writers=(0,), readers=(Reader(),) * 2)
    return search(start, steps, wrong)
