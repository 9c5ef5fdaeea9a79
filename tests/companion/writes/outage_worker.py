"""A worker in a process of its own that the test feeds with utterances, and kills.

Commands: ``say COUNT`` (so many turns, the odd ones of the person), ``fact TEXT``, ``profile TEXT`` (each answered with
whether it is stored), ``take`` (the next turn is stored, and the process dies before it knows), ``replay`` (the spool;
answered with the number of writes stored), ``close``.
"""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

from companion import Caller, save_user_profile_async, use_caller
from companion.conversation.turn_log import TurnLog
from companion.memory.context import add_memory_async
from companion.runtime import Runtime as CompanionRuntime
from companion.runtime import close_runtime, set_runtime
from companion.store import Memory, SqliteStore, Turn
from companion.writes import queue
from tests.companion.processes import next_order

ADA = Caller("ada")


class _Silent(SqliteStore):
    """A store that takes no write, and says nothing."""

    async def add_turn(self, user_id: str, turn: Turn) -> None:
        await asyncio.Event().wait()


class _Deadly(SqliteStore):
    """A store whose process is killed after the commit, before the store's client knows of it."""

    async def add_turn(self, user_id: str, turn: Turn) -> None:
        await asyncio.sleep(0.6)  # so long that the write is spooled
        await super().add_turn(user_id, turn)
        os.kill(os.getpid(), signal.SIGKILL)


_STORES = {"": SqliteStore, "silent": _Silent, "deadly": _Deadly}


def work(orders: Connection, store: Path, home: Path, redis_url: str, kind: str) -> None:
    """Execute commands until the pipe is closed."""
    os.environ |= {
        "REDIS_URL": redis_url,
        "COMPANION_HOME": str(home),
        "CACHE_DEADLINE_MS": "1000",
        "CACHE_CONNECT_WAIT_MS": "5000",
    }
    asyncio.run(_work(orders, _STORES[kind](store)))


async def _work(orders: Connection, store: SqliteStore) -> None:
    queue.FIRST_TRY = 0.2  # type: ignore[misc]  # its callers are not what is tested
    runtime = set_runtime(CompanionRuntime(store=store))
    log = TurnLog(ADA, runtime.write_behind, "c")
    with use_caller(ADA):
        orders.send("ready")
        while order := await asyncio.to_thread(next_order, orders):
            what, _, text = order.partition(" ")
            answer: object = None
            match what:
                case "say":
                    for number in range(int(text)):
                        role = "assistant" if number % 2 else "user"
                        log.add(Turn(role, f"turn {number}", datetime.now(UTC), "c", id=f"t{number}"))
                case "fact":
                    answer = await add_memory_async(Memory(text, datetime.now(UTC)))
                case "profile":
                    answer = await save_user_profile_async(text, made_from="")
                case "replay":
                    answer = await runtime.write_behind.spool_replay.replay()
            orders.send(answer)
    await close_runtime()
