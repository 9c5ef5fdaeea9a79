"""The HTTP client of the Supabase store: survives cancelled calls, and keeps data out of errors and log lines."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

import aiohttp
import httpx
from httpx_aiohttp import HttpxAiohttpClient
from supabase import AsyncClient, AsyncClientOptions

from ..forgetting import known_to_be_forgotten
from .api_key import is_bearer_token
from .diagnosis import error_code, explain_answer, explain_failure

_KEEPALIVE_SECONDS = 300.0
_MAX_CONNECTIONS = 20
_RETRIES = 2
# The transaction was the victim of a deadlock, or could not be serialised: PostgreSQL has undone it, to be sent again.
_ROLLED_BACK = frozenset({"40P01", "40001"})


class Query(Protocol):
    """A request that postgrest has built and not sent yet."""

    async def execute(self) -> Any:
        """Send it."""
        ...


class UnexpectedAnswer(Exception):
    """The server answered with success, but not with what was asked for."""


class _Refused(Exception):
    """The server answered with an error. The text says what it means, without the server's message."""


class _RolledBack(_Refused):
    """Another transaction was in the way; sent at once, the request has every chance."""


class SupabaseClient:
    """A connection pool to a Supabase project, opened on first use, in the event loop that uses it first.

    Args:
        url: the project's address.
        key: its secret key.
        timeout: seconds for each step of a request.

    Attributes:
        closed: whether ``close`` was called.
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
        """Send a request, which may be repeated.

        It is sent again at once, twice at most, if its connection turns out to be closed, or if the database has undone
        it in favour of another transaction (one that is open in an SQL editor, say).

        Args:
            query: builds the request.

        Returns:
            The data of the answer.

        Raises:
            UnexpectedAnswer: the server answered with success and an empty body.
            Exception: whatever the libraries below raise.
        """
        client = await self._connect()
        for _ in range(_RETRIES):
            try:
                return (await query(client).execute()).data
            except _RolledBack:
                pass
            except httpx.TransportError as error:
                # The server may close an idle connection at the moment it is used again.
                if not _connection_was_lost(error.__cause__):
                    raise
        return (await query(client).execute()).data

    async def close(self) -> None:
        """Close the connections. Requests in flight fail."""
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
                    postgrest_client_retry=False,  # its retries sleep for seconds, past the store's timeout
                )
                # The database's triggers recognise the companion's writes by it: those are no external changes.
                options.headers["x-companion"] = "1"
                self._client = AsyncClient(self._url, self._key, options)
                logging.getLogger("httpx").addFilter(_hide_filters)
            return self._client


def _http_client(timeout: float) -> httpx.AsyncClient:
    # aiohttp below httpx: cancelled requests leak connections of httpx's own transport until its pool is exhausted.
    return HttpxAiohttpClient(
        timeout=httpx.Timeout(timeout),
        limits=httpx.Limits(max_connections=_MAX_CONNECTIONS, keepalive_expiry=_KEEPALIVE_SECONDS),
        event_hooks={"request": [_send_as_key], "response": [_check]},
    )


def _connection_was_lost(cause: BaseException | None) -> bool:
    if isinstance(cause, aiohttp.ClientConnectorError):  # none was established
        return False
    return isinstance(cause, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError)


async def _send_as_key(request: httpx.Request) -> None:
    """Leave a key that is no token out of the header for tokens, into which supabase-py puts every key."""
    if not is_bearer_token(request.headers.get("Authorization", "").removeprefix("Bearer ")):
        del request.headers["Authorization"]


async def _check(response: httpx.Response) -> None:
    """Raise for an answer that postgrest would misread."""
    await response.aread()
    if response.is_success:
        # postgrest would take an empty body for an empty list, which means an unknown user.
        if not response.content and "return=minimal" not in response.request.headers.get("Prefer", ""):
            raise UnexpectedAnswer
        return
    # postgrest's own error quotes the row, and drops the status where the body is not JSON.
    refused = _RolledBack if error_code(response.content) in _ROLLED_BACK else _Refused
    raise refused(explain_answer(response.status_code, response.content))


def reason_of(error: Exception) -> str:
    """The kind of failure and what to do about it, for a StoreError."""
    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, UnexpectedAnswer):
        return "unexpected answer"
    # httpx's exception can mislead (a lost connection is a ConnectTimeout); its cause is right.
    cause = error.__cause__ if isinstance(error, httpx.TransportError) and error.__cause__ else error
    return explain_failure(cause)


def _hide_filters(record: logging.LogRecord) -> bool:
    """Remove the query from the PostgREST URLs that httpx logs: it names the user."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            value.copy_with(query=None) if isinstance(value, httpx.URL) and "/rest/v1/" in value.path else value
            for value in record.args
        )
    return True


def dated(query: Any, since: int | None) -> Query:
    """A request that says what its writer knew of: so many erasures, and what was forgotten (``forgetting.knowing``).

    The database refuses it if the person was erased, or had more forgotten, after that. In headers, because it is about
    the request, not about the row; the database's triggers read them.
    """
    if since is not None:
        query.request.headers["x-companion-since"] = str(since)
        if (known := known_to_be_forgotten()) is not None:
            query.request.headers["x-companion-forgotten"] = str(known)
    request: Query = query
    return request
