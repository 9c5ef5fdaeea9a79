"""A server in the place of a Supabase project, and a client as the store makes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from aiohttp import web
from httpx_aiohttp import HttpxAiohttpClient
from supabase import AsyncClient, AsyncClientOptions

SOON = 5.0
"""Seconds after which a test gives up."""


@dataclass
class Request:
    """One request as it arrived; the names of its headers in small letters."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


Answer = Callable[[Request], Awaitable[web.StreamResponse] | web.StreamResponse]


@dataclass
class Project:
    """A stand-in for a Supabase project: its address, a client, and what was asked."""

    url: str
    client: AsyncClient
    http: httpx.AsyncClient
    requests: list[Request] = field(default_factory=list)


def http_client(**options: Any) -> HttpxAiohttpClient:
    """As ``companion.store.supabase.client`` makes it."""
    limits = httpx.Limits(max_connections=2, keepalive_expiry=300.0)
    return HttpxAiohttpClient(timeout=httpx.Timeout(SOON), limits=limits, **options)


def supabase_client(url: str, http: httpx.AsyncClient) -> AsyncClient:
    """As ``companion.store.supabase.client`` makes it."""
    options = AsyncClientOptions(
        httpx_client=http, auto_refresh_token=False, persist_session=False, postgrest_client_retry=False
    )
    options.headers["x-companion"] = "1"
    return AsyncClient(url, "sb_secret_key", options)


@asynccontextmanager
async def project(answer: Answer, **options: Any) -> AsyncIterator[Project]:
    """A project that answers what ``answer`` says."""

    async def serve(request: web.Request) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text else None
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Request(request.method, request.path, dict(request.query), headers, body)
        running.requests.append(asked)
        result = answer(asked)
        return result if isinstance(result, web.StreamResponse) else await result

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    http = http_client(**options)
    running = Project(url, supabase_client(url, http), http)
    try:
        async with asyncio.timeout(SOON):
            yield running
    finally:
        await http.aclose()
        await runner.cleanup()


def says(data: object, status: int = 200) -> Answer:
    """The same JSON for every request."""
    return lambda _: web.json_response(data, status=status)


async def failure(awaitable: Awaitable[Any]) -> Exception:
    """What it raises."""
    try:
        result = await awaitable
    except Exception as problem:
        return problem
    raise AssertionError(f"nothing was raised, but {result!r} returned")
