"""The cases in which nothing is sent anywhere: identities, job metadata, parts of keys, and patterns."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

from cache import keys
from cache.coherence.glob import matches
from cache.coherence.pending import reaches
from companion import Caller
from companion.identity import caller_from_identity, caller_from_metadata
from tests.isolation.identities import SAFE, hostile_identity, hostile_metadata, who_it_is
from tests.isolation.patterns import hostile_pattern, usable
from tests.isolation.stage import Stage
from tests.isolation.town import CALLERS, OPERATOR, mark, owns

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


async def identities(stage: Stage, draw: Random, count: int) -> int:
    """A participant's identity is the user it names, or nobody."""
    for number in range(count):
        identity = hostile_identity(mark("me"), draw)
        try:
            caller = caller_from_identity(identity, _OPERATORS)
        except Exception as problem:
            stage.crashed("identity", identity, problem)
            continue
        _is(stage, caller, who_it_is(identity), identity)
        if not number % 500 and stage.over:
            return number + 1
    return count


async def metadata(stage: Stage, draw: Random, count: int) -> int:
    """So is the user that a job's metadata names, and metadata that names nobody leaves it to the identity."""
    for number in range(count):
        text, (named, identity) = hostile_metadata(mark("me"), draw)
        try:
            says, caller = caller_from_metadata(text, _OPERATORS)
        except Exception as problem:
            stage.crashed("metadata", text, problem)
            continue
        stage.expect(says is named, "metadata", text, "named or not?")
        _is(stage, caller, who_it_is(identity) if named else None, text)
        if not number % 500 and stage.over:
            return number + 1
    return count


def _is(stage: Stage, caller: Caller | None, user_id: str | None, said: object) -> None:
    expected = None if user_id is None else Caller(user_id, operator=user_id == OPERATOR)
    stage.expect(caller == expected, "identity", said, f"is {expected}")


async def key_parts(stage: Stage, draw: Random, count: int) -> int:
    """What stands in a key between two colons is harmless, or refused without being repeated."""
    for number in range(count):
        part, build = hostile_identity(mark("me"), draw), draw.choice(_BUILDERS)
        harmless = isinstance(part, str) and 0 < len(part) <= keys.MAX_PART and set(part) <= SAFE
        try:
            key = build(part)
        except keys.InvalidKeyPart as problem:
            stage.expect(not harmless and mark("me") not in str(problem), "key", part, "refused")
            continue
        except Exception as problem:
            stage.crashed("key", part, problem)
            continue
        stage.expect(harmless and set(key) <= SAFE | {":", "*"}, "key", part, "accepted")
        if not number % 500 and stage.over:
            return number + 1
    return count


async def patterns(stage: Stage, draw: Random, count: int) -> int:
    """A pattern means what Redis says it means; to one user, only of his own keys; to an operator, none of ours."""
    everything = sorted(stage.town.names())
    done = 0
    while done < count and not stage.over:
        drawn = [hostile_pattern(mark("me"), draw) for _ in range(min(400, 2 * (count - done)))]
        sent = [pattern for pattern in drawn if usable(pattern)][: min(200, count - done)]
        replies = stage.town.many(("KEYS", pattern) for pattern in sent)
        for pattern, reply in zip(sent, replies, strict=True):
            meant, user = set(reply), draw.choice(CALLERS)
            got = {key for key in everything if matches(pattern, key)}
            stage.expect(got == meant, "pattern", pattern, f"{sorted(got ^ meant)[:3]}")
            own = {key for key in everything if reaches(pattern, user, key)}
            rightly = {key for key in meant if key.startswith(f"user:{user}:")}
            stage.expect(own == rightly and all(owns(user, key) for key in own), user, pattern, "narrowed")
            everybodys = {key for key in everything if reaches(pattern, None, key)}
            literal = pattern.startswith(keys.RESERVED)
            rightly = {key for key in meant if literal or not key.startswith(keys.RESERVED)}
            stage.expect(everybodys == rightly, "operator", pattern, "reserved keys")
        done += len(sent)
    return done
