"""One of the processes that miss a key at the same moment: ``crowd PROTECTION URL TASKS SECONDS``.

It says "ready"; told a key, all its tasks ask for it, and it answers how often it loaded, how long each task waited,
who got an error or a wrong value, and the seconds of processor it took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from .child import listen, tell
from .protections import PROTECTIONS


async def main(protection: str, url: str, tasks: int, seconds: float) -> None:
    """Ask whenever told to, until the parent hangs up."""
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
                raise ValueError("a wrong value")
            return time.monotonic() - began

        await read(f"warm-up:{time.monotonic()}", lambda: asyncio.sleep(0, {"made": "once"}))
        parent = await listen()
        tell("ready")
        while line := await parent.readline():
            loads = 0
            key, cpu = json.loads(line), time.process_time()
            outcomes = await asyncio.gather(*(wait_for(key) for _ in range(tasks)), return_exceptions=True)
            waited = [outcome for outcome in outcomes if isinstance(outcome, float)]
            failed = [type(outcome).__name__ for outcome in outcomes if isinstance(outcome, BaseException)]
            tell({"loads": loads, "waited": waited, "failed": failed, "cpu": time.process_time() - cpu})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
