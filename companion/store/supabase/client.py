"""The road to Supabase: a client that survives cancelled calls, and whose errors and log lines tell no data."""

import asyncio
import json
import logging
import re
from collections.abc import Callable
from typing import Any, Protocol

import aiohttp
import httpx
from httpx_aiohttp import HttpxAiohttpClient
from supabase import AsyncClient, AsyncClientOptions

_KEEPALIVE_SECONDS = 300.0
_MAX_CONNECTIONS = 20
_ERROR_CODE = re.compile(r"[0-9A-Z]{5}|PGRST[0-9A-Z]{3}")


class Query(Protocol):
    """A request that postgrest has built and not yet sent."""

    async def execute(self) -> Any:
        """Sends it."""
        ...


class UnexpectedAnswer(Exception):
    """The server said success, with something else than what was asked for."""


class _Refused(Exception):
    """The server answered, but not with success. Holds the status and the error code, not the message."""


class SupabaseClient:
    """One connection pool to the project at `url`, made on first use. `timeout` (seconds) bounds each wait.

    Bound to the event loop that uses it first.
    """

    def __init__(self, url: str, key: str, timeout: float) -> None:
        self._url = url
        self._key = key
        self._timeout = timeout
        self.closed = False
        self._connecting = asyncio.Lock()
        self._http: httpx.AsyncClient | None = None
        self._client: AsyncClient | None = None

    async def execute(self, query: Callable[[AsyncClient], Query]) -> object:
        """What the server answered to `query`, which may be sent twice. Raises what the libraries below raise."""
        client = await self._connect()
        try:
            return (await query(client).execute()).data
        except httpx.TransportError as error:
            # A connection kept open for minutes may be closed by the other side just as it is used again.
            if not _connection_was_lost(error.__cause__):
                raise
        return (await query(client).execute()).data

    async def close(self) -> None:
        """Closes the connections. Calls under way fail."""
        self.closed = True
        if self._http is not None:
            await self._http.aclose()

    async def _connect(self) -> AsyncClient:
        async with self._connecting:
            if self._client is None:
                # In a thread: reading the certificate authorities takes tens of milliseconds.
                self._http = await asyncio.to_thread(_http_client, self._timeout)
                if self.closed:
                    raise ConnectionError("closed meanwhile")
                options = AsyncClientOptions(
                    httpx_client=self._http,
                    auto_refresh_token=False,
                    persist_session=False,
                    postgrest_client_retry=False,  # its retries sleep for seconds; who waits here decides
                )
                # The database's triggers know by it who writes: our own writes need not be told to our cache.
                options.headers["x-companion"] = "1"
                self._client = AsyncClient(self._url, self._key, options)
                logging.getLogger("httpx").addFilter(_hide_filters)
            return self._client


def _http_client(timeout: float) -> httpx.AsyncClient:
    # aiohttp below httpx: with httpx's own transport, cancelled requests use up its pool for good.
    return HttpxAiohttpClient(
        timeout=httpx.Timeout(timeout),
        limits=httpx.Limits(max_connections=_MAX_CONNECTIONS, keepalive_expiry=_KEEPALIVE_SECONDS),
        event_hooks={"response": [_check]},
    )


def _connection_was_lost(cause: BaseException | None) -> bool:
    if isinstance(cause, aiohttp.ClientConnectorError):  # there never was one
        return False
    return isinstance(cause, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError)


async def _check(response: httpx.Response) -> None:
    """Stops a bad answer before postgrest makes of it what it is not."""
    await response.aread()
    if response.is_success:
        # postgrest would take an empty body for an empty list, and so for an unknown user.
        if not response.content and "return=minimal" not in response.request.headers.get("Prefer", ""):
            raise UnexpectedAnswer
        return
    # postgrest's own error quotes the row, and forgets the status when the body says nothing.
    try:
        code = str(json.loads(response.content)["code"])
    except (ValueError, TypeError, LookupError):
        code = ""
    raise _Refused(f"HTTP {response.status_code}{f' {code}' if _ERROR_CODE.fullmatch(code) else ''}")


def reason_of(error: Exception) -> str:
    """What went wrong in a word or two, for a StoreError."""
    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, UnexpectedAnswer):
        return "unexpected answer"
    # httpx's name for it can mislead (a lost connection is a ConnectTimeout); the cause says what happened.
    cause = error.__cause__ if isinstance(error, httpx.TransportError) and error.__cause__ else error
    return "timeout" if isinstance(cause, TimeoutError) else type(cause).__name__


def _hide_filters(record: logging.LogRecord) -> bool:
    """Takes the query out of the PostgREST URLs that httpx logs: who is asked about is private."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            value.copy_with(query=None) if isinstance(value, httpx.URL) and "/rest/v1/" in value.path else value
            for value in record.args
        )
    return True
