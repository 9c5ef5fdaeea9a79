"""The behaviour of LiveKit's workers and jobs that the entrypoint depends on. See docs/upgrading.md."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from livekit.agents import AgentServer, JobContext, JobExecutorType, JobProcess, Plugin

from tests.contract.livekit.livekit_stand_in import SOON
from tests.wait import until

pytestmark = pytest.mark.integration


# -- a worker and one job of it ------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What one job of a worker saw, from ``worker_started`` to the end."""

    started_in: asyncio.AbstractEventLoop | None = None
    set_up: list[JobExecutorType] = field(default_factory=list)
    set_up_in: list[int] = field(default_factory=list)
    fake: bool | None = None
    metadata: Any = None
    identities: list[Any] = field(default_factory=list)
    entered_in: int = 0
    ended: list[str] = field(default_factory=list)
    reason: str = ""
    active: list[int] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)


async def run_a_job() -> Seen:
    """A worker without a server that runs one job in a thread, as LiveKit's console does."""
    seen, up = Seen(), asyncio.Event()

    def set_up(process: JobProcess) -> None:
        seen.set_up.append(process.executor_type)
        seen.set_up_in.append(threading.get_ident())

    server = AgentServer(
        setup_fnc=set_up, job_executor_type=JobExecutorType.THREAD, port=0, num_idle_processes=0, log_level="INFO"
    )

    @server.once("worker_started")
    def started() -> None:
        seen.started_in = asyncio.get_running_loop()
        up.set()

    @server.rtc_session()
    async def entrypoint(ctx: JobContext) -> None:
        seen.entered_in = threading.get_ident()
        seen.fake, seen.metadata = ctx.is_fake_job(), ctx.job.metadata
        both = asyncio.Barrier(2)

        async def first() -> None:
            await both.wait()
            seen.ended.append("first")

        async def second(reason: str) -> None:
            seen.reason = reason
            await both.wait()
            await asyncio.sleep(0.1)
            seen.ended.append("second")

        ctx.add_shutdown_callback(first)
        ctx.add_shutdown_callback(second)
        await ctx.connect()
        await ctx.connect()
        participant = await ctx.wait_for_participant()
        seen.identities = [participant.identity, *(one.identity for one in ctx.room.remote_participants.values())]
        seen.active.append(len(server.active_jobs))
        seen.done.set()
        ctx.shutdown("the reason")

    assert callable(entrypoint)
    running = asyncio.ensure_future(server.run(devmode=True, unregistered=True))
    await up.wait()
    await server.simulate_job("room", agent_identity="agent", fake_job=True)
    await asyncio.to_thread(seen.done.wait, SOON)
    await until(lambda: not server.active_jobs)
    seen.active.append(len(seen.ended))
    await server.aclose()
    await asyncio.wait({running}, timeout=SOON)
    return seen


@pytest.fixture(scope="module")
def seen() -> Seen:
    """One job, run once for the tests below."""

    async def bounded() -> Seen:
        async with asyncio.timeout(3 * SOON):
            return await run_a_job()

    return asyncio.run(bounded())


def test_worker_started_is_emitted_inside_the_loop(seen: Seen) -> None:
    """``agent`` (``server.once("worker_started")``): starts the change listener as a task.

    Without the event or the loop, the worker's cache would miss changes made elsewhere.
    """
    assert seen.started_in is not None


def test_the_setup_function_runs_in_the_jobs_thread_and_knows_its_kind(seen: Seen) -> None:
    """``companion.voice.native_client``: creates the native client before a thread's first job."""
    assert seen.set_up == [JobExecutorType.THREAD]
    assert seen.set_up_in == [seen.entered_in]


def test_a_fake_job_says_so_and_has_empty_metadata(seen: Seen) -> None:
    """``companion.conversation.attach`` (``is_fake_job``): identifies the console, whose user is an operator."""
    assert seen.fake is True
    assert seen.metadata == ""


def test_participants_are_values_of_a_dict(seen: Seen) -> None:
    """``companion.conversation.participant``: identifies the participant, and checks that they are still connected."""
    assert seen.identities == ["mock_user", "mock_user"]


def test_shutdown_callbacks_run_together_and_are_waited_for(seen: Seen) -> None:
    """``companion.conversation.attach`` (``add_shutdown_callback``): the memory is closed, which flushes its writes."""
    assert seen.ended == ["first", "second"]


def test_a_job_is_active_until_its_callbacks_have_run_and_they_get_the_reason(seen: Seen) -> None:
    """``companion.console.jobs`` waits for its end, and ``companion.console.conversation`` knows why it ended."""
    assert seen.active == [1, 2], "one job, and then both callbacks"
    assert seen.reason == "the reason"


def test_a_job_has_ten_seconds_to_shut_down() -> None:
    """``companion.conversation.wrap_up`` (``GOODBYE``, 7 s) must be shorter than this."""
    assert inspect.signature(AgentServer).parameters["shutdown_process_timeout"].default >= 10


async def test_modules_to_preload_are_given_to_the_forkserver(monkeypatch: pytest.MonkeyPatch) -> None:
    """``agent`` (``preload_modules``): otherwise every job process imports them before its first word."""
    server, given = AgentServer(preload_modules=["json.tool"], port=0, num_idle_processes=0), []
    monkeypatch.setattr(server._mp_ctx, "set_forkserver_preload", given.extend, raising=False)
    server.rtc_session()(lambda ctx: asyncio.sleep(0))
    started = asyncio.Event()
    server.once("worker_started", started.set)
    running = asyncio.ensure_future(server.run(devmode=True, unregistered=True))
    async with asyncio.timeout(SOON):
        await started.wait()
        await server.aclose()
        await asyncio.wait({running})
    assert "json.tool" in given


# -- the process ---------------------------------------------------------------------------------------------------


def test_plugins_register_on_the_main_thread_only() -> None:
    """``companion.voice.models`` (``import_models``): therefore imports OpenAI's plugin at start.

    If this stops raising, the import can move to its first use.
    """
    problems: list[BaseException] = []

    def register() -> None:
        try:
            Plugin.register_plugin(Plugin("contract", "0", "contract", None))
        except RuntimeError as problem:
            problems.append(problem)

    thread = threading.Thread(target=register)
    thread.start()
    thread.join()
    assert len(problems) == 1


async def test_an_audio_resampler_makes_the_native_client() -> None:
    """``companion.voice.native_client``: two threads may create two clients, and one receives no events.

    A resampler is the cheapest object that creates it. Tested in a process without one, which leaves without the end of
    the interpreter: the client's threads may abort it there, where the machine is busy.
    """
    code = (
        "from livekit import rtc; from livekit.rtc._ffi_client import FfiClient as client; import os;"
        "assert client._instance is None; rtc.AudioResampler(16_000, 8_000); assert client._instance is not None;"
        "os._exit(0)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    async with asyncio.timeout(3 * SOON):
        assert await process.wait() == 0
