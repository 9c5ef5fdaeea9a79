"""The behaviour of supabase-py, postgrest, httpx and httpx-aiohttp that the store depends on. See docs/upgrading.md."""

from __future__ import annotations

import asyncio
import json
import logging
import socket

import aiohttp
import httpx
import pytest
from aiohttp import web
from postgrest.types import ReturnMethod

from tests.contract.supabase.supabase_stand_in import Request, failure, http_client, project, says, supabase_client

pytestmark = pytest.mark.integration


class Refused(Exception):
    """Raised by the response hook."""


# -- what is sent --------------------------------------------------------------------------------------------------


async def test_a_select_is_one_get_with_our_headers() -> None:
    """``companion.store.supabase.client``: sends the key, and ``x-companion``, which marks our own writes.

    Without that header the change feed would report each of our own writes.
    """
    async with project(says([])) as it:
        await (
            it.client.table("turns").select("role", "at").eq("user_id", "ada").order("at", desc=True).limit(3).execute()
        )
    (request,) = it.requests
    assert (request.method, request.path) == ("GET", "/rest/v1/turns")
    assert request.query == {"select": "role,at", "user_id": "eq.ada", "order": "at.desc", "limit": "3"}
    assert request.headers["apikey"] == "sb_secret_key"
    assert request.headers["x-companion"] == "1"


@pytest.mark.parametrize("user_id", ["a+b@example.com", "a~b=c", "a.b-c_d"])
async def test_a_filter_arrives_as_it_was_given(user_id: str) -> None:
    """``companion.store.supabase.store``: a ``+`` that arrived as a space would select another user."""
    async with project(says([])) as it:
        await it.client.table("t").select("*").eq("user_id", user_id).execute()
    assert it.requests[0].query["user_id"] == f"eq.{user_id}"


@pytest.mark.parametrize(("keep_first", "resolution"), [(False, "merge-duplicates"), (True, "ignore-duplicates")])
async def test_an_upsert_is_one_post_that_asks_for_nothing_back(keep_first: bool, resolution: str) -> None:
    """``companion.store.supabase.store``: every write is an idempotent upsert that returns no row."""
    async with project(lambda _: web.Response(status=201)) as it:
        answer = await (
            it.client.table("turns")
            .upsert(
                {"user_id": "ada", "text": "hi"},
                returning=ReturnMethod.minimal,
                on_conflict="user_id,id",
                ignore_duplicates=keep_first,
            )
            .execute()
        )
    (request,) = it.requests
    assert request.method == "POST"
    assert request.query["on_conflict"] == "user_id,id"
    assert request.body == {"user_id": "ada", "text": "hi"}
    prefer = request.headers["prefer"].split(",")
    assert {"return=minimal", f"resolution={resolution}"} <= set(prefer)
    assert answer.data == []


async def test_a_function_gets_its_arguments_in_the_body() -> None:
    """``companion.store.supabase.store`` (``rpc``): arguments in the body appear in no URL, so in no log."""
    async with project(says([])) as it:
        await it.client.rpc("companion_search", {"p_query": "sister", "p_limit": 5}).execute()
    (request,) = it.requests
    assert (request.method, request.path, request.query) == ("POST", "/rest/v1/rpc/companion_search", {})
    assert request.body == {"p_query": "sister", "p_limit": 5}
    assert "return=minimal" not in request.headers.get("prefer", "")


# -- what comes back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [[{"text": "a"}], [], {"profile": None}, True, False, 7, 0])
async def test_data_is_the_json_that_was_sent(data: object) -> None:
    """``companion.store.supabase.rows``: rows, an object, a boolean or a number, unchanged."""
    async with project(says(data)) as it:
        answer = (await it.client.rpc("function", {}).execute()).data
    assert answer == data
    assert type(answer) is type(data)


async def test_what_is_no_json_is_a_string() -> None:
    """``companion.store.supabase.rows``: a proxy's error page arrives as str, so types are checked."""
    async with project(lambda _: web.Response(text="<html>maintenance</html>", content_type="text/html")) as it:
        answer = await it.client.table("t").select("*").execute()
    assert isinstance(answer.data, str)


async def test_a_response_hook_comes_before_postgrest_and_its_exception_is_ours() -> None:
    """``companion.store.supabase.client`` (``_check``): the hook raises the error, with status and code only.

    postgrest's own error quotes the row. If the hook's exception were replaced by it, rows would reach the log.
    """
    seen: list[tuple[bytes, bool, str]] = []

    async def check(response: httpx.Response) -> None:
        await response.aread()
        seen.append((response.content, response.is_success, response.request.headers.get("Prefer", "")))
        raise Refused(f"HTTP {response.status_code}")

    async with project(says({"code": "23505", "details": "private"}, 409), event_hooks={"response": [check]}) as it:
        query = it.client.table("t").upsert({"a": 1}, returning=ReturnMethod.minimal)
        problem = await failure(query.execute())
    assert (type(problem), str(problem)) == (Refused, "HTTP 409")
    content, success, prefer = seen[0]
    assert json.loads(content)["code"] == "23505"
    assert not success
    assert "return=minimal" in prefer


async def test_a_request_hook_comes_after_supabase_py_has_set_its_headers() -> None:
    """``companion.store.supabase.client``: supabase-py sends every key as a token too, which Supabase refuses.

    A hook that came earlier would leave it in; then no request would be answered.
    """
    seen: list[str] = []

    async def leave_out(request: httpx.Request) -> None:
        seen.append(request.headers.pop("Authorization"))

    async with project(says([]), event_hooks={"request": [leave_out]}) as it:
        await it.client.table("t").select("*").execute()
        await it.client.rpc("function", {}).execute()
    assert seen == ["Bearer sb_secret_key"] * 2
    assert [(one.headers["apikey"], one.headers.get("authorization")) for one in it.requests] == [
        ("sb_secret_key", None)
    ] * 2


# -- trying again, and giving up -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [503, 520])
async def test_nothing_is_retried_where_retries_are_off(status: int) -> None:
    """``companion.store.supabase.client`` (``postgrest_client_retry``): a retry would sleep for seconds."""
    async with project(says({"message": "busy"}, status)) as it:
        await failure(it.client.table("t").select("*").execute())
    assert len(it.requests) == 1


async def test_cancelled_requests_use_up_no_connection() -> None:
    """``companion.store.supabase.client`` (``HttpxAiohttpClient``): interrupted turns cancel requests.

    With httpx's own transport cancelled requests exhaust the pool, and every later request times out.
    """
    slow = True

    async def answer(_: Request) -> web.StreamResponse:
        await asyncio.sleep(30 if slow else 0)
        return web.json_response([])

    async with project(answer) as it:
        for moment in range(40):
            tasks = [asyncio.ensure_future(it.client.table("t").select("*").execute()) for _ in range(4)]
            await asyncio.sleep(0.0005 * (moment % 10))  # while waiting, connecting, sending, or for the answer
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        slow = False
        assert (await it.client.table("t").select("*").execute()).data == []


async def test_a_refused_connection_has_its_cause() -> None:
    """``companion.store.supabase.client`` (``reason_of``): aiohttp's error is the cause of httpx's."""
    with socket.socket() as closed:  # bound, and not listening
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        async with http_client() as http:
            problem = await failure(supabase_client(url, http).table("t").select("*").execute())
    assert isinstance(problem, httpx.TransportError)
    assert isinstance(problem.__cause__, aiohttp.ClientConnectorError)


async def test_a_lost_connection_has_its_cause() -> None:
    """``companion.store.supabase.client`` retries a request once if its connection was lost.

    With another cause, the first request after an idle period would fail.
    """

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with http_client() as http:
        problem = await failure(supabase_client(url, http).table("t").select("*").execute())
    server.close()
    assert isinstance(problem, httpx.TransportError)
    assert isinstance(problem.__cause__, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError)
    assert not isinstance(problem.__cause__, aiohttp.ClientConnectorError)


async def test_a_timeout_has_its_cause() -> None:
    """``companion.store.supabase.client`` (``reason_of``): a timeout is reported as such."""

    async def answer(_: Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.json_response([])

    async with project(answer) as it:
        it.http.timeout = httpx.Timeout(0.05)
        problem = await failure(it.client.table("t").select("*").execute())
    assert isinstance(problem, httpx.TransportError)
    assert isinstance(problem.__cause__, TimeoutError)


# -- the client itself ---------------------------------------------------------------------------------------------


async def test_the_client_can_be_made_in_a_thread_and_used_in_the_loop() -> None:
    """``companion.store.supabase.client``: loading certificate authorities in the loop would block it."""
    async with project(says([{"a": 1}])) as it, await asyncio.to_thread(http_client) as http:
        assert (await supabase_client(it.url, http).table("t").select("*").execute()).data == [{"a": 1}]


async def test_making_the_client_asks_nothing_and_leaves_no_task() -> None:
    """``companion.store.supabase.client``: Realtime, Auth and Storage, which are not used, start nothing."""
    before = asyncio.all_tasks()
    async with project(says([])) as it:
        supabase_client(it.url, it.http)
        await asyncio.sleep(0.02)
        assert it.requests == []
    assert asyncio.all_tasks() <= before


async def test_a_closed_client_fails_calls() -> None:
    """``companion.store.supabase.client`` (``close``): closing the HTTP client is enough."""
    async with project(says([])) as it:
        await it.http.aclose()
        await failure(it.client.table("t").select("*").execute())
    assert it.requests == []


async def test_httpx_logs_the_address_as_an_argument(caplog: pytest.LogCaptureFixture) -> None:
    """``companion.store.supabase.client`` (``_hide_filters``) replaces the ``httpx.URL`` among the arguments.

    If httpx formatted the URL before logging, user ids would reach the log.
    """
    with caplog.at_level(logging.INFO, "httpx"):
        async with project(says([])) as it:
            await it.client.table("t").select("*").eq("user_id", "ada").execute()
    (record,) = (record for record in caplog.records if record.name == "httpx")
    assert isinstance(record.args, tuple)
    (url,) = (value for value in record.args if isinstance(value, httpx.URL))
    assert "/rest/v1/" in url.path
    assert b"ada" in url.query
    assert b"ada" not in url.copy_with(query=None).raw_path


def test_httpx_makes_a_tls_context_that_checks() -> None:
    """``companion.caching.change_listener`` passes httpx's certificate authorities to aiohttp."""
    context = httpx.create_ssl_context()
    assert context.check_hostname
    assert context.get_ca_certs()
