"""A seeded workload of returning users: conversations of one day, with durations and dropped connections."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass

_DAY = 86_400
# Weight of each hour of the day for the begin of a visit.
_HOURS = (1, 1, 1, 1, 1, 2, 4, 7, 8, 6, 5, 5, 6, 6, 5, 5, 6, 8, 10, 12, 12, 9, 5, 2)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Parameters of user behaviour.

    Attributes:
        visits: mean number of visits a day.
        drops: mean number of dropped connections in a visit; each starts a new conversation seconds later.
        call: mean seconds of a conversation.
        again: probability that another visit follows within the hour.
        save: probability that a conversation changes the profile.
    """

    visits: float
    drops: float
    call: float
    again: float
    save: float


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """Start or end of a user's conversation ``at`` a second of the day."""

    at: float
    user: str
    start: bool
    save: bool = False


def day(behaviour: Behaviour, users: int, seed: int) -> Iterator[Event]:
    """The events of one day, in order."""
    rng = random.Random(seed)
    return heapq.merge(*(sorted(_user(behaviour, f"user-{number}", rng)) for number in range(users)))


def _user(behaviour: Behaviour, name: str, rng: random.Random) -> list[Event]:
    events: list[Event] = []
    available_at = 0.0  # a user has one conversation at a time
    for begin in sorted(_visits(behaviour, rng)):
        at = max(begin, available_at)
        while True:
            ends = at + max(5.0, rng.expovariate(1 / behaviour.call))
            events += [Event(at, name, True, rng.random() < behaviour.save), Event(ends, name, False)]
            available_at = ends + 1
            if rng.random() >= behaviour.drops / (1 + behaviour.drops):
                break
            at = ends + rng.uniform(2, 40)  # reconnect
    return events


def _visits(behaviour: Behaviour, rng: random.Random) -> Iterator[float]:
    due = rng.expovariate(behaviour.visits)
    while due < 1:  # their number is Poisson distributed
        at = 3600 * (rng.choices(range(24), _HOURS)[0] + rng.random())
        yield at
        while rng.random() < behaviour.again:
            at += rng.uniform(300, 3000)
            yield at
        due += rng.expovariate(behaviour.visits)
