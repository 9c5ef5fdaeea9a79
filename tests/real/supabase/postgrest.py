"""A stand-in for Supabase's data API: PostgREST's answers, from a real PostgreSQL, to the requests our code makes.

Keys, roles, row level security and error codes are as at Supabase. Unknown requests are answered with 501, so that no
test passes on a guess. `fault` reproduces failures of network and proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

import asyncpg
import httpx
import jwt
from aiohttp import web

from tests.real.supabase.phoenix import Phoenix
from tests.real.supabase.postgrest_sql import Refusal, call, insert, plain_name, read_json, select, unknown

Fault = Literal[
    "silent", "drip", "gone", "gone once", "504", "401", "html", "cut", "cut off", "empty", "broken row", "deadlock"
]

# PostgREST's mapping of SQLSTATEs to statuses, as far as these requests can cause them; by class where one is enough.
_STATUS = {"42501": 403, "42P01": 404, "42883": 404, "23503": 409, "23505": 409, "25006": 405, "57014": 500}
_STATUS_BY_CLASS = {"08": 503, "40": 500, "53": 503, "54": 500, "55": 500, "57": 500, "58": 500, "XX": 500}


@dataclass(frozen=True)
class Caller:
    """The identity of a request: a database role, and the claims that policies see."""

    role: str
    claims: dict[str, Any]


class PostgREST:
    """The API of one project on 127.0.0.1. Use as `async with`, or `start` and `stop` (again on the same port).

    `url` and the keys are those of the project; `requests` counts requests, and `bearers` are the tokens in their
    headers, None for none; `delay` (seconds) precedes every answer; `fault` is the fault in effect, None for none. With
    `realtime`, the project has Realtime too, at the same address. A list in an answer has at most `max_rows` rows, and
    nothing says that there are more.
    """

    def __init__(self, dsn: str, realtime: Phoenix | None = None, *, max_rows: int = 1000) -> None:
        self.secret_key = f"sb_secret_{secrets.token_urlsafe(16)}"
        self.publishable_key = f"sb_publishable_{secrets.token_urlsafe(16)}"
        self._signing_secret = secrets.token_hex(32)
        self.service_role_key = self.token("service_role")
        self.anon_key = self.token("anon")
        self.fault: Fault | None = None
        self.delay = 0.0
        self.requests = 0
        self.bearers: list[str | None] = []
        self.max_rows = max_rows
        self._dsn = dsn
        self._realtime = realtime
        self._port = 0
        self._pool: asyncpg.Pool | None = None
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def token(self, role: str, *, sub: str | None = None, seconds: float = 3600.0) -> str:
        """A JWT this project accepts: `sub` is the user of an authenticated one, `seconds` its validity."""
        claims: dict[str, Any] = {"role": role, "iss": "supabase", "exp": int(time.time() + seconds)}
        claims["aud"] = "authenticated"  # as Auth issues them; PostgREST checks it only if configured to
        return jwt.encode(claims | ({"sub": sub} if sub else {}), self._signing_secret, algorithm="HS256")

    def client(self, key: str, token: str | None = None) -> Any:
        """A supabase-py client with this key, and optionally a signed-in user's token."""
        from supabase import AsyncClient, AsyncClientOptions  # slow to import, and rarely needed

        options = AsyncClientOptions(
            httpx_client=httpx.AsyncClient(verify=False, event_hooks={"request": [] if token else [_drop_bearer]}),
            persist_session=False,
            auto_refresh_token=False,
            postgrest_client_retry=False,
        )
        if token:
            options.headers["Authorization"] = f"Bearer {token}"
        return AsyncClient(self.url, key, options)

    async def start(self) -> Self:
        self._pool = await asyncpg.create_pool(self._dsn, min_size=1, max_size=8)
        app = web.Application(client_max_size=64 * 1024 * 1024)
        if self._realtime is not None:
            app.router.add_get("/realtime/v1/websocket", self._ring)
            app.on_shutdown.append(self._realtime.close_all)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        """Refuse connections from now on."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._pool is not None:
            await self._pool.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @contextlib.contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """Put `fault` into effect for the length of a `with` block."""
        self.fault = fault
        try:
            yield
        finally:
            self.fault = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        await asyncio.sleep(self.delay)
        if self.fault is not None:
            spoilt = await _spoil(self, request)
            if spoilt is not None:
                return spoilt
        try:
            key = request.headers.get("apikey", "")
            bearer = request.headers.get("Authorization", "").removeprefix("Bearer ") or None
            self.bearers.append(bearer)
            return await self._serve(request, self._identify(key, bearer))
        except Refusal as refusal:
            return web.json_response(refusal.body, status=refusal.status)

    async def _ring(self, request: web.Request) -> web.StreamResponse:
        assert self._realtime is not None
        key = request.query.get("apikey", "")
        try:
            role = self._identify(key).role
        except Refusal as refusal:
            return web.json_response(refusal.body, status=refusal.status)
        return await self._realtime.serve(request, role, lambda token: self._identify(key, token).role)

    def _identify(self, key: str, bearer: str | None = None) -> Caller:
        """Check the key as the gateway does, then the token as PostgREST does: a key that is no token is not one."""
        opaque = {self.secret_key: "service_role", self.publishable_key: "anon"}
        if key not in (*opaque, self.service_role_key, self.anon_key):
            raise Refusal(401, None, "Invalid API key", hint="Double check your Supabase API key.")
        if bearer is None and key in opaque:
            return Caller(opaque[key], {"role": opaque[key]})
        token = bearer or key
        if token.count(".") != 2:
            raise Refusal(401, "PGRST301", f"Expected 3 parts in JWT; got {token.count('.') + 1}")
        try:
            claims = jwt.decode(token, self._signing_secret, algorithms=["HS256"], options={"verify_aud": False})
        except jwt.ExpiredSignatureError:
            raise Refusal(401, "PGRST303", "JWT expired") from None
        except jwt.InvalidTokenError:
            raise Refusal(401, "PGRST301", "No suitable key or wrong key type") from None
        return Caller(claims.get("role", "anon"), claims)

    async def _serve(self, request: web.Request, caller: Caller) -> web.Response:
        match request.method, request.path.strip("/").split("/"):
            case "GET", ["rest", "v1", table]:
                return await self._run(
                    request, caller, lambda db: select(db, plain_name(table), request, self.max_rows), readonly=True
                )
            case "POST", ["rest", "v1", "rpc", function]:
                arguments = await read_json(request) if await request.text() else {}
                work = partial(call, function=plain_name(function), arguments=arguments, max_rows=self.max_rows)
                return await self._run(request, caller, lambda db: work(db, request=request))
            case "POST", ["rest", "v1", table]:
                body = await read_json(request)
                return await self._run(request, caller, lambda db: insert(db, plain_name(table), body, request))
        raise unknown(f"{request.method} {request.path}")

    async def _run(
        self,
        request: web.Request,
        caller: Caller,
        work: Callable[[asyncpg.Connection], Coroutine[Any, Any, web.Response]],
        *,
        readonly: bool = False,
    ) -> web.Response:
        assert self._pool is not None
        try:
            async with self._pool.acquire() as db, db.transaction(readonly=readonly):
                headers = {name.lower(): value for name, value in request.headers.items()}
                await db.execute("select set_config('request.headers', $1, true)", json.dumps(headers))
                await db.execute("select set_config('request.jwt.claims', $1, true)", json.dumps(caller.claims))
                await db.execute(f"set local role {plain_name(caller.role)}")
                return await work(db)
        except asyncpg.PostgresError as error:
            state = error.sqlstate or "XX000"
            status = _STATUS.get(state) or _STATUS_BY_CLASS.get(state[:2], 400)
            if state.startswith("PT"):  # a function chooses the status
                status = int(state[2:])
            if state == "42501" and caller.role == "anon":
                status = 401
            raise Refusal(status, state, error.message, details=error.detail, hint=error.hint) from None


async def _drop_bearer(request: httpx.Request) -> None:
    """Leave out a key that is no token; supabase-py sends it as one."""
    if request.headers.get("Authorization", "").startswith("Bearer sb_"):
        del request.headers["Authorization"]


async def _spoil(server: PostgREST, request: web.Request) -> web.StreamResponse | None:
    """The answer that the fault causes; None if the request passes."""
    match server.fault:
        case "silent":
            await asyncio.Event().wait()
        case "drip":
            return await _drip(request)
        case "gone" | "gone once":
            if server.fault == "gone once":
                server.fault = None
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        case "504":
            return web.json_response({}, status=504)
        case "deadlock":
            details = "Process 1 waits for ShareLock on transaction 2; blocked by process 3."
            body = {"code": "40P01", "message": "deadlock detected", "details": details, "hint": "See server log."}
            return web.json_response(body, status=500)
        case "401":
            return web.json_response({"message": "Invalid API key", "hint": "Double check it."}, status=401)
        case "html":
            return web.Response(
                text="<html><body>Please log in to this network.</body></html>", content_type="text/html"
            )
        case "cut":
            return web.Response(text='[{"text":"the begin', content_type="application/json")
        case "cut off":
            return await _cut_off(request)
        case "empty":
            return web.Response(content_type="application/json")
        case "broken row":
            return web.json_response([{"text": None, "id": 7, "at": "yesterday", "role": "king"}])
    return None


async def _cut_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'[{"text":"the begin')
    assert request.transport is not None
    request.transport.close()
    return response


async def _drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)
