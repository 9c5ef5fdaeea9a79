"""A scenario: one dialogue with one fault in one of its phases, and the invariants that must hold."""

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
from tests.faults.harness.call_timer import CallTimer, TimedCall
from tests.faults.harness.checks import Checks
from tests.faults.harness.consistency_checker import USERS, ConsistencyChecker
from tests.faults.harness.dialogue import (
    PROFILE,
    TOPIC,
    USER,
    Dialogue,
    open_dialogue,
    open_store,
    seed_earlier_conversation,
)
from tests.faults.harness.environment import PASSWORD, Environment, connections_to
from tests.faults.harness.faults import Fault
from tests.faults.harness.worker_setup import log_listener, worker_settings
from tests.inside import engine_of
from tests.real.redis.resp import RedisReplyError
from tests.wait import until

Phase = Literal["start", "middle"]
PHASES: tuple[Phase, ...] = ("start", "middle")
DEADLINE = 0.05
SLACK = 0.02
RECOVERY_LIMIT = 0.3
DURATION = (0.8, 1.1)
"""Range of seconds: longer than detection takes, and random so that faults end at any point of a retry."""
_RECOVERY_TIMEOUT = 4.0
_DELIVERY_TIMEOUT = 20.0
_UTTERANCES = ("I live in Oslo.", "What do you know about me?", "cache stats")


@dataclass
class ScenarioResult(Checks):
    """Measurements of one scenario."""

    fault: str
    phase: Phase
    greeted: bool = False
    answered: bool = False
    slowest: TimedCall = field(default_factory=lambda: TimedCall("none", 0.0, 0.0))
    slowest_scan: TimedCall = field(default_factory=lambda: TimedCall("none", 0.0, 0.0))
    recovery: float | None = None
    log_lines: list[str] = field(default_factory=list)
    log_leaks: int = 0
    errors: int = 0
    reads: int = 0
    wrong: list[str] = field(default_factory=list)
    stalled: float = 0.0
    stalled_by_machine: float = 0.0


async def run_scenario(
    fault: Fault, phase: Phase, directory: Path, seed: int = 1, duration: tuple[float, float] = DURATION
) -> ScenarioResult:
    """Run the scenario. Only errors of the scenario itself propagate; violations are in the result."""
    result = ScenarioResult(fault.name, phase)
    corruptible = (keys.profile(USER), *map(keys.profile, USERS))
    call_timer = CallTimer()
    async with Environment(directory, fault.route, corruptible) as env:
        with (
            worker_settings(REDIS_URL=env.url, COMPANION_HOME=str(directory / "home")),
            log_listener(partial(_on_log_record, result)),
            call_timer.running(),
        ):
            async with open_store() as store:
                await seed_earlier_conversation(store)
            await env.cli("SET", keys.profile(USER), PROFILE)  # cached by an earlier session and still valid
            before = asyncio.all_tasks()
            await _converse(fault, env, result, call_timer, seed, duration)
            leaked = {task.get_name() for task in asyncio.all_tasks() - before}
            result.check(not leaked, f"tasks leaked: {leaked}")
            await _check_store(result)
            result.check(not connections_to(env.port), "connections leaked")
    _evaluate(fault, result, call_timer)
    return result


async def _converse(
    fault: Fault,
    env: Environment,
    result: ScenarioResult,
    call_timer: CallTimer,
    seed: int,
    duration: tuple[float, float],
) -> None:
    if result.phase == "start":
        await fault.begin(env)
    async with open_dialogue() as dialogue:
        result.greeted = "Welcome back, Ada!" in dialogue.greeting and TOPIC in dialogue.greeting
        checker = ConsistencyChecker(await get_redis_cache(), seed)
        checker.start()
        if result.phase == "middle":
            await dialogue.say("I like chess.")
            await fault.begin(env)
        seconds = random.Random(f"{seed} {fault.name} {result.phase}").uniform(*duration)
        fault_timer = asyncio.create_task(asyncio.sleep(seconds), name="fault lasts")
        result.answered = await _answers(dialogue, result)
        await fault_timer
        await fault.end(env)
        with use_caller(Caller(USER)):
            result.recovery = await _recovery_time(call_timer)
        answer = await dialogue.say("What do you know about me?")
        result.check("Oslo" in answer, "the session forgets what the user said")
        await checker.stop()
        await _check_redis(env, checker, result)
        result.errors = engine_of(await get_redis_cache()).counters.connection_errors
        result.wrong += checker.wrong_values
        result.reads = checker.reads
    await env.stop_background()


async def _answers(dialogue: Dialogue, result: ScenarioResult) -> bool:
    answers = [await dialogue.say(words) for words in _UTTERANCES]
    if answers[1] and ("Oslo" not in answers[1] or "Ada" not in answers[1]):
        result.wrong.append(f"answer about the profile: {answers[1][:60]!r}")
    return all(answers)


async def _recovery_time(call_timer: CallTimer) -> float | None:
    """Seconds, without loop stalls, until a written value is read back and the profile is cached; None if never."""
    cache, began, number = await get_redis_cache(), time.perf_counter(), 0
    while time.perf_counter() - began < _RECOVERY_TIMEOUT:
        number += 1
        key = keys.temp("probe", str(number))
        profile = await get_user_profile_async()
        written = await cache.set(key, number, ttl=60) and await cache.get(key) == number
        if written and await cache.get(keys.profile(USER)) == profile:
            ended = time.perf_counter()
            return ended - began - call_timer.loop.stalled_between(began, ended)
        await asyncio.sleep(0.003)
    return None


async def _check_redis(env: Environment, checker: ConsistencyChecker, result: ScenarioResult) -> None:
    """Check that pending invalidations were delivered: Redis holds no outdated value.

    What the fault wrote stays until the cache reads it, and so it is read.
    """

    async def up_to_date() -> bool:
        stored = {key: await _stored(env, key) for key in checker.keys}
        for key, raw in stored.items():
            if raw is not None and not checker.is_versioned(key, raw):
                await checker.read(key)
        return all(checker.is_latest(key, raw) for key, raw in stored.items())

    try:
        await until(up_to_date, _DELIVERY_TIMEOUT)
    except AssertionError:
        result.wrong.append("an outdated value remains in Redis")


async def _stored(env: Environment, key: str) -> str | None:
    """The string in Redis; of another type, the server's words."""
    try:
        raw: str | None = await env.cli("GET", key)
        return raw
    except RedisReplyError as error:
        if "WRONGTYPE" not in str(error):
            raise
        return str(error)


async def _check_store(result: ScenarioResult) -> None:
    async with open_store() as store:
        profile = await store.get_profile(USER)
        said = [turn.text for turn in await store.recent_turns(USER, 100)]
    result.check("Oslo" in (profile or ""), "the profile was not stored")
    result.check(all(words in said for words in _UTTERANCES), "a user turn was not stored")


def _evaluate(fault: Fault, result: ScenarioResult, call_timer: CallTimer) -> None:
    result.slowest, result.slowest_scan = call_timer.slowest(), call_timer.slowest(per_step=True)
    result.stalled = call_timer.loop.total
    result.stalled_by_machine = call_timer.loop.total - call_timer.loop.cpu
    result.check(result.greeted, "no greeting, or a wrong one")
    result.check(result.answered, "no answer")
    slow, recovery = result.slowest, result.recovery
    result.check(slow.net <= DEADLINE + SLACK, f"{slow.name} took {slow.net * 1000:.0f} ms")
    result.check(recovery is not None and recovery <= RECOVERY_LIMIT, "no recovery in time")
    result.check(not result.wrong, "wrong values were served")
    if fault.visible:
        counted = result.errors or (fault.replaced and result.phase == "start")
        result.check(counted, "the counters do not show the fault")
        result.check(any("Warning" in line for line in result.log_lines), "the log does not show the fault")
    # One line at connection, two for each outage, and one for a problem that is no outage.
    result.check(len(result.log_lines) <= 2 + 2 * fault.transitions, f"{len(result.log_lines)} lines in the log")
    result.check(not result.log_leaks, "the log contains secrets")


def _on_log_record(result: ScenarioResult, record: logging.LogRecord) -> None:
    """Collect the cache's log lines from INFO up; check every record for secrets."""
    line = record.getMessage()
    if record.name == "cache" and record.levelno >= logging.INFO:
        result.log_lines.append(line)
    result.log_leaks += PASSWORD in line or any(words in line for words in (*_UTTERANCES, PROFILE))
