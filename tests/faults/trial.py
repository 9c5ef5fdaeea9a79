"""One fault in one place: a whole conversation with it, and what became of each promise."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from cache import get_redis_cache, keys
from companion import Caller, get_user_profile_async, use_caller
from tests.faults.faults import Fault
from tests.faults.promises import Promises
from tests.faults.session import PROFILE, TOPIC, USER, Talk, have_talked_before, session, store
from tests.faults.stopwatch import Stopwatch, Timed
from tests.faults.surroundings import environment, listening
from tests.faults.witness import USERS, Witness
from tests.faults.world import PASSWORD, World, connections_to
from tests.wait import until

Place = Literal["start", "middle"]
PLACES: tuple[Place, ...] = ("start", "middle")
DEADLINE = 0.05
SLACK = 0.02
BACK_WITHIN = 0.3
LASTS = (0.8, 1.1)
"""Seconds, at least: longer than it takes to find out, and so that it ends at any moment of what is tried meanwhile."""
_GIVE_UP = 4.0
_SAID = ("I live in Oslo.", "What do you know about me?", "cache stats")


@dataclass
class Outcome(Promises):
    """What a trial showed. ``broken`` names the promises that were not kept; empty is what we want."""

    fault: str
    place: Place
    greeted: bool = False
    answered: bool = False
    slowest: Timed = field(default_factory=lambda: Timed("none", 0.0, 0.0))
    slowest_walk: Timed = field(default_factory=lambda: Timed("none", 0.0, 0.0))
    used_again: float | None = None
    lines: list[str] = field(default_factory=list)
    secrets: int = 0
    errors: int = 0
    reads: int = 0
    wrong: list[str] = field(default_factory=list)
    stalled: float = 0.0
    stalled_by_machine: float = 0.0


async def trial(
    fault: Fault, place: Place, directory: Path, seed: int = 1, lasts: tuple[float, float] = LASTS
) -> Outcome:
    """Have the conversation. Raises only what is wrong with the trial itself."""
    outcome = Outcome(fault.name, place)
    spoilt = (keys.profile(USER), *map(keys.profile, USERS))
    stopwatch = Stopwatch()
    async with World(directory, fault.road, spoilt) as world:
        with (
            environment(REDIS_URL=world.url, COMPANION_HOME=str(directory / "home")),
            listening(partial(_note, outcome)),
            stopwatch.running(),
        ):
            async with store() as memory:
                await have_talked_before(memory)
            await world.cli("SET", keys.profile(USER), PROFILE)  # an earlier conversation's, still good
            before = asyncio.all_tasks()
            await _converse(fault, world, outcome, stopwatch, seed, lasts)
            left = {task.get_name() for task in asyncio.all_tasks() - before}
            outcome.check(not left, f"tasks are left: {left}")
            await _check_store(outcome)
            outcome.check(not connections_to(world.port), "connections are left")
    _judge(fault, outcome, stopwatch)
    return outcome


async def _converse(
    fault: Fault, world: World, outcome: Outcome, stopwatch: Stopwatch, seed: int, lasts: tuple[float, float]
) -> None:
    if outcome.place == "start":
        await fault.begin(world)
    async with session() as talk:
        outcome.greeted = "Welcome back, Ada!" in talk.greeting and TOPIC in talk.greeting
        witness = Witness(await get_redis_cache(), seed)
        witness.start()
        if outcome.place == "middle":
            await talk.say("I like chess.")
            await fault.begin(world)
        seconds = random.Random(f"{seed} {fault.name} {outcome.place}").uniform(*lasts)
        enough = asyncio.create_task(asyncio.sleep(seconds), name="fault lasts")
        outcome.answered = await _answers(talk, outcome)
        await enough
        await fault.end(world)
        with use_caller(Caller(USER)):
            outcome.used_again = await _time_until_used(stopwatch)
        outcome.check("Oslo" in await talk.say("What do you know about me?"), "it forgets what it was told")
        await witness.stop()
        await _check_redis(world, witness, outcome)
        outcome.errors = (await get_redis_cache())._engine.counters.connection_errors
        outcome.wrong += witness.wrong
        outcome.reads = witness.reads
    await world.cease()


async def _answers(talk: Talk, outcome: Outcome) -> bool:
    answers = [await talk.say(words) for words in _SAID]
    if answers[1] and ("Oslo" not in answers[1] or "Ada" not in answers[1]):
        outcome.wrong.append(f"of the profile it says {answers[1][:60]!r}")
    return all(answers)


async def _time_until_used(stopwatch: Stopwatch) -> float | None:
    """Seconds, of those in which the loop ran, until a value written is read back, and the user's profile is there."""
    cache, began, number = await get_redis_cache(), time.perf_counter(), 0
    while time.perf_counter() - began < _GIVE_UP:
        number += 1
        key = keys.temp("probe", str(number))
        profile = await get_user_profile_async()
        written = await cache.set(key, number, ttl=60) and await cache.get(key) == number
        if written and await cache.get(keys.profile(USER)) == profile:
            ended = time.perf_counter()
            return ended - began - stopwatch.loop.within(began, ended)
        await asyncio.sleep(0.003)
    return None


async def _check_redis(world: World, witness: Witness, outcome: Outcome) -> None:
    """What is owed has been delivered: nobody else can read an old value from Redis any more."""

    async def right() -> bool:
        return all([await witness.check(key, await world.cli("GET", key)) for key in witness.keys])

    try:
        await until(right, 3.0)
    except AssertionError:
        outcome.wrong.append("an old value is left in Redis")


async def _check_store(outcome: Outcome) -> None:
    async with store() as memory:
        profile = await memory.get_profile(USER)
        said = [turn.text for turn in await memory.recent_turns(USER, 100)]
    outcome.check("Oslo" in (profile or ""), "the profile was not stored")
    outcome.check(all(words in said for words in _SAID), "what was said was not stored")


def _judge(fault: Fault, outcome: Outcome, stopwatch: Stopwatch) -> None:
    outcome.slowest, outcome.slowest_walk = stopwatch.slowest(), stopwatch.slowest(stepwise=True)
    outcome.stalled = stopwatch.loop.total
    outcome.stalled_by_machine = stopwatch.loop.total - stopwatch.loop.cpu
    outcome.check(outcome.greeted, "no greeting, or not the right one")
    outcome.check(outcome.answered, "no answer")
    slow, back = outcome.slowest, outcome.used_again
    outcome.check(slow.net <= DEADLINE + SLACK, f"{slow.name} took {slow.net * 1000:.0f} ms")
    outcome.check(back is not None and back <= BACK_WITHIN, "not used again in time")
    outcome.check(not outcome.wrong, "something wrong was served")
    if fault.noticed:
        outcome.check(outcome.errors, "the counters do not show it")
        outcome.check(any("Warning" in line for line in outcome.lines), "the log does not show it")
    # One when it comes up, one each time it goes and comes back, and one for a trouble that is no outage.
    outcome.check(len(outcome.lines) <= 2 + 2 * fault.changes, f"{len(outcome.lines)} lines in the log")
    outcome.check(not outcome.secrets, "the log tells secrets")


def _note(outcome: Outcome, record: logging.LogRecord) -> None:
    """Keep what the cache tells an operator; whatever else is logged may at least tell no secrets."""
    line = record.getMessage()
    if record.name == "cache" and record.levelno >= logging.INFO:
        outcome.lines.append(line)
    outcome.secrets += PASSWORD in line or any(words in line for words in (*_SAID, PROFILE))
