"""Injects faults of Redis and of the store, one after the other with pauses."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from cache import keys
from tests.faults.harness.environment import Environment
from tests.faults.harness.faults import FAULTS, Fault
from tests.soak.sessions.personas import Persona
from tests.soak.store_faults import STORE_FAULTS

_CORRUPTED: Final = 4  # profiles corrupted in Redis at a time
_BOTH_SHARE: Final = 0.15  # share of the faults of Redis with a simultaneous fault of the store
_RETENTION: Final = 60.0


async def _remove_ballast(env: Environment) -> None:
    """Remove the keys that only served to slow down loading."""
    await env.pipeline(*(("UNLINK", f"ballast:{number}") for number in range(350)))
    (env.server.directory / "dump.rdb").unlink(missing_ok=True)


async def _remove_corrupt(env: Environment) -> None:
    await env.pipeline(("UNLINK", *env.keys))


@dataclass
class _SlowRestart:
    """Restores the server's arguments after a slow restart, which changes them."""

    fault: Fault
    original_args: Sequence[str] = ()

    async def begin(self, env: Environment) -> None:
        self.original_args = list(env.server.args)
        await self.fault.begin(env)

    async def end(self, env: Environment) -> None:
        await self.fault.end(env)
        env.server.args = list(self.original_args)
        await _remove_ballast(env)


async def _dump(env: Environment) -> None:
    await env.cli("SAVE")


async def _restore_dump(env: Environment) -> None:
    """Kill Redis and restart it from the dump.

    Leases in the dump are removed: their holders are gone, and callers would wait three seconds for each.
    """
    await asyncio.to_thread(env.server.kill)
    await asyncio.to_thread(env.server.start)
    if leases := await env.cli("KEYS", "lease:*"):
        await env.cli("UNLINK", *leases)
    await env.grant_worker_access()
    (env.server.directory / "dump.rdb").unlink(missing_ok=True)


def _redis_faults() -> list[Fault]:
    selected = [Fault("restored from an old dump", _dump, _restore_dump)]
    for fault in FAULTS:
        if fault.route == "tls":
            continue
        if fault.name == "restarted, LOADING":
            loading = _SlowRestart(fault)
            fault = replace(fault, begin=loading.begin, end=loading.end)
        elif fault.name == "reply of 100 MB":  # the worker removes it only if the persona has a session in time
            fault = replace(fault, end=_remove_corrupt)
        selected.append(fault)
    return selected


class FaultInjector:
    """Injects faults until stopped.

    Args:
        env: the environment to inject them into.
        personas: users whose cached profiles may be corrupted.
        rng: decides order, times and durations.
        names: names of the faults to choose from; None for all.

    Attributes:
        current: name of the fault in effect; empty if none.
        counts: injections by fault.
        rounds: how often every fault has been injected.
        fault_free: lock held during a fault; holding it keeps faults away.
    """

    def __init__(
        self, env: Environment, personas: Sequence[Persona], rng: random.Random, names: Sequence[str] | None = None
    ) -> None:
        self.current = ""
        self.counts: Counter[str] = Counter()
        self.rounds = 0
        self.fault_free = asyncio.Lock()
        self._env = env
        self._personas = personas
        self._rng = rng
        self._redis = [fault for fault in _redis_faults() if names is None or fault.name in names]
        self._store = [fault for fault in STORE_FAULTS if names is None or fault.name in names]
        self._store_outages: deque[tuple[float, float]] = deque()
        self._store_outage_since: float | None = None
        self._stopped = False

    @property
    def during(self) -> str:
        """The fault in effect, for messages."""
        return self.current or "no fault"

    def store_failed_since(self, since: float) -> bool:
        """Whether the store had a fault at any time from ``since`` (``time.monotonic``) until now."""
        return self._store_outage_since is not None or any(end >= since for _, end in self._store_outages)

    def stop(self) -> None:
        """Stop after the fault in effect."""
        self._stopped = True

    async def run(self, *, pause: tuple[float, float], duration: tuple[float, float]) -> None:
        """Inject all faults in turn, reshuffled each round. ``pause`` and ``duration`` are ranges of seconds."""
        while not self._stopped:
            for fault in self._rng.sample(both := [*self._redis, *self._store], len(both)):
                await asyncio.sleep(self._rng.uniform(*pause))
                async with self.fault_free:
                    if self._stopped:
                        return
                    await self._inject(fault, self._rng.uniform(*duration))
            self.rounds += 1

    async def _inject(self, fault: Fault, seconds: float) -> None:
        if fault in self._store:
            await self._inject_into_store(fault, seconds)
            return
        present = [persona for persona in self._personas if persona.open_sessions] or list(self._personas)
        some = self._rng.sample(present, min(_CORRUPTED, len(present)))
        if fault.name == "reply of 100 MB":
            some = some[:1]
        self._env.keys = [keys.profile(persona.user_id) for persona in some]
        self._count(fault)
        await fault.begin(self._env)
        if self._store and self._rng.random() < _BOTH_SHARE:
            await self._inject_into_store(self._rng.choice(self._store), seconds)
        else:
            await asyncio.sleep(seconds)
        await fault.end(self._env)
        await self._env.stop_background()
        self.current = ""

    async def _inject_into_store(self, fault: Fault, seconds: float) -> None:
        before = self.current
        self._count(fault)
        self._store_outage_since = time.monotonic()
        await fault.begin(self._env)
        await asyncio.sleep(seconds)
        await fault.end(self._env)
        now = time.monotonic()
        self._store_outages.append((self._store_outage_since, now))
        while self._store_outages[0][1] < now - _RETENTION:
            self._store_outages.popleft()
        self._store_outage_since, self.current = None, before

    def _count(self, fault: Fault) -> None:
        self.current = f"{self.current} + {fault.name}" if self.current else fault.name
        self.counts[fault.name] += 1
