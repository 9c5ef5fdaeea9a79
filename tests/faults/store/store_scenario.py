"""A store scenario: sessions with one fault of the store, and the invariants that must hold."""

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
from companion.memory.erasure import erase_user
from companion.runtime import get_runtime
from companion.store import PersonData
from companion.writes.spool import Spool
from tests.faults.harness.checks import Checks
from tests.faults.harness.dialogue import PROFILE, TOPIC, USER, Dialogue, open_dialogue, seed_earlier_conversation
from tests.faults.harness.worker_setup import log_listener, worker_settings
from tests.faults.store.store_environment import StoreEnvironment, StoreFault
from tests.lag import LoopLag
from tests.real.redis.redis_server import RedisServer
from tests.real.supabase.postgres import Postgres
from tests.real.supabase.postgrest import PostgREST
from tests.wait import until

StorePhase = Literal["start", "end"]
STORE_PHASES: Final[tuple[StorePhase, ...]] = ("start", "end")
"""``start``: from before the session into its middle; ``end``: from its middle until after its end."""
NEW_USER = "bea"
"""A user without cached data."""
UTTERANCES: Final = ("I live in Oslo.", "Remember that my sister visits on Friday.", "What do you know about me?")
_FIRST_WORD_LIMIT: Final = 1.5  # seconds for one greeting: the briefing's deadline and a margin


@dataclass
class StoreScenarioResult(Checks):
    """Measurements of one store scenario."""

    fault: str
    phase: StorePhase
    first_word: float = 0.0
    """Seconds until the greeting of a session that began during the fault."""
    last_good: bool = False
    """Whether the last good profile was used."""
    answered: bool = False
    spooled: int = 0
    """Spool files that waited for the next start."""
    stored: bool = False
    warnings: int = 0
    """Log lines that report the fault."""


async def run_store_scenario(
    fault: StoreFault,
    phase: StorePhase,
    directory: Path,
    redis: RedisServer,
    postgres: Postgres | None = None,
    timeout: float = 1.0,
) -> StoreScenarioResult:
    """Run the scenario.

    Args:
        fault: the fault to inject.
        phase: when to inject it.
        directory: home of the worker.
        redis: a server, which is flushed.
        postgres: needed for faults of Supabase.
        timeout: seconds until the worker gives up a store operation; 5 in production.
    """
    result = StoreScenarioResult(str(fault), phase)
    redis.cli("FLUSHALL")
    async with AsyncExitStack() as stack:
        api = None
        if fault.kind == "Supabase":
            assert postgres is not None
            api = await stack.enter_async_context(PostgREST(await postgres.create_database()))
        env = StoreEnvironment(directory / "home", api)
        stack.enter_context(worker_settings(REDIS_URL=redis.url, CACHE_DEADLINE_MS="1000", **env.settings))
        stack.enter_context(log_listener(partial(_on_log_record, result)))
        # A refused connection takes no time; a healthy database may, on a busy machine.
        seconds = 20.0 if fault.name == "refused" else timeout
        stack.enter_context(
            patch.dict("companion.store.supabase.store.SupabaseStore.__init__.__kwdefaults__", timeout=seconds)
        )
        if phase == "end":  # each session begins without the fault, and so knows its caller
            for module in ("briefing", "knowledge", "session_memory"):
                stack.enter_context(patch(f"companion.conversation.{module}.DEADLINE", 10.0))
        stack.enter_context(patch("companion.store.sqlite.thread.BUSY_TIMEOUT_MS", timeout * 1000))
        flush = 2 * timeout if phase == "end" else 20.0  # before the end of the job it has ended: as long as it takes
        stack.enter_context(patch("companion.conversation.turn_log.TurnLog.close.__defaults__", (flush,)))
        await _run_dialogues(fault, phase, env, redis, result)
    return result


async def _run_dialogues(
    fault: StoreFault, phase: StorePhase, env: StoreEnvironment, redis: RedisServer, result: StoreScenarioResult
) -> None:
    async with env.store() as store:
        await seed_earlier_conversation(store)
    async with open_dialogue() as dialogue:  # fills the cache with the last good value
        result.check("Ada" in dialogue.greeting, "a start without fault does not greet by name")
    redis.cli("DEL", keys.profile(USER), keys.greeting_instructions(USER))  # expired
    if phase == "start":
        await fault.begin(env)
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            async with LoopLag() as lag:
                known_user = await stack.enter_async_context(open_dialogue(USER))
                new_user = await stack.enter_async_context(open_dialogue(NEW_USER))
            result.first_word = (time.monotonic() - began - lag.seconds) / 2  # the two start in sequence
            result.check(result.first_word < _FIRST_WORD_LIMIT, "the first word comes late")
            result.check("What is your name?" in new_user.greeting, "no first-meeting greeting for an unknown user")
            if fault.fails == "all":
                result.last_good = "Ada" in known_user.greeting
                result.check(result.last_good, "the last good profile is not used")
            result.check(not _wrongly_cached(redis, fault.loses_data), "a wrong value is cached")
            await _say(known_user, result)
            await fault.end(env)
        await _check_afterwards(fault, env, redis, result)
        return
    async with open_dialogue() as dialogue:
        await fault.begin(env)
        await _say(dialogue, result)
        result.check(not _wrongly_cached(redis, fault.loses_data), "a wrong value is cached")
    spool = Spool(env.home)
    result.spooled = len(spool.files())
    result.check(result.spooled or fault.fails == "nothing", "nothing is spooled for the next start")
    await fault.end(env)
    async with open_dialogue():  # the next start
        await until(lambda: not spool.files())
    await _check_afterwards(fault, env, redis, result)
    await _check_erasure(fault, env, redis, result)


async def _say(dialogue: Dialogue, result: StoreScenarioResult) -> None:
    answers = [await dialogue.say(words) for words in UTTERANCES]
    result.answered = all(answers)
    result.check(result.answered, "no answer")
    result.check("Oslo" in answers[-1] or "cannot reach" in answers[-1], "the session forgets what the user said")


def _wrongly_cached(redis: RedisServer, loses_data: bool) -> list[str]:
    """Users for whom the cache claims that nothing is known, which must not be cached while the store fails."""
    wrong = []
    for user in (USER, NEW_USER):
        profile, plan = (redis.cli("GET", key(user)) for key in (keys.profile, keys.greeting_instructions))
        if user == USER and not loses_data and (profile == "" or (plan is not None and "first_meeting" in plan)):
            wrong.append(user)
        if user == NEW_USER and profile not in (None, ""):
            wrong.append(user)
    return wrong


async def _check_afterwards(
    fault: StoreFault, env: StoreEnvironment, redis: RedisServer, result: StoreScenarioResult
) -> None:
    """Check after the fault that store and sessions are as without it."""
    async with env.store() as store:
        said = [turn.text for turn in await store.recent_turns(USER, 100)]
        known = "\n".join(
            [
                await store.get_profile(USER) or "",
                *(one.text for one in await store.search_memories(USER, "")),
            ]
        )
    result.stored = all(words in said for words in UTTERANCES) and "Oslo" in known and "sister" in known
    result.check(result.stored, "a user turn or fact is not stored")
    result.check(fault.loses_data or (TOPIC in said and "Ada" in known), "earlier data is lost")
    result.check(fault.fails == "nothing" or result.warnings, "no warning is logged")
    async with open_dialogue() as dialogue:
        result.check(fault.loses_data or "Ada" in dialogue.greeting, "the next start does not greet by name")
        answer = await dialogue.say("What do you know about me?")
        result.check("Oslo" in answer, "the next session does not know the facts")


async def _check_erasure(
    fault: StoreFault, env: StoreEnvironment, redis: RedisServer, result: StoreScenarioResult
) -> None:
    """Erase the person in the middle of a conversation, during the fault; nothing is left after the next start."""
    async with open_dialogue() as dialogue:
        await fault.begin(env)
        await erase_user(USER)
        await dialogue.say(UTTERANCES[0])
    await fault.end(env)
    spool = Spool(env.home)
    async with open_dialogue(NEW_USER):
        await until(lambda: not (spool.wishes.all() or spool.files()))
        await get_runtime().outbox_relay.erasures.deliver_pending()
    async with env.store() as store:
        result.check(await store.export_user(USER) == PersonData(None, [], [], [], [], None), "the person is back")
        result.check(not await store.pending_erasures(60.0), "an erasure is pending")
    # The rest of the conversation may have cached that nothing is known.
    names = [name for name in redis.cli("KEYS", f"*user:{USER}:*") if redis.cli("TYPE", name) == "string"]
    cached = " ".join(str(redis.cli("GET", name)) for name in names)
    said = ("Ada", "Oslo", "sister", TOPIC)
    result.check(not any(words in cached for words in said), "Redis holds something of an erased person")


def _on_log_record(result: StoreScenarioResult, record: logging.LogRecord) -> None:
    line = record.getMessage()
    result.warnings += record.name == "companion" and record.levelno >= logging.WARNING
    secrets = (*UTTERANCES, PROFILE, TOPIC, "Oslo")
    if any(words in line for words in secrets):
        result.violations.append("the log contains user data")
