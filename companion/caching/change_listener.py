"""Changes made elsewhere: when others write to the Supabase project, this worker's cache forgets what they touched.

One listener per worker, in its main process. How long after its commit a change is applied:

- Realtime works: about a second. (The listener needs 0.04 s, at p99 0.12 s; a hosted Realtime, when it was idle, reads
  the log every half second.)
- Realtime fails, is not there, or leaves the change out: at most `poll_interval` (30 s) later.
- The project does not answer, or no worker runs: as soon as it answers one again, at most `poll_interval` later.
- None of it, ever: when the value's TTL ends (a profile: 3600 s) and the project answers; until it does, the last good
  value stands in, for a day at most.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, NoReturn

import aiohttp
import httpx

from cache import RedisCache, keys

from .change_feed import Change, ChangeFeed, FeedFailed
from .realtime import ChangeNotifier, NotifierFailed, NotifierTiming

OnChange = Callable[[str, str], Awaitable[None]]

logger = logging.getLogger("companion")
_TOGETHER: Final = 20  # changes applied at the same time
_APPLY: Final = 10.0  # seconds for one


@dataclass(frozen=True, slots=True)
class ListenerTiming:
    """How often a listener does what. All in seconds.

    Attributes:
        poll_interval: without the bell, between two looks at what changed.
        confirm_after: after the bell, until a second look: it may ring before the change can be read.
        min_poll_gap: at least this between two looks, however often it rings.
        retry_first: about the first pause before Realtime is tried again; it doubles from failure to failure...
        retry_max: ...up to this.
        notifier: heartbeats, and how long to wait for answers.
    """

    poll_interval: float = 30.0
    confirm_after: float = 1.0
    min_poll_gap: float = 0.1
    retry_first: float = 1.0
    retry_max: float = 60.0
    notifier: NotifierTiming = field(default_factory=NotifierTiming)


class ChangeListener:
    """Calls `on_change` for what others change in the project at `url`, until it is stopped.

    Args:
        url: the project's address.
        key: its secret (service role) key.
        on_change: an async callable of the user id, as it stands in the database, and what changed (profile, turn,
            memory, summary or state). It may be called twice for one change. What it raises is logged by type, and
            the change then counts as applied.
        pace: how often to do what.
    """

    def __init__(self, url: str, key: str, on_change: OnChange, *, pace: ListenerTiming | None = None) -> None:
        self._pace = pace or ListenerTiming()
        self._feed = ChangeFeed(url, key)
        self._bell = ChangeNotifier(url, key, "companion_changes", self._pace.notifier)
        self._on_change = on_change
        self._rung = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._troubles: dict[str, set[str]] = {}

    def start(self) -> None:
        """Begin, in the running loop. Nothing that fails from here on is raised: it is logged and tried again."""
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="change-listener")

    async def stop(self) -> None:
        """End. Afterwards no task and no connection is left, and it may be started again."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.wait({running})

    async def _run(self) -> None:
        try:
            # In a thread: reading the certificate authorities takes tens of milliseconds.
            trusted = await asyncio.to_thread(httpx.create_ssl_context)
            connector = aiohttp.TCPConnector(ssl=trusted)
            async with aiohttp.ClientSession(connector=connector, trust_env=True) as http, asyncio.TaskGroup() as both:
                both.create_task(self._keep_listening(http), name="change-listener-bell")
                both.create_task(self._keep_looking(http), name="change-listener-feed")
        except Exception as problem:  # not the network's: that is dealt with below
            logger.error("changes made elsewhere are not looked for (%s)", type(problem).__name__)

    async def _keep_listening(self, http: aiohttp.ClientSession) -> NoReturn:
        now, failures = asyncio.get_running_loop().time, 0
        while True:
            began = now()
            try:
                await self._bell.listen(http, self._ring)
            except Exception as problem:  # whatever a network and a server can do, this goes on
                self._trouble("Realtime", "Realtime does not tell of them", problem)
            failures = 0 if now() - began > self._pace.retry_max else failures + 1
            await asyncio.sleep(self._pause(failures, self._pace.retry_max))

    def _ring(self) -> None:
        self._well("Realtime", "Realtime tells of them")
        self._rung.set()

    async def _keep_looking(self, http: aiohttp.ClientSession) -> NoReturn:
        failures = 0
        while True:
            rung = self._rung.is_set()
            self._rung.clear()
            try:
                await self._feed.read(http, self._apply)
            except Exception as problem:  # as above
                self._trouble("feed", "they cannot be read", problem)
                failures += 1
                await asyncio.sleep(self._pause(failures, self._pace.poll_interval))
                continue
            self._well("feed", "they can be read")
            failures = 0
            await asyncio.sleep(self._pace.min_poll_gap)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.confirm_after if rung else self._pace.poll_interval):
                    await self._rung.wait()

    def _pause(self, failures: int, longest: float) -> float:
        """Seconds to wait after so many failures in a row; never quite the same, so that workers do not march."""
        return min(longest, self._pace.retry_first * 2.0 ** min(failures - 1, 30)) * random.uniform(0.5, 1.0)

    async def _apply(self, changes: list[Change]) -> None:
        for first in range(0, len(changes), _TOGETHER):
            await asyncio.gather(*map(self._tell, changes[first : first + _TOGETHER]))

    async def _tell(self, change: Change) -> None:
        try:
            async with asyncio.timeout(_APPLY):
                await self._on_change(change.user_id, change.kind)
        except Exception as problem:
            logger.error("a change made elsewhere could not be applied (%s)", type(problem).__name__)

    def _well(self, about: str, text: str) -> None:
        """One line when things turn for the better, not one per try."""
        if self._troubles.get(about) != set():
            self._troubles[about] = set()
            logger.info("changes made elsewhere: %s; looked for every %g s", text, self._pace.poll_interval)

    def _trouble(self, about: str, text: str, problem: Exception) -> None:
        """One line for each new reason since things turned for the worse."""
        reason, told = _reason(problem), self._troubles.setdefault(about, set())
        if reason not in told:
            told.add(reason)
            logger.warning(
                "changes made elsewhere: %s (%s); looked for every %g s", text, reason, self._pace.poll_interval
            )


def _reason(problem: Exception) -> str:
    """What went wrong, in words without an address: that of Realtime has the key in it."""
    if isinstance(problem, NotifierFailed | FeedFailed):
        return str(problem)
    if isinstance(problem, aiohttp.WSServerHandshakeError):
        return f"HTTP {problem.status}"
    return "no answer in time" if isinstance(problem, TimeoutError) else type(problem).__name__


async def invalidate(cache: RedisCache, user_id: str, what: str) -> None:
    """Let `cache` forget what hangs on `what` of a user; of what it does not know, everything of the user.

    An id under which nothing can be cached is none of the cache's business.
    """
    try:
        keys.user_id(user_id)
    except keys.InvalidKeyPart:
        return
    greeting = keys.greeting_instructions(user_id)
    match what:
        case "profile":
            await cache.delete(keys.profile(user_id), greeting)
        case "turn":
            await cache.delete(greeting)
        case "summary":
            await cache.delete(keys.summary(user_id), greeting)
        case "state":
            await cache.delete(keys.state(user_id))
        case "memory":
            await cache.invalidate(f"{keys.user_prefix(user_id)}memory:*", user_id=user_id)
        case _:
            await cache.clear_user_cache(user_id)
