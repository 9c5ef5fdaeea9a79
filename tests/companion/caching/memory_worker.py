"""A worker's memory in a process of its own, controlled by commands.

`save TEXT`, `read`, `watch` (read continuously), `seen` (stop, and return every text read), `save_and_die TEXT` (the
process is killed after the write to the store and before the invalidation).
"""

from __future__ import annotations

import asyncio
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from companion import Caller, get_user_profile_async, save_user_profile_async, use_caller
from companion.caching.outbox_relay import OutboxRelay
from companion.runtime import Runtime, close_runtime, set_runtime
from companion.store import SqliteStore
from tests.companion.processes import next_order


def work(orders: Connection, store: Path, settings: dict[str, str]) -> None:
    """Execute commands until the pipe is closed."""
    os.environ.update(settings)
    asyncio.run(_work(orders, store))


async def _work(orders: Connection, store: Path) -> None:
    runtime = set_runtime(Runtime(store=SqliteStore(store)))
    runtime.outbox_relay.start()
    seen: list[str] = []
    watching: asyncio.Task[None] | None = None
    with use_caller(Caller("ada")):
        await get_user_profile_async()
        orders.send("ready")
        while order := await asyncio.to_thread(next_order, orders):
            what, _, text = order.partition(" ")
            answer: object = None
            match what:
                case "save":
                    answer = await save_user_profile_async(text)
                case "read":
                    answer = await get_user_profile_async()
                case "save_and_die":
                    OutboxRelay.invalidate_written = _die  # type: ignore[method-assign]  # after the write
                    await save_user_profile_async(text)
                case "watch":
                    seen.clear()
                    watching = asyncio.create_task(_watch(seen))
                case "seen":
                    assert watching is not None
                    watching.cancel()
                    await asyncio.wait({watching})
                    answer = seen
            orders.send(answer)
    await close_runtime()


async def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _watch(seen: list[str]) -> None:
    while True:
        text = await get_user_profile_async()
        if seen[-1:] != [text]:
            seen.append(text)
        await asyncio.sleep(0.002)
