"""A worker that runs conversations for the hit-rate replay: ``session_worker URL HOME``.

The companion's own functions run as at the start and the end of a real conversation, without voice and model. Requests
are ["start", user, whether to save the profile], ["end", user] and ["totals"]; the reply is null, or the reads and
loads of each key family, at starts and at ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.child import open_requests, reply
from benchmarks.conversations.slow_source import slow_runtime
from cache import RedisCache, close_redis_cache
from cache.registry import use_redis_cache
from companion import save_user_profile_async
from companion.conversation.briefing import Prefetch
from companion.conversation.turn_log import TurnLog
from companion.conversation.wrap_up import wrap_up
from companion.identity import Caller, use_caller
from companion.runtime import close_runtime, get_runtime
from companion.store import Turn

reads: Counter[str] = Counter()
loads: Counter[str] = Counter()
phase: ContextVar[str] = ContextVar("phase", default="start")


def count_reads_by_family() -> None:
    """Count every ``get_or_load`` and ``warm`` of this process and every load."""

    def counting(plain: Any) -> Any:
        async def counted(self: RedisCache, key: str, loader: Any, *args: Any, **named: Any) -> Any:
            read = f"{phase.get()} {key.split(':')[2]}"
            reads[read] += 1

            async def load() -> Any:
                loads[read] += 1
                return await loader()

            return await plain(self, key, load, *args, **named)

        return counted

    RedisCache.get_or_load = counting(RedisCache.get_or_load)  # type: ignore[method-assign]  # all lookups are here
    RedisCache.warm = counting(RedisCache.warm)  # type: ignore[method-assign]  # and all preparing


async def main(url: str, home: str) -> None:
    """Run conversations until the parent closes the pipe."""
    count_reads_by_family()
    slow_runtime(Path(home))
    await use_redis_cache(url)
    logs: dict[str, TurnLog] = {}
    requests = await open_requests()
    reply("ready")
    while line := await requests.readline():
        command, *rest = json.loads(line)
        if command == "start":
            await _start(logs, *rest)
            reply(None)
        elif command == "end":
            await _end(logs, *rest)
            reply(None)
        else:
            await close_redis_cache()  # flushes the counters to the shared statistics
            reply([reads, loads])
            await use_redis_cache(url)
    await close_redis_cache()
    await close_runtime()


async def _start(logs: dict[str, TurnLog], user: str, save: bool) -> None:
    phase.set("start")
    caller = Caller(user)
    await Prefetch(caller).result()
    log = logs[user] = TurnLog(caller, get_runtime().write_behind)
    log.add(Turn(role="user", text="Hello, it is me", at=datetime.now(UTC), conversation_id=log.conversation_id))
    if save:
        with use_caller(caller):
            await save_user_profile_async(f"Name: {user}\nSpoke at: {datetime.now(UTC)}")


async def _end(logs: dict[str, TurnLog], user: str) -> None:
    phase.set("end")
    log = logs.pop(user)
    await log.close()
    await wrap_up(Caller(user), log.conversation_id, log.turns)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
