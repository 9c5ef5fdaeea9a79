"""Cases over erasures: what a person said does not come back, and nothing of others changes."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

from companion import Caller, save_user_profile_async, use_caller
from companion.conversation.turn_log import TurnLog
from companion.memory.context import add_memory_async
from companion.memory.erasure import erase_user, export_user
from companion.runtime import get_runtime
from companion.store import Memory, Turn
from tests.isolation.fixture_data import CALLERS, USERS, marker
from tests.isolation.hostile.hostile_identities import hostile_identity
from tests.isolation.hostile.hostile_texts import hostile_text
from tests.isolation.runner import Runner


async def erasures(runner: Runner, rng: Random, count: int) -> int:
    """A person is erased in the middle of a conversation, with a hostile text on the way; or a hostile id is."""
    done = 0
    while done < count and not runner.timed_out:
        user = rng.choice((*CALLERS, None))
        async with runner.acting_as(user):
            try:
                await (_person(runner, user, rng) if user else _hostile_id(runner, rng))
            except Exception as problem:
                runner.record_crash(user, "erasure", problem)
        done += 1
    return done


async def _person(runner: Runner, user: str, rng: Random) -> None:
    writes = get_runtime().write_behind
    with use_caller(Caller(user)) as caller:
        log = TurnLog(caller, writes)
        await _say(log, user, rng)
        if rng.random() < 0.2:
            runner.kill_connections()
        complete = await erase_user(user)
        runner.check(complete or not runner.undisturbed, user, "erasure", "not complete")
        await _say(log, user, rng)  # the conversation goes on
        await log.close()
    await runner.settle()
    await get_runtime().outbox_relay.erasures.deliver_pending()
    left = repr(await export_user(user))
    runner.check(marker(user) not in left, user, "erasure", f"in the store again: {left:.200}")
    cached = [key for key in runner.data.matching(f"*{user}:*") if marker(user) in str(runner.data.dump().get(key))]
    runner.check(
        not [key for key in cached if key.startswith((f"user:{user}:", f"stale:{{user:{user}:"))],
        user,
        "erasure",
        f"cached: {cached}",
    )
    with use_caller(Caller(user)) as caller:  # they call again
        runner.check(await save_user_profile_async(f"Name: {marker(user)}"), user, "erasure", "not remembered anew")
    runner.check_unchanged(user, "erasure")


async def _say(log: TurnLog, user: str, rng: Random) -> None:
    at, text = datetime.now(UTC), f"{marker(user)} {hostile_text(marker(user), rng)}"
    log.add(Turn("user", text, at, log.conversation_id))
    await add_memory_async(Memory(text, at))
    await save_user_profile_async(text[:500])


async def _hostile_id(runner: Runner, rng: Random) -> None:
    identity = hostile_identity(marker("me"), rng)
    if isinstance(identity, str) and identity not in USERS:
        await erase_user(identity)
        await export_user(identity)
        runner.check_unchanged(None, identity)
