"""External changes: when other clients write to the Supabase project, this worker's cache is invalidated.

One listener per worker, in its main process. How long after its commit a change is applied:

- Realtime works: about a second. (The listener needs 0.04 s, at p99 0.12 s; a hosted Realtime that was idle reads the
  log every half second.)
- Realtime fails, is not there, or drops the change: at most ``poll_interval`` (30 s) later.
- The project does not answer, or no worker runs: at most ``poll_interval`` after it answers one again.
- None of it, ever: when the value's TTL ends (a profile: 3600 s) and the project answers; until then the last good
  value is served, for a day at most.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, NoReturn

import aiohttp
import httpx

from cache import BackgroundTasks

from ..store import explain_answer, explain_failure
from ..waiting import within
from .change_feed import Change, ChangeFeed, FeedFailed
from .realtime import ChangeNotifier, NotifierFailed, NotifierTiming, SubscriptionEnded

OnChange = Callable[[str, str], Awaitable[None]]

logger = logging.getLogger("companion")
_CONCURRENCY: Final = 20  # changes applied at the same time
_APPLY_TIMEOUT: Final = 10.0  # seconds for one change


@dataclass(frozen=True, slots=True)
class ListenerTiming:
    """The listener's intervals, in seconds.

    Attributes:
        poll_interval: between two polls of the feed without a notification.
        confirm_after: from a notification to a second poll: it may come before the change can be read.
        min_poll_gap: the least between two polls, however many notifications come.
        retry_first: about the first backoff before a failed connection or poll is retried; it doubles with every
            failure in a row.
        retry_max: the longest backoff before Realtime is retried.
        notifier: the notifier's own.
    """

    poll_interval: float = 30.0
    confirm_after: float = 1.0
    min_poll_gap: float = 0.1
    retry_first: float = 1.0
    retry_max: float = 60.0
    notifier: NotifierTiming = field(default_factory=NotifierTiming)


class ChangeListener:
    """Applies external changes of a Supabase project until it is stopped.

    Args:
        url: the project's address.
        key: its secret (service role) key.
        on_change: receives the user id, as the database holds it, and the kind of data that changed. The listener may
            call it twice for one change, and logs what it raises by type; the change then counts as applied.
        timing: intervals; the defaults where None.
    """

    def __init__(self, url: str, key: str, on_change: OnChange, *, timing: ListenerTiming | None = None) -> None:
        self._timing = timing or ListenerTiming()
        self._feed = ChangeFeed(url, key)
        self._notifier = ChangeNotifier(url, key, self._timing.notifier)
        self._on_change = on_change
        self._notified = asyncio.Event()
        self._running = BackgroundTasks()
        self._failures: dict[str, set[str]] = {}

    def start(self) -> None:
        """Begin, in the running loop. From here on every failure is logged and retried, none is raised."""
        if not len(self._running):
            self._running.spawn(self._run(), name="change-listener")

    async def stop(self) -> None:
        """End every task and connection. The listener may be started again."""
        await self._running.cancel()

    async def _run(self) -> None:
        try:
            # In a thread: reading the certificate authorities takes tens of milliseconds.
            trusted = await asyncio.to_thread(httpx.create_ssl_context)
            connector = aiohttp.TCPConnector(ssl=trusted)
            async with aiohttp.ClientSession(connector=connector, trust_env=True) as http, asyncio.TaskGroup() as both:
                both.create_task(self._keep_subscribed(http), name="change-listener-notifier")
                both.create_task(self._keep_polling(http), name="change-listener-feed")
        except Exception as problem:  # a defect: failures of the network are handled in the two tasks
            logger.error("external changes: the listener has stopped (%s)", type(problem).__name__)

    async def _keep_subscribed(self, http: aiohttp.ClientSession) -> NoReturn:
        now, failures = asyncio.get_running_loop().time, 0
        while True:
            began = now()
            try:
                await self._notifier.listen(http, self._notify)
            except SubscriptionEnded as end:
                logger.debug("external changes: %s; subscribing again", end)
            except Exception as problem:  # whatever a network and a server may do, the listener retries
                self._log_failure("Realtime", "Realtime does not notify", problem)
            failures = 0 if now() - began > self._timing.retry_max else failures + 1
            await asyncio.sleep(self._backoff(failures, self._timing.retry_max))

    def _notify(self) -> None:
        self._log_success("Realtime", "Realtime notifies")
        self._notified.set()

    async def _keep_polling(self, http: aiohttp.ClientSession) -> NoReturn:
        failures = 0
        while True:
            notified = self._notified.is_set()
            self._notified.clear()
            try:
                await self._feed.read(http, self._apply)
            except Exception as problem:  # as above
                self._log_failure("feed", "the feed cannot be read", problem)
                failures += 1
                await asyncio.sleep(self._backoff(failures, self._timing.poll_interval))
                continue
            self._log_success("feed", "the feed can be read")
            failures = 0
            await asyncio.sleep(self._timing.min_poll_gap)
            await within(self._notified.wait(), self._timing.confirm_after if notified else self._timing.poll_interval)

    def _backoff(self, failures: int, longest: float) -> float:
        """Seconds before the next try: exponential, with jitter, so that workers do not retry in step."""
        return min(longest, self._timing.retry_first * 2.0 ** min(failures - 1, 30)) * random.uniform(0.5, 1.0)

    async def _apply(self, changes: list[Change]) -> None:
        for first in range(0, len(changes), _CONCURRENCY):
            await asyncio.gather(*map(self._apply_one, changes[first : first + _CONCURRENCY]))

    async def _apply_one(self, change: Change) -> None:
        try:
            async with asyncio.timeout(_APPLY_TIMEOUT):
                await self._on_change(change.user_id, change.kind)
        except Exception as problem:
            logger.error("an external change could not be applied (%s)", type(problem).__name__)

    def _log_success(self, part: str, text: str) -> None:
        """One line when a part first works or works again, not one for every try."""
        if self._failures.get(part) != set():
            self._failures[part] = set()
            logger.info("external changes: %s; polling every %g s", text, self._timing.poll_interval)

    def _log_failure(self, part: str, text: str, problem: Exception) -> None:
        """One line for each new reason since the part last worked."""
        reason, logged = _reason(problem), self._failures.setdefault(part, set())
        if reason not in logged:
            logged.add(reason)
            logger.warning("external changes: %s (%s); polling every %g s", text, reason, self._timing.poll_interval)


def _reason(problem: Exception) -> str:
    """What failed, without an address: that of Realtime contains the key."""
    if isinstance(problem, NotifierFailed | FeedFailed):
        return str(problem)
    if isinstance(problem, aiohttp.WSServerHandshakeError):
        return explain_answer(problem.status, b"")
    return "no answer in time" if isinstance(problem, TimeoutError) else explain_failure(problem)
