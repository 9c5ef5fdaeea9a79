"""A worker that holds conversations for the hit-rate replay: ``conversations URL HOME``.

The companion's own functions do what they do at the start and at the end of a real conversation; only the voice and
the model are missing. Told ["start", user, save the profile?], ["end", user] or ["totals"], it answers when that is
done: with nothing, or with how often each family of keys was asked for and had to be loaded, at starts and at ends.
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

from cache import RedisCache, close_redis_cache
from cache.registry import use_redis_cache
from companion import save_user_profile_async
from companion.conversation.briefing import Prefetch
from companion.conversation.turn_log import TurnLog
from companion.conversation.wrap_up import wrap_up
from companion.identity import Caller, use_caller
from companion.runtime import close_runtime, get_runtime
from companion.store import Turn

from .child import listen, tell
from .far_source import far_runtime

asked: Counter[str] = Counter()
loaded: Counter[str] = Counter()
phase: ContextVar[str] = ContextVar("phase", default="start")


def count_by_family() -> None:
    """Let every ``get_or_load`` of this process be counted."""
    plain = RedisCache.get_or_load

    async def counted(self: RedisCache, key: str, loader: Any, *args: Any, **named: Any) -> Any:
        read = f"{phase.get()} {key.split(':')[2]}"
        asked[read] += 1

        async def load() -> Any:
            loaded[read] += 1
            return await loader()

        return await plain(self, key, load, *args, **named)

    RedisCache.get_or_load = counted  # type: ignore[method-assign]  # the one place that all reads come through


async def main(url: str, home: str) -> None:
    """Hold conversations until the parent hangs up."""
    count_by_family()
    far_runtime(Path(home))
    await use_redis_cache(url)
    logs: dict[str, TurnLog] = {}
    parent = await listen()
    tell("ready")
    while line := await parent.readline():
        what, *rest = json.loads(line)
        if what == "start":
            await _start(logs, *rest)
            tell(None)
        elif what == "end":
            await _end(logs, *rest)
            tell(None)
        else:
            await close_redis_cache()  # the last counters go to the fleet's statistics
            tell([asked, loaded])
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
