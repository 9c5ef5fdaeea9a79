"""A day of users who come back: who calls when, for how long, and how often the line drops. Seeded; no clock runs."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass

_DAY = 86_400
# How many of the day's visits begin in each hour: a quiet night, a morning, a long evening.
_HOURS = (1, 1, 1, 1, 1, 2, 4, 7, 8, 6, 5, 5, 6, 6, 5, 5, 6, 8, 10, 12, 12, 9, 5, 2)


@dataclass(frozen=True, slots=True)
class Habit:
    """What is assumed of the users.

    Attributes:
        visits: times a day that somebody comes to talk, on average.
        drops: times the line drops in one visit, on average; each is a new conversation seconds later.
        call: seconds one conversation lasts, on average.
        again: chance that a visit is followed by another one within the hour.
        save: chance that a conversation changes the profile.
    """

    visits: float
    drops: float
    call: float
    again: float
    save: float


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """Something that happens at a time (seconds of the day): a conversation of a user starts or ends."""

    at: float
    user: str
    start: bool
    save: bool = False


def day(habit: Habit, users: int, seed: int) -> Iterator[Event]:
    """The events of one day, in order."""
    choice = random.Random(seed)
    return heapq.merge(*(sorted(_user(habit, f"user-{number}", choice)) for number in range(users)))


def _user(habit: Habit, name: str, choice: random.Random) -> list[Event]:
    events: list[Event] = []
    free = 0.0  # nobody holds two conversations at once
    for begin in sorted(_visits(habit, choice)):
        at = max(begin, free)
        while True:
            ends = at + max(5.0, choice.expovariate(1 / habit.call))
            events += [Event(at, name, True, choice.random() < habit.save), Event(ends, name, False)]
            free = ends + 1
            if choice.random() >= habit.drops / (1 + habit.drops):
                break
            at = ends + choice.uniform(2, 40)  # dial again
    return events


def _visits(habit: Habit, choice: random.Random) -> Iterator[float]:
    due = choice.expovariate(habit.visits)
    while due < 1:  # a Poisson number of them
        at = 3600 * (choice.choices(range(24), _HOURS)[0] + choice.random())
        yield at
        while choice.random() < habit.again:
            at += choice.uniform(300, 3000)
            yield at
        due += choice.expovariate(habit.visits)
