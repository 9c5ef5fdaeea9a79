"""One of the processes that miss a key concurrently: ``stampede_worker PROTECTION URL TASKS SECONDS``.

It sends "ready". For each key requested, all its tasks read it, and the reply holds the number of loads, the waiting
time of each task, the errors and wrong values, and the CPU seconds used.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from benchmarks.child import open_requests, reply
from benchmarks.stampede.protections import PROTECTIONS


async def main(protection: str, url: str, tasks: int, seconds: float) -> None:
    """Read each requested key until the parent closes the pipe."""
    async with PROTECTIONS[protection](url) as read:
        loads = 0

        async def load_slowly() -> Any:
            nonlocal loads
            loads += 1
            await asyncio.sleep(seconds)
            return {"made": "once"}

        async def wait_for(key: str) -> float:
            began = time.monotonic()
            if await read(key, load_slowly) != {"made": "once"}:
                raise ValueError("wrong value")
            return time.monotonic() - began

        await read(f"warm-up:{time.monotonic()}", lambda: asyncio.sleep(0, {"made": "once"}))
        requests = await open_requests()
        reply("ready")
        while line := await requests.readline():
            loads = 0
            key, cpu = json.loads(line), time.process_time()
            outcomes = await asyncio.gather(*(wait_for(key) for _ in range(tasks)), return_exceptions=True)
            waited = [outcome for outcome in outcomes if isinstance(outcome, float)]
            failed = [type(outcome).__name__ for outcome in outcomes if isinstance(outcome, BaseException)]
            reply({"loads": loads, "waited": waited, "failed": failed, "cpu": time.process_time() - cpu})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
