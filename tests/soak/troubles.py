"""One fault after the other, with pauses: those of Redis that one server can have and get over, and the store's."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from cache import keys
from tests.faults.environment import Environment
from tests.faults.faults import FAULTS, Fault
from tests.soak.people import Person
from tests.soak.store_faults import STORE_FAULTS

_SPOILT: Final = 4  # people whose profiles are spoilt in Redis at a time
_BOTH: Final = 0.15  # share of the faults of Redis during which the store has one too
_REMEMBERED: Final = 60.0


async def _remove_ballast(env: Environment) -> None:
    """What was only there to take long to load."""
    await env.pipeline(*(("UNLINK", f"ballast:{number}") for number in range(350)))
    (env.server.directory / "dump.rdb").unlink(missing_ok=True)


async def _remove_spoilt(env: Environment) -> None:
    await env.pipeline(("UNLINK", *env.keys))


@dataclass
class _Loading:
    """A restart that takes long, which needs other arguments than any other restart."""

    fault: Fault
    usual: Sequence[str] = ()

    async def begin(self, env: Environment) -> None:
        self.usual = list(env.server.args)
        await self.fault.begin(env)

    async def end(self, env: Environment) -> None:
        await self.fault.end(env)
        env.server.args = list(self.usual)
        await _remove_ballast(env)


async def _dump(env: Environment) -> None:
    await env.cli("SAVE")


async def _restore_dump(env: Environment) -> None:
    """Redis is killed, and comes back as it was when the dump was made.

    But for the leases: one that is in a dump is that of a leader who was killed, and others wait three seconds for it.
    """
    await asyncio.to_thread(env.server.kill)
    await asyncio.to_thread(env.server.start)
    if leases := await env.cli("KEYS", "lease:*"):
        await env.cli("UNLINK", *leases)
    await env.grant_worker_access()
    (env.server.directory / "dump.rdb").unlink(missing_ok=True)


def _of_redis() -> list[Fault]:
    chosen = [Fault("restored from an old dump", _dump, _restore_dump)]
    for fault in FAULTS:
        if fault.route == "tls":
            continue
        if fault.name == "restarted, LOADING":
            loading = _Loading(fault)
            fault = replace(fault, begin=loading.begin, end=loading.end)
        elif fault.name == "reply of 100 MB":  # the worker removes it, but only if the person calls in time
            fault = replace(fault, end=_remove_spoilt)
        chosen.append(fault)
    return chosen


class Troubles:
    """Makes trouble until stopped.

    Args:
        world: where.
        people: whose cached profiles may be spoilt.
        draw: decides what, when and for how long.
        names: those to choose from; None for all.

    Attributes:
        now: what is the matter at the moment; empty if nothing is.
        had: how often each was.
        rounds: how often all of them have been.
        calm: held while there is trouble: whoever holds it has peace.
    """

    def __init__(
        self, env: Environment, people: Sequence[Person], rng: random.Random, names: Sequence[str] | None = None
    ) -> None:
        self.now = ""
        self.had: Counter[str] = Counter()
        self.rounds = 0
        self.calm = asyncio.Lock()
        self._world = env
        self._people = people
        self._draw = rng
        self._redis = [fault for fault in _of_redis() if names is None or fault.name in names]
        self._store = [fault for fault in STORE_FAULTS if names is None or fault.name in names]
        self._away: deque[tuple[float, float]] = deque()
        self._away_since: float | None = None
        self._stopped = False

    def store_was_away(self, since: float) -> bool:
        """Whether the store had a fault at any time from ``since``, as ``time.monotonic`` told it, until now."""
        return self._away_since is not None or any(end >= since for _, end in self._away)

    def stop(self) -> None:
        """Go on until what is the matter is over, and no further."""
        self._stopped = True

    async def make(self, *, pause: tuple[float, float], duration: tuple[float, float]) -> None:
        """Everything in turn, in an order that is drawn anew each time. Durations are seconds, least and most."""
        while not self._stopped:
            for fault in self._draw.sample(both := [*self._redis, *self._store], len(both)):
                await asyncio.sleep(self._draw.uniform(*pause))
                async with self.calm:
                    if self._stopped:
                        return
                    await self._have(fault, self._draw.uniform(*duration))
            self.rounds += 1

    async def _have(self, fault: Fault, seconds: float) -> None:
        if fault in self._store:
            await self._have_in_store(fault, seconds)
            return
        present = [person for person in self._people if person.talks] or list(self._people)
        some = self._draw.sample(present, min(_SPOILT, len(present)))
        if fault.name == "reply of 100 MB":
            some = some[:1]
        self._world.keys = [keys.profile(person.user_id) for person in some]
        self._begin(fault)
        await fault.begin(self._world)
        if self._store and self._draw.random() < _BOTH:
            await self._have_in_store(self._draw.choice(self._store), seconds)
        else:
            await asyncio.sleep(seconds)
        await fault.end(self._world)
        await self._world.stop_background()
        self.now = ""

    async def _have_in_store(self, fault: Fault, seconds: float) -> None:
        before = self.now
        self._begin(fault)
        self._away_since = time.monotonic()
        await fault.begin(self._world)
        await asyncio.sleep(seconds)
        await fault.end(self._world)
        now = time.monotonic()
        self._away.append((self._away_since, now))
        while self._away[0][1] < now - _REMEMBERED:
            self._away.popleft()
        self._away_since, self.now = None, before

    def _begin(self, fault: Fault) -> None:
        self.now = f"{self.now} + {fault.name}" if self.now else fault.name
        self.had[fault.name] += 1
