"""An exhaustive search: every order in which the steps of a small world can happen."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

State = TypeVar("State", bound=Hashable)


@dataclass(frozen=True)
class Verdict(Generic[State]):
    """What the search found.

    Attributes:
        states: how many different states can be reached.
        counterexample: the steps to the first wrong one, empty if there is none.
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
) -> Verdict[State]:
    """Visit every state that can be reached.

    Args:
        start: the first state.
        steps: what may happen in a state: a name and the state that follows.
        wrong: says what is wrong with a state, given whether nothing more can happen in it; empty if nothing.
    """
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    frontier = deque([start])
    while frontier:
        state = frontier.popleft()  # breadth first, so that a counterexample is as short as can be
        following = list(steps(state))
        if fault := wrong(state, not following):
            return Verdict(len(came_from), (*_path(came_from, state), f"WRONG: {fault}"))
        for name, after in following:
            if after not in came_from:
                came_from[after] = (state, name)
                frontier.append(after)
    return Verdict(len(came_from), ())


def _path(came_from: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    names = []
    while (before := came_from[state]) is not None:
        state, name = before
        names.append(name)
    return names[::-1]
