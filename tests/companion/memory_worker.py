"""A worker's memory in a process of its own, which does what it is told, line by line.

`save TEXT`, `read`, `watch` (read all the time), `seen` (stop that; every text there was), `save_and_die TEXT` (is
killed once the store has it and before the cache is told).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from companion import Caller, get_user_profile_async, save_user_profile_async, use_caller
from companion.delivery import Delivery
from companion.runtime import Runtime, close_runtime, set_runtime
from companion.store import SqliteStore


async def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _watch(seen: list[str]) -> None:
    while True:
        text = await get_user_profile_async()
        if seen[-1:] != [text]:
            seen.append(text)
        await asyncio.sleep(0.002)


async def main(store: Path) -> None:
    runtime = set_runtime(Runtime(store=SqliteStore(store)))
    runtime.delivery.start()
    seen: list[str] = []
    watching: asyncio.Task[None] | None = None
    with use_caller(Caller("ada")):
        await get_user_profile_async()
        print("ready", flush=True)
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            order, _, text = line.partition(" ")
            answer: object = None
            match order:
                case "save":
                    answer = await save_user_profile_async(text)
                case "read":
                    answer = await get_user_profile_async()
                case "save_and_die":
                    Delivery.changed = _die  # type: ignore[method-assign]
                    await save_user_profile_async(text)
                case "watch":
                    seen.clear()
                    watching = asyncio.create_task(_watch(seen))
                case "seen":
                    assert watching is not None
                    watching.cancel()
                    await asyncio.wait({watching})
                    answer = seen
            print(json.dumps(answer), flush=True)
    await close_runtime()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
