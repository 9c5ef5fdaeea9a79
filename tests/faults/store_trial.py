"""One fault of the store in one place: conversations with it, and what became of each promise."""

from __future__ import annotations

import logging
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal
from unittest.mock import patch

from cache import keys
from companion.writes.spool import Spool
from tests.faults.promises import Promises
from tests.faults.session import PROFILE, TOPIC, USER, Talk, have_talked_before, session
from tests.faults.store_world import StoreFault, StoreWorld
from tests.faults.surroundings import environment, listening
from tests.real.postgres import Postgres
from tests.real.postgrest import PostgREST
from tests.real.redis_server import RedisServer
from tests.wait import until

StorePlace = Literal["start", "end"]
STORE_PLACES: Final[tuple[StorePlace, ...]] = ("start", "end")
"""From the start into the middle of a conversation; and from the middle until it has ended."""
NEW = "bea"
"""Somebody of whom the cache knows nothing."""
SAID: Final = ("I live in Oslo.", "Remember that my sister visits on Friday.", "What do you know about me?")
_FIRST_WORD: Final = 4.5  # seconds for one greeting: the briefing's deadline, and some


@dataclass
class StoreOutcome(Promises):
    """What a trial showed."""

    fault: str
    place: StorePlace
    greeted: float = 0.0
    """Seconds until a greeting that was made during the fault."""
    known: bool = False
    """Whether the last good profile was used."""
    answered: bool = False
    kept: int = 0
    """Files that waited for the next start."""
    stored: bool = False
    reported: int = 0
    """Lines that tell an operator of it."""


async def store_trial(
    fault: StoreFault,
    place: StorePlace,
    directory: Path,
    redis: RedisServer,
    postgres: Postgres | None = None,
    timeout: float = 1.0,
) -> StoreOutcome:
    """Have the conversations. ``redis`` is flushed; ``timeout`` is what the worker gives the store, usually 5 s."""
    outcome = StoreOutcome(str(fault), place)
    redis.cli("FLUSHALL")
    async with AsyncExitStack() as stack:
        api = None
        if fault.kind == "Supabase":
            assert postgres is not None
            api = await stack.enter_async_context(PostgREST(await postgres.create_database()))
        world = StoreWorld(directory / "home", api)
        stack.enter_context(environment(REDIS_URL=redis.url, CACHE_DEADLINE_MS="1000", **world.settings))
        stack.enter_context(listening(partial(_note, outcome)))
        stack.enter_context(
            patch.dict("companion.store.supabase.store.SupabaseStore.__init__.__kwdefaults__", timeout=timeout)
        )
        stack.enter_context(patch("companion.store.sqlite.thread._BUSY_TIMEOUT_MS", timeout * 1000))
        stack.enter_context(patch("companion.conversation.turn_log.TurnLog.close.__defaults__", (2 * timeout,)))
        await _talk(fault, place, world, redis, outcome)
    return outcome


async def _talk(
    fault: StoreFault, place: StorePlace, world: StoreWorld, redis: RedisServer, outcome: StoreOutcome
) -> None:
    async with world.store() as store:
        await have_talked_before(store)
    async with session() as talk:  # so that the cache has a last good value
        outcome.check("Ada" in talk.greeting, "a healthy start does not know her")
    redis.cli("DEL", keys.profile(USER), keys.greeting_instructions(USER))  # their time has passed
    if place == "start":
        await fault.begin(world)
        began = time.monotonic()
        async with session(USER) as hers, session(NEW) as new:
            outcome.greeted = (time.monotonic() - began) / 2  # one after the other
            outcome.check(outcome.greeted < _FIRST_WORD, "the first word comes late")
            outcome.check("What is your name?" in new.greeting, "no first-meeting greeting for somebody unknown")
            if fault.fails == "all":
                outcome.known = "Ada" in hers.greeting
                outcome.check(outcome.known, "the last good profile is not used")
            outcome.check(not _wrong(redis, fault.loses), "something wrong is cached")
            await _say(hers, outcome)
            await fault.end(world)
        await _check(fault, world, redis, outcome)
        return
    async with session() as talk:
        await fault.begin(world)
        await _say(talk, outcome)
        outcome.check(not _wrong(redis, fault.loses), "something wrong is cached")
    spool = Spool(world.home)
    outcome.kept = len(spool.files())
    outcome.check(outcome.kept or fault.fails == "nothing", "nothing is kept for the next start")
    await fault.end(world)
    async with session():  # the next start
        await until(lambda: not spool.files())
    await _check(fault, world, redis, outcome)


async def _say(talk: Talk, outcome: StoreOutcome) -> None:
    answers = [await talk.say(words) for words in SAID]
    outcome.answered = all(answers)
    outcome.check(outcome.answered, "no answer")
    outcome.check("Oslo" in answers[-1] or "cannot reach" in answers[-1], "it forgets what it was told")


def _wrong(redis: RedisServer, loses: bool) -> list[str]:
    """What must never stand in the cache while the store fails: that nothing is known of somebody."""
    wrong = []
    for user in (USER, NEW):
        profile, plan = (redis.cli("GET", key(user)) for key in (keys.profile, keys.greeting_instructions))
        if user == USER and not loses and (profile == "" or (plan is not None and "first_meeting" in plan)):
            wrong.append(user)
        if user == NEW and profile not in (None, ""):
            wrong.append(user)
    return wrong


async def _check(fault: StoreFault, world: StoreWorld, redis: RedisServer, outcome: StoreOutcome) -> None:
    """Afterwards everything is as if nothing had happened."""
    async with world.store() as store:
        said = [turn.text for turn in await store.recent_turns(USER, 100)]
        known = "\n".join(
            [await store.get_profile(USER) or "", *(one.text for one in await store.search_memories(USER, ""))]
        )
    outcome.stored = all(words in said for words in SAID) and "Oslo" in known and "sister" in known
    outcome.check(outcome.stored, "not everything that was said is stored")
    outcome.check(fault.loses or (TOPIC in said and "Ada" in known), "what was known before is lost")
    outcome.check(fault.fails == "nothing" or outcome.reported, "nobody is told")
    async with session() as talk:
        outcome.check(fault.loses or "Ada" in talk.greeting, "the next start does not know her")
        outcome.check("Oslo" in await talk.say("What do you know about me?"), "the next conversation does not know")


def _note(outcome: StoreOutcome, record: logging.LogRecord) -> None:
    line = record.getMessage()
    outcome.reported += record.name == "companion" and record.levelno >= logging.WARNING
    secrets = (*SAID, PROFILE, TOPIC, "Oslo")
    if any(words in line for words in secrets):
        outcome.broken.append("the log tells what was said")
