"""One worker process of a stampede: many tasks that read the same key concurrently.

``python -m tests.cache.loading.stampede URL KEY TASKS SECONDS`` prints ``ready`` once connected, begins on the first
line of input, prints ``loading`` at each begin of its loader, and finally the result as JSON. It ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from cache import CacheSettings, RedisCache
from tests.inside import engine_of
from tests.wait import until


async def main(url: str, key: str, tasks: int, seconds: float) -> None:
    cache = RedisCache(settings=CacheSettings(url=url, url_is_default=False, deadline=2.0))
    await cache.initialize()
    await until(cache.health_check)
    await cache.exists(key)  # a node of a cluster is connected to when it is first needed
    await until(lambda: engine_of(cache).servers.tracks(key) and not cache.invalidations.undelivered)
    loads = 0

    async def loader() -> str:
        nonlocal loads
        loads += 1
        print("loading", flush=True)
        await asyncio.sleep(seconds)
        return "value"

    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    began = time.perf_counter()
    values = await asyncio.gather(*(cache.get_or_load(key, loader, ttl=60) for _ in range(tasks)))
    took = time.perf_counter() - began
    print(json.dumps({"loads": loads, "values": sorted(set(values)), "took": took}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await cache.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
