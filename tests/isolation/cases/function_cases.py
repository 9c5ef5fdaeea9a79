"""Cases over the public functions, with arguments that a tool or a hook might pass."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

from cache import LockUnavailable, keys
from companion import (
    Caller,
    current_caller,
    get_intelligent_first_message_instructions,
    get_user_profile_async,
    save_user_profile_async,
    use_caller,
)
from companion.conversation.turn_log import TurnLog
from companion.memory.context import (
    add_memory_async,
    get_conversation_summary_async,
    get_user_state_async,
    save_user_state_async,
    search_memories_async,
)
from companion.profile_lines import within_limit
from companion.runtime import get_runtime
from companion.store import Memory, StoreError, Turn
from companion.text import storable
from tests.isolation.fixture_data import CALLERS, marker
from tests.isolation.hostile.hostile_identities import hostile_identity, is_key_part
from tests.isolation.hostile.hostile_patterns import hostile_pattern, usable
from tests.isolation.hostile.hostile_texts import hostile_text, hostile_value
from tests.isolation.runner import BATCH, Runner

Operation = Callable[[Runner, "str | None", Random], Awaitable[Any]]
_NO_USERS = ("*", "", "me:*", "m?", None)


async def functions(runner: Runner, rng: Random, count: int) -> int:
    """With a caller in context, functions touch only that caller's data; without one, no user's data."""
    done = 0
    while done < count and not runner.timed_out:
        user = rng.choice((*CALLERS, None))
        async with runner.acting_as(user):
            for _ in range(min(BATCH, count - done)):
                operation = rng.choice(_OPERATIONS)
                await _run_case(runner, user, rng, operation)
                done += 1
    return done


async def _run_case(runner: Runner, user: str | None, rng: Random, operation: Operation) -> None:
    what = operation.__name__.strip("_")
    try:
        with use_caller(Caller(user) if user else None):
            reply = await operation(runner, user, rng)
    except Exception as problem:
        runner.record_crash(user, what, problem)
        return
    runner.check_shown(user, repr(reply), what)
    runner.check_unchanged(user, what)
    runner.check(current_caller() is None, user, what, "the caller context leaks")


async def _save_profile(runner: Runner, user: str | None, rng: Random) -> Any:
    text = hostile_text(marker(user or "me"), rng) if rng.random() < 0.8 else hostile_value(marker(user or "me"), rng)
    try:
        saved = await save_user_profile_async(text)  # type: ignore[arg-type] # the case under test
    except TypeError:
        runner.check(not isinstance(text, str), user, text, "refused")
        return None
    runner.check(saved is (user is not None), user, text, "saved or not?")
    if user is not None and saved:
        runner.data.profiles[user] = within_limit(storable(text))[0]
    return saved


async def _get_profile(runner: Runner, user: str | None, rng: Random) -> str:
    reply = await get_user_profile_async()
    runner.check(reply == (runner.data.profiles[user] if user else ""), user, reply, "differs from the saved profile")
    return reply


async def _greeting(runner: Runner, user: str | None, rng: Random) -> str:
    if user is None:
        return ""
    base = hostile_text(marker(user), rng)[:500]
    reply = await get_intelligent_first_message_instructions(user, base)
    return reply.removeprefix(base.rstrip())


async def _greeting_of_anything(runner: Runner, user: str | None, rng: Random) -> Any:
    identity = hostile_identity(marker("me"), rng)
    if is_key_part(identity):
        identity += "*"
    return await _refused(get_intelligent_first_message_instructions(identity, "Greet."))


async def _save_state(runner: Runner, user: str | None, rng: Random) -> Any:
    state = hostile_value(marker(user or "me"), rng)
    state = rng.choice((state, {"note": state}, {"conversations": state, "stage": state}, {1: 2}, {"n": float("nan")}))
    try:
        return await save_user_state_async(state)  # type: ignore[arg-type] # the case under test
    except (TypeError, ValueError):  # the store rejects values that are no JSON object
        return None


async def _get_state(runner: Runner, user: str | None, rng: Random) -> Any:
    return await get_user_state_async(), await get_conversation_summary_async()


async def _search(runner: Runner, user: str | None, rng: Random) -> Any:
    return await search_memories_async(hostile_text(marker(user or "me"), rng))


async def _remember(runner: Runner, user: str | None, rng: Random) -> Any:
    try:
        await add_memory_async(Memory(text=hostile_text(marker(user or "me"), rng), at=datetime.now(UTC)))
    except StoreError:
        runner.check(user is None, user, "remember", "not stored")


async def _cached_value(runner: Runner, user: str | None, rng: Random) -> Any:
    if user is None:
        return None
    value = hostile_value(marker(user), rng)
    await runner.cache.set(keys.settings(user), value, ttl=60)
    got = await runner.cache.get(keys.settings(user), "away")
    runner.check(got in (value, "away"), user, value, f"comes back as {got!r:.80}")
    return got


async def _invalidate(runner: Runner, user: str | None, rng: Random) -> Any:
    pattern = hostile_pattern(marker(user or "me"), rng)
    if user is None:
        return await _refused(runner.cache.clear_user_cache(rng.choice(_NO_USERS)))  # type: ignore[arg-type] # the case under test
    try:
        return await runner.cache.invalidate(pattern, user_id=user)
    except ValueError:
        runner.check(not usable(pattern), user, pattern, "refused")


async def _lock(runner: Runner, user: str | None, rng: Random) -> Any:
    part = hostile_identity(marker("me"), rng)
    if is_key_part(part):
        part += ":"

    async def hold() -> None:
        async with runner.cache.lock("user", part):
            raise AssertionError("held")

    return await _refused(hold())


async def _turn(runner: Runner, user: str | None, rng: Random) -> Any:
    log = TurnLog(Caller(user) if user else None, get_runtime().write_behind)
    log.add(Turn("user", hostile_text(marker(user or "me"), rng), datetime.now(UTC), log.conversation_id))
    unstored = await log.close()
    runner.check(unstored == 0, user, "turn", f"{unstored} turns are not stored")


async def _refused(work: Awaitable[Any]) -> Any:
    try:
        return await work
    except (keys.InvalidKeyPart, LockUnavailable):
        return None


_OPERATIONS: Final[tuple[Operation, ...]] = (
    *(_save_profile, _get_profile, _greeting, _greeting_of_anything, _save_state, _get_state),
    *(_search, _remember, _cached_value, _invalidate, _lock, _turn),
)
