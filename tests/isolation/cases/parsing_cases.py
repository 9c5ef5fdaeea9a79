"""Cases over parsing alone: identities, job metadata, key parts, and patterns (Redis' ``KEYS`` is the oracle)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

from cache import keys
from cache.coherence.glob import matches
from cache.coherence.pending import PendingPattern
from companion import Caller
from companion.identity import caller_from_identity, caller_from_metadata
from tests.isolation.fixture_data import BOOKKEEPING_KEYS, CALLERS, OPERATOR, marker, owns
from tests.isolation.hostile.hostile_identities import (
    SAFE,
    expected_user_id,
    hostile_identity,
    hostile_metadata,
    is_key_part,
)
from tests.isolation.hostile.hostile_patterns import hostile_pattern, usable
from tests.isolation.runner import Runner

_OPERATORS: Final = frozenset({OPERATOR})
_BUILDERS: Final[tuple[Callable[[Any], str], ...]] = (
    *(
        keys.profile,
        keys.greeting_instructions,
        keys.settings,
        keys.state,
        keys.summary,
        keys.user_prefix,
        keys.user_pattern,
    ),
    lambda part: keys.memory("me", part),
    lambda part: keys.memory(part, "7"),
    lambda part: keys.lock("user", part),
    lambda part: keys.lock(part, "me"),
    lambda part: keys.temp(part, "a"),
    lambda part: keys.temp("a", part),
)


async def identities(runner: Runner, rng: Random, count: int) -> int:
    """A participant's identity resolves to the user it names, or to no caller."""
    for number in range(count):
        identity = hostile_identity(marker("me"), rng)
        try:
            caller = caller_from_identity(identity, _OPERATORS)
        except Exception as problem:
            runner.record_crash("identity", identity, problem)
            continue
        _check_caller(runner, caller, expected_user_id(identity), identity)
        if not number % 500 and runner.timed_out:
            return number + 1
    return count


async def metadata(runner: Runner, rng: Random, count: int) -> int:
    """Job metadata resolves to the user it names; metadata that names none defers to the identity."""
    for number in range(count):
        text, (named, identity) = hostile_metadata(marker("me"), rng)
        try:
            says, caller = caller_from_metadata(text, _OPERATORS)
        except Exception as problem:
            runner.record_crash("metadata", text, problem)
            continue
        runner.check(says is named, "metadata", text, "names a user")
        _check_caller(runner, caller, expected_user_id(identity) if named else None, text)
        if not number % 500 and runner.timed_out:
            return number + 1
    return count


def _check_caller(runner: Runner, caller: Caller | None, user_id: str | None, source: object) -> None:
    expected = None if user_id is None else Caller(user_id, operator=user_id == OPERATOR)
    runner.check(caller == expected, "identity", source, f"is {expected}")


async def key_parts(runner: Runner, rng: Random, count: int) -> int:
    """A key part is accepted if it is safe, and otherwise rejected without being quoted in the error."""
    for number in range(count):
        part, build = hostile_identity(marker("me"), rng), rng.choice(_BUILDERS)
        harmless = is_key_part(part)
        try:
            key = build(part)
        except keys.InvalidKeyPart as problem:
            runner.check(not harmless and marker("me") not in str(problem), "key", part, "refused")
            continue
        except Exception as problem:
            runner.record_crash("key", part, problem)
            continue
        runner.check(harmless and set(key) <= SAFE | {":", "*"}, "key", part, "accepted")
        if not number % 500 and runner.timed_out:
            return number + 1
    return count


async def patterns(runner: Runner, rng: Random, count: int) -> int:
    """A pattern matches as in Redis, narrowed to the user's own keys, and for operators excludes reserved keys."""
    all_keys = sorted(runner.data.matching() - BOOKKEEPING_KEYS)  # which come and go
    done = 0
    while done < count and not runner.timed_out:
        generated = [hostile_pattern(marker("me"), rng) for _ in range(min(400, 2 * (count - done)))]
        sent = [pattern for pattern in generated if usable(pattern)][: min(200, count - done)]
        replies = runner.data.pipeline(("KEYS", pattern) for pattern in sent)
        for pattern, reply in zip(sent, replies, strict=True):
            matched, user = set(reply) - BOOKKEEPING_KEYS, rng.choice(CALLERS)
            got = {key for key in all_keys if matches(pattern, key)}
            runner.check(got == matched, "pattern", pattern, f"{sorted(got ^ matched)[:3]}")
            own = {key for key in all_keys if PendingPattern(pattern, user).reaches(key)}
            expected = {key for key in matched if key.startswith(f"user:{user}:")}
            runner.check(own == expected and all(owns(user, key) for key in own), user, pattern, "narrowed")
            reached = {key for key in all_keys if PendingPattern(pattern, None).reaches(key)}
            literal = pattern.startswith(keys.RESERVED)
            expected = {key for key in matched if literal or not key.startswith(keys.RESERVED)}
            runner.check(reached == expected, "operator", pattern, "reserved keys")
        done += len(sent)
    return done
