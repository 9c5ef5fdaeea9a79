"""The public functions, handed whatever a tool or a hook might hand them."""

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
from companion.store import Memory, StoreError, Turn
from companion.store.base import storable
from tests.isolation.identities import hostile_identity, who_it_is
from tests.isolation.patterns import hostile_pattern, usable
from tests.isolation.stage import BATCH, Stage
from tests.isolation.texts import hostile_text, hostile_value
from tests.isolation.town import CALLERS, mark

Doing = Callable[[Stage, "str | None", Random], Awaitable[Any]]
_NO_USERS = ("*", "", "me:*", "m?", None)


async def functions(stage: Stage, draw: Random, count: int) -> int:
    """Called for a caller they touch only what is his; called for nobody, nothing."""
    done = 0
    while done < count and not stage.over:
        user = draw.choice((*CALLERS, None))
        async with stage.turn_of(user):
            for _ in range(min(BATCH, count - done)):
                doing = draw.choice(_DOINGS)
                await _one(stage, user, draw, doing)
                done += 1
    return done


async def _one(stage: Stage, user: str | None, draw: Random, doing: Doing) -> None:
    what = doing.__name__.strip("_")
    try:
        with use_caller(Caller(user) if user else None):
            said = await doing(stage, user, draw)
    except Exception as problem:
        stage.crashed(user, what, problem)
        return
    stage.shows_nothing(user, repr(said), what)
    stage.unchanged(user, what)
    stage.expect(current_caller() is None, user, what, "a caller is left behind")


async def _save_profile(stage: Stage, user: str | None, draw: Random) -> Any:
    text = hostile_text(mark(user or "me"), draw) if draw.random() < 0.8 else hostile_value(mark(user or "me"), draw)
    try:
        saved = await save_user_profile_async(text)  # type: ignore[arg-type] # that is the case
    except TypeError:
        stage.expect(not isinstance(text, str), user, text, "refused")
        return None
    stage.expect(saved is (user is not None), user, text, "saved or not?")
    if user is not None and saved:
        stage.town.profiles[user] = storable(text)
    return saved


async def _get_profile(stage: Stage, user: str | None, draw: Random) -> str:
    said = await get_user_profile_async()
    stage.expect(said == (stage.town.profiles[user] if user else ""), user, said, "not the profile that was saved")
    return said


async def _greeting(stage: Stage, user: str | None, draw: Random) -> str:
    if user is None:
        return ""
    base = hostile_text(mark(user), draw)[:500]
    said = await get_intelligent_first_message_instructions(user, base)
    return said.removeprefix(base.rstrip())


async def _greeting_of_anything(stage: Stage, user: str | None, draw: Random) -> Any:
    identity = hostile_identity(mark("me"), draw)
    if isinstance(identity, str) and who_it_is(identity) is not None:
        identity += "*"
    return await _refused(get_intelligent_first_message_instructions(identity, "Greet."))


async def _save_state(stage: Stage, user: str | None, draw: Random) -> Any:
    state = hostile_value(mark(user or "me"), draw)
    state = draw.choice((state, {"note": state}, {"conversations": state, "stage": state}, {1: 2}, {"n": float("nan")}))
    try:
        return await save_user_state_async(state)  # type: ignore[arg-type] # that is the case
    except (TypeError, ValueError):  # as the store says of what is no JSON object
        return None


async def _get_state(stage: Stage, user: str | None, draw: Random) -> Any:
    return await get_user_state_async(), await get_conversation_summary_async()


async def _search(stage: Stage, user: str | None, draw: Random) -> Any:
    return await search_memories_async(hostile_text(mark(user or "me"), draw))


async def _remember(stage: Stage, user: str | None, draw: Random) -> Any:
    try:
        await add_memory_async(Memory(text=hostile_text(mark(user or "me"), draw), at=datetime.now(UTC)))
    except StoreError:
        stage.expect(user is None, user, "remember", "not stored")


async def _cached_value(stage: Stage, user: str | None, draw: Random) -> Any:
    if user is None:
        return None
    value = hostile_value(mark(user), draw)
    await stage.cache.set(keys.settings(user), value, ttl=60)
    got = await stage.cache.get(keys.settings(user), "away")
    stage.expect(got in (value, "away"), user, value, f"comes back as {got!r:.80}")
    return got


async def _invalidate(stage: Stage, user: str | None, draw: Random) -> Any:
    pattern = hostile_pattern(mark(user or "me"), draw)
    if user is None:
        return await _refused(stage.cache.clear_user_cache(draw.choice(_NO_USERS)))  # type: ignore[arg-type] # that is the case
    try:
        return await stage.cache.invalidate(pattern, user_id=user)
    except ValueError:
        stage.expect(not usable(pattern), user, pattern, "refused")


async def _lock(stage: Stage, user: str | None, draw: Random) -> Any:
    part = hostile_identity(mark("me"), draw)
    if isinstance(part, str) and who_it_is(part) is not None:
        part += ":"

    async def hold() -> None:
        async with stage.cache.lock("user", part):
            raise AssertionError("held")

    return await _refused(hold())


async def _turn(stage: Stage, user: str | None, draw: Random) -> Any:
    log = TurnLog(Caller(user) if user else None)
    log.add(Turn("user", hostile_text(mark(user or "me"), draw), datetime.now(UTC), log.conversation_id))
    left = await log.end()
    stage.expect(left == 0, user, "turn", f"{left} turns are not stored")


async def _refused(work: Awaitable[Any]) -> Any:
    try:
        return await work
    except (keys.InvalidKeyPart, LockUnavailable):
        return None


_DOINGS: Final[tuple[Doing, ...]] = (
    *(_save_profile, _get_profile, _greeting, _greeting_of_anything, _save_state, _get_state),
    *(_search, _remember, _cached_value, _invalidate, _lock, _turn),
)
