"""Exhaustive breadth-first search over all interleavings of a small model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

State = TypeVar("State", bound=Hashable)


@dataclass(frozen=True)
class SearchResult(Generic[State]):
    """The result of a search.

    Attributes:
        states: number of reachable states.
        counterexample: the steps to the first wrong state, empty if there is none.
    """

    states: int
    counterexample: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.counterexample


def search(
    start: State,
    steps: Callable[[State], Iterable[tuple[str, State]]],
    wrong: Callable[[State, bool], str],
) -> SearchResult[State]:
    """Visit every reachable state.

    Args:
        start: the initial state.
        steps: the transitions of a state: a name and the next state.
        wrong: describes the violation in a state, given whether the state is final; empty if none.
    """
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    frontier = deque([start])
    while frontier:
        state = frontier.popleft()  # breadth first, for a shortest counterexample
        following = list(steps(state))
        if fault := wrong(state, not following):
            return SearchResult(len(came_from), (*_path(came_from, state), f"WRONG: {fault}"))
        for name, after in following:
            if after not in came_from:
                came_from[after] = (state, name)
                frontier.append(after)
    return SearchResult(len(came_from), ())


def _path(came_from: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    names = []
    while (before := came_from[state]) is not None:
        state, name = before
        names.append(name)
    return names[::-1]
