"""A worker with near caches in a process of its own, in which a conversation of one person goes on.

Commands: ``begin`` (a conversation), ``read`` (everything, into Redis and the near cache), ``say TEXT`` (a turn),
``fact TEXT``, ``profile TEXT`` (each answered with whether it is stored), ``near`` (what the near cache and the queues
of this process hold), ``erase`` (answered with whether it is complete), ``replay``, ``die STEP`` (the next erasure ends
in SIGKILL after that step).
"""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import uuid4

from cache import get_redis_cache
from companion import Caller, get_user_profile_async, save_user_profile_async, use_caller
from companion.conversation.opening.greeting import get_intelligent_first_message_instructions
from companion.conversation.turn_log import TurnLog
from companion.memory.context import add_memory_async, get_conversation_summary_async, get_user_state_async
from companion.memory.erasure import erase_user
from companion.memory.facts import find_facts_async
from companion.runtime import Runtime, close_runtime, set_runtime
from companion.store import Memory, SqliteStore, Turn
from companion.store.sqlite.thread import SqliteThread
from companion.writes import Spool, queue
from companion.writes.spool.wishes import Wishes
from tests.companion.processes import next_order
from tests.inside import engine_of

STEPS = ("wish", "spool", "store", "scrub", "cache", "acknowledged")
"""What the process has just done when it dies."""


def work(orders: Connection, store: Path, home: Path, redis_url: str) -> None:
    """Execute commands until the pipe is closed."""
    os.environ |= {
        "REDIS_URL": redis_url,
        "COMPANION_HOME": str(home),
        "CACHE_DEADLINE_MS": "1000",
        "CACHE_CONNECT_WAIT_MS": "5000",
        "CACHE_NEAR": "profile,settings,state,greeting",
    }
    asyncio.run(_work(orders, SqliteStore(store)))


async def _work(orders: Connection, store: SqliteStore) -> None:
    queue.FIRST_TRY = 0.2  # type: ignore[misc]  # its callers are not what is tested
    runtime = set_runtime(Runtime(store=store))
    caller = Caller("ada")
    log = TurnLog(None, runtime.write_behind)
    orders.send("ready")
    while order := await asyncio.to_thread(next_order, orders):
        what, _, text = order.partition(" ")
        answer: object = None
        if what == "begin":
            caller = Caller("ada")
            log = TurnLog(caller, runtime.write_behind)
        with use_caller(caller):
            match what:
                case "read":
                    await asyncio.gather(
                        get_user_profile_async(),
                        get_conversation_summary_async(),
                        get_user_state_async(),
                        find_facts_async(text),
                        get_intelligent_first_message_instructions("ada", ""),
                    )
                    answer = await get_user_profile_async()
                case "say":
                    log.add(Turn("user", text, datetime.now(UTC), log.conversation_id, id=uuid4().hex))
                case "fact":
                    answer = await add_memory_async(Memory(text, datetime.now(UTC)))
                case "profile":
                    answer = await save_user_profile_async(text, made_from="")
                case "near":
                    near, writes = engine_of(await get_redis_cache()).near.entries, runtime.write_behind
                    answer = repr((near, writes.pending_profile("ada"), writes.waiting_facts("ada")))
                case "erase":
                    answer = await erase_user("ada")
                case "replay":
                    answer = await runtime.write_behind.spool_replay.replay()
                case "die":
                    _die_after(text)
        orders.send(answer)
    await close_runtime()


def _die_after(step: str) -> None:
    """Replace what does a step by something that ends the process after it."""
    where: dict[str, tuple[Any, str]] = {
        "wish": (Wishes, "add"),
        "spool": (Spool, "erase"),
        "store": (SqliteThread, "change"),
        "scrub": (SqliteStore, "erase_user"),
        "cache": (SqliteStore, "register_cache"),
        "acknowledged": (SqliteStore, "acknowledge_erasure"),
    }
    owner, name = where[step]
    method = getattr(owner, name)

    def at_once(*args: Any, **more: Any) -> None:
        method(*args, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    async def later(*args: Any, **more: Any) -> None:
        await method(*args, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, later if asyncio.iscoroutinefunction(method) else at_once)
