"""One process of the fleet: many conversations, each with a cache of its own, as each has a process of its own.

``python -m benchmarks.fleet.fleet_worker URL NEAR FIRST COUNT`` obeys lines of JSON: ``"connect"``, ``{"turns": N,
"pause": SECONDS}``, ``"close"``. Between them its conversations are idle.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import sys
from typing import Any, Final

from benchmarks.child import open_requests, reply
from cache import CacheSettings, LockUnavailable, RedisCache, keys
from tests.wait import initialised

PROFILE: Final = (
    "Name: Ann\nLives in: Oslo\n" + "Likes: long walks by the sea, and the smell of rain on warm stones\n" * 6
)
GREETING: Final = {"opening": "follow_up", "last_seen": "2026-11-23T17:04:11+00:00", "topic": "how the move went"}
_AT_ONCE: Final = 20  # conversations that begin together


class Conversation:
    """The cache calls of one conversation.

    Args:
        url: of Redis.
        near: as ``CACHE_NEAR``.
        user: the caller's id.

    Attributes:
        wrong: answers that were not what was stored.
    """

    def __init__(self, url: str, near: str, user: str) -> None:
        environ = {"REDIS_URL": url, "CACHE_NEAR": near, "CACHE_CONNECT_WAIT_MS": "5000", "CACHE_DEADLINE_MS": "2000"}
        self.cache = RedisCache(settings=CacheSettings.from_env(environ=environ))
        self.user = user
        self.wrong = 0

    async def begin(self) -> None:
        await initialised(self.cache)

    async def talk(self, turns: int, pause: float) -> None:
        """The start, some turns, and the end, without closing: the job goes on."""
        cache, user = self.cache, self.user
        await asyncio.gather(
            self._read(keys.profile(user), PROFILE), self._read(keys.greeting_instructions(user), GREETING)
        )
        await asyncio.gather(
            self._read(keys.summary(user), "They spoke of Oslo."), self._read(keys.state(user), {"n": 3})
        )
        for _ in range(turns):
            await asyncio.sleep(pause)
            await self._read(keys.profile(user), PROFILE)
            await cache.delete(keys.greeting_instructions(user))  # a turn was stored
            await self._read(keys.greeting_instructions(user), GREETING)
        try:
            async with cache.lock("summary", user):
                await cache.set(keys.summary(user), "They spoke of Oslo.", ttl=keys.SUMMARY_TTL)
        except LockUnavailable:
            self.wrong += 1

    async def _read(self, key: keys.Key, value: Any) -> None:
        async def load() -> Any:
            return value

        self.wrong += await self.cache.get_or_load(key, load, ttl=key.ttl) != value


async def main(url: str, near: str, first: int, count: int) -> None:
    """Obey until the input ends."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    logging.getLogger("cache").setLevel(logging.CRITICAL)
    conversations = [Conversation(url, near, f"fleet-{number}") for number in range(first, first + count)]
    requests = await open_requests()
    while line := await requests.readline():
        match json.loads(line):
            case "connect":
                for start in range(0, count, _AT_ONCE):
                    await asyncio.gather(*(each.begin() for each in conversations[start : start + _AT_ONCE]))
            case "close":
                await asyncio.gather(*(each.cache.close() for each in conversations))
            case {"turns": turns, "pause": pause}:
                await asyncio.gather(
                    *(_later(each, number / count, turns, pause) for number, each in enumerate(conversations))
                )
        reply({"wrong": sum(each.wrong for each in conversations)})


async def _later(conversation: Conversation, share: float, turns: int, pause: float) -> None:
    """Conversations begin at different moments."""
    await asyncio.sleep(share * pause)
    await conversation.talk(turns, pause)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
