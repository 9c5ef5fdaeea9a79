"""The soak test: starts sessions, injects faults, and periodically pauses both to measure."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.companion.processes import ensure_fork_server
from tests.faults.harness.call_timer import CallTimer
from tests.faults.harness.dialogue import open_dialogue
from tests.faults.harness.environment import Environment
from tests.faults.harness.worker_setup import worker_settings
from tests.soak.fault_injector import FaultInjector
from tests.soak.killed.killed_workers import KilledWorkers
from tests.soak.measures.counters import Counters
from tests.soak.measures.expected_state import ExpectedState
from tests.soak.measures.leak_check import OpenResources
from tests.soak.measures.log_capture import LogCapture
from tests.soak.measures.memory_use import Memory
from tests.soak.measures.submissions import recorded_profiles
from tests.soak.sessions.erasers import Erasers
from tests.soak.sessions.personas import Persona
from tests.soak.sessions.profile_writers import ProfileWriters
from tests.soak.sessions.user_session import SharedState, UserSession
from tests.wait import until

CALL_LIMIT: Final = 0.07
"""Seconds a call of the cache may take: the deadline and 20 ms."""
_MEASURE_INTERVAL: Final = 30.0
_DRAIN_TIMEOUT: Final = 15.0  # seconds for deferred writes after the last fault
_CLOSE_TIMEOUT: Final = 5.0  # seconds until closed resources must be released


@dataclass(frozen=True)
class SoakConfig:
    """Parameters of a soak test.

    Attributes:
        seconds: how long sessions are started.
        rate: sessions started per minute.
        seed: of all random choices.
        personas: number of personas; each has many sessions.
        initial_burst: sessions started at once at the beginning, more than ever run later: allocators reach their
            peak first, so that later measurements of memory are comparable.
        faults: names of the faults to inject; None for all.
        pause: range of seconds between two faults.
        duration: range of seconds that a fault lasts.
        pace: factor on the pauses between utterances.
        killed: workers in processes of their own that run at a time, and are killed.
    """

    seconds: float = 600.0
    rate: float = 200.0
    seed: int = 1
    personas: int = 150
    initial_burst: int = 40
    faults: Sequence[str] | None = None
    pause: tuple[float, float] = (0.5, 2.0)
    duration: tuple[float, float] = (1.0, 3.0)
    pace: float = 1.0
    killed: int = 2


@dataclass
class SoakResult:
    """Measurements of a soak test."""

    config: SoakConfig
    counters: Counters = field(default_factory=Counters)
    log: LogCapture = field(default_factory=LogCapture)
    call_timer: CallTimer = field(default_factory=lambda: CallTimer(CALL_LIMIT))
    memory: Memory = field(default_factory=lambda: Memory(0.0))
    faults: dict[str, int] = field(default_factory=dict)
    lost_turns: int = 0
    kills: int = 0
    promised: int = 0
    broken_promises: list[str] = field(default_factory=list)
    foreign_records: int = 0
    profile_lines: int = 0
    lost_lines: int = 0
    resurrected_lines: int = 0
    erasures: int = 0
    resurrected: int = 0
    not_remembered: int = 0
    leaked: list[str] = field(default_factory=list)
    took: float = 0.0


class Soak:
    """A running soak test."""

    def __init__(
        self,
        config: SoakConfig,
        env: Environment,
        expected: ExpectedState,
        result: SoakResult,
        progress: Callable[[str], None],
        killed: KilledWorkers,
    ):
        self._config = config
        self._env = env
        self._result = result
        self._counters = result.counters
        self._progress = progress
        self._killed = killed
        self._rng = random.Random(config.seed)
        self._personas = [Persona(number) for number in range(config.personas)]
        self._injector = FaultInjector(env, self._personas, random.Random(config.seed + 1), config.faults)
        self._shared = SharedState(expected, self._injector, result.counters, self._rng, config.pace)
        self._writers = ProfileWriters(random.Random(config.seed + 2), expected.texts_of)
        self._erasers = Erasers(random.Random(config.seed + 3), expected.everything_of)
        self._sessions: set[asyncio.Task[None]] = set()
        self._admission = asyncio.Event()
        self._began = 0.0

    async def run(self) -> None:
        """Run to the end. Only errors of the test itself propagate; violations are in the result."""
        self._began = time.monotonic()
        self._admission.set()
        injecting = asyncio.create_task(self._inject_faults(), name="fault injector")
        measuring = asyncio.create_task(self._measure_periodically(), name="measuring")
        over = asyncio.Event()
        writing = asyncio.create_task(self._writers.run(over.is_set), name="profile writers")
        killing = asyncio.create_task(self._killed.run(over.is_set), name="killing")
        erasing = asyncio.create_task(self._erasers.run(over.is_set), name="erasing")
        await self._start_sessions()
        over.set()
        await asyncio.gather(writing, killing, erasing)
        self._injector.stop()
        await injecting
        measuring.cancel()
        await asyncio.wait({measuring})
        await self._measure()
        await self._drain()
        self._result.faults = dict(self._injector.counts)
        self._result.took = time.monotonic() - self._began
        await self._check_foreign_data()

    async def _inject_faults(self) -> None:
        await self._injector.run(pause=self._config.pause, duration=self._config.duration)

    async def _start_sessions(self) -> None:
        gap = 60.0 / self._config.rate
        for persona in self._rng.sample(self._personas, self._config.initial_burst):
            self._start_session(persona)
        while (elapsed := time.monotonic() - self._began) < self._config.seconds:
            behind = self._counters.sessions * gap < elapsed  # starts were held back by a measurement
            await asyncio.sleep(gap * self._rng.uniform(0.5, 1.5) * (0.75 if behind else 1.0))
            await self._admission.wait()
            self._start_session(self._rng.choice(self._personas))

    def _start_session(self, persona: Persona) -> None:
        task = asyncio.create_task(UserSession(persona, self._shared).run(), name=f"session of {persona.user_id}")
        self._sessions.add(task)
        task.add_done_callback(self._session_ended)
        self._counters.peak_sessions = max(self._counters.peak_sessions, len(self._sessions))

    def _session_ended(self, task: asyncio.Task[None]) -> None:
        self._sessions.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._counters.failed += 1
            self._counters.add_example(f"a session failed: {problem!r}"[:300])

    async def _measure_periodically(self) -> None:
        while True:
            await asyncio.sleep(_MEASURE_INTERVAL)
            await self._measure()

    async def _measure(self) -> None:
        """Pause faults and new sessions, wait for running ones to end, and measure."""
        fault = self._injector.current
        async with self._injector.fault_free:
            self._admission.clear()
            await until(lambda: not self._sessions, 60.0)
            elapsed = time.monotonic() - self._began
            memory = self._result.memory
            size = memory.measure(elapsed).resident
            if memory.warm_at is None and self._injector.rounds:
                memory.warm_at = elapsed
            missing = self._shared.expected.missing()
            self._admission.set()
        self._progress(
            f"{elapsed:6.0f} s  {self._counters.sessions:5} sessions  {size / (1 << 20):6.1f} MB"
            f"  {missing:3} turns not yet stored  last fault: {fault or 'none'}"
        )

    async def _drain(self) -> None:
        """Run one more session without faults; deferred writes must then be stored."""
        async with open_dialogue("the last"):
            try:
                await until(lambda: not (self._missing() or self._killed.broken_promises()), _DRAIN_TIMEOUT)
            except AssertionError:
                self._result.lost_turns = self._shared.expected.missing()
        self._result.profile_lines = self._writers.lines
        self._result.lost_lines = self._writers.lost()
        self._result.resurrected_lines = self._writers.resurrected()
        self._result.erasures, self._result.not_remembered = self._erasers.erasures, self._erasers.lost()
        self._result.resurrected = self._erasers.resurrected()
        self._result.kills, self._result.promised = self._killed.kills, self._killed.promised
        self._result.broken_promises = self._killed.broken_promises()

    def _missing(self) -> int:
        erasers = self._erasers.resurrected() + self._erasers.lost()
        return self._shared.expected.missing() + self._writers.lost() + erasers

    async def _check_foreign_data(self) -> None:
        """Search the store and Redis for data under a wrong user."""
        self._result.foreign_records = self._shared.expected.foreign_records(self._personas) + self._erasers.crossed()
        for persona in self._personas:
            for value in await self._cached(persona.user_id):
                self._result.foreign_records += persona.finds_foreign_data_in(value)
        for user_id in self._erasers.users:
            for value in await self._cached(user_id):
                self._result.resurrected += self._erasers.returned(user_id, value)

    async def _cached(self, user_id: str) -> list[str]:
        """All values of a user in Redis, and the last good ones."""
        names = [*await self._env.cli("KEYS", f"user:{user_id}:*"), *await self._env.cli("KEYS", f"stale:*{user_id}:*")]
        return [str(await self._env.cli("GET", key)) for key in names if await self._env.cli("TYPE", key) == "string"]


async def soak(config: SoakConfig, directory: Path, progress: Callable[[str], None] = lambda line: None) -> SoakResult:
    """Run a soak test in ``directory`` and report ``progress`` line by line."""
    result = SoakResult(config, memory=Memory(config.seconds))
    async with Environment(directory, "proxy", []) as env:
        settings = {"REDIS_URL": env.url, "COMPANION_HOME": str(directory / "home")}
        with worker_settings(**settings), result.log.capture(), result.call_timer.running():
            async with open_dialogue("the-first"):  # loads modules, creates the database
                pass
            if config.killed:
                ensure_fork_server()  # it stays
            gc.collect()
            gc.freeze()  # as LiveKit does before a worker's first job
            before = OpenResources.now(env.port)
            with _expected_state(directory) as expected:
                users = [f"killed-{number}" for number in range(config.killed)]
                killed = KilledWorkers(users, directory / "home", env.url, random.Random(config.seed + 2))
                await Soak(config, env, expected, result, progress, killed).run()
            result.leaked = await _leaked(before, env.port)
    return result


async def _leaked(before: OpenResources, port: int) -> list[str]:
    try:
        await until(lambda: not OpenResources.now(port).leaked_since(before), _CLOSE_TIMEOUT)
    except AssertionError:
        return OpenResources.now(port).leaked_since(before)
    return []


@contextmanager
def _expected_state(directory: Path) -> Iterator[ExpectedState]:
    """The expected state, informed of every profile submitted for writing."""
    expected = ExpectedState(directory / "home" / "companion.db")
    try:
        with recorded_profiles(expected):
            yield expected
    finally:
        expected.close()
