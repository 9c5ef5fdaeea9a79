"""The cache by itself, in a web service: it loads neither LiveKit nor Supabase.

$ pip install "fastapi[standard]"
$ fastapi dev fastapi_cache.py
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from livekit_companion.cache import InvalidKeyPart, close_redis_cache, get_redis_cache, keys

database: dict[str, dict[str, Any]] = {"ada": {"voice": "warm"}}  # yours


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    await get_redis_cache()  # connects now and not in the first request; goes on without Redis where there is none
    yield
    await close_redis_cache()


app = FastAPI(lifespan=lifespan)


@app.exception_handler(InvalidKeyPart)
async def refuse(_: Request, problem: Exception) -> JSONResponse:
    # A user id such as "*" would reach other keys, so that no key is made of it.
    return JSONResponse({"detail": "no such user id"}, status_code=422)


@app.get("/users/{user_id}/settings")
async def read_settings(user_id: str) -> dict[str, Any]:
    async def load() -> dict[str, Any] | None:
        return database.get(user_id)

    cache, key = await get_redis_cache(), keys.settings(user_id)
    # One load however many requests ask at once, in all processes. negative_ttl keeps "there is none" for a while.
    found: dict[str, Any] | None = await cache.get_or_load(key, load, ttl=key.ttl, negative_ttl=10)
    if found is None:
        raise HTTPException(404)
    return found


@app.put("/users/{user_id}/settings")
async def write_settings(user_id: str, settings: dict[str, Any]) -> dict[str, Any]:
    key = keys.settings(user_id)
    database[user_id] = settings  # the source of truth first,
    await (await get_redis_cache()).delete(key)  # then the copy: a load that began before is not stored
    return settings
