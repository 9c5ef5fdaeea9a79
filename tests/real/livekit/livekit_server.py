"""A minimal LiveKit server on loopback for a real worker: registration, job dispatch, rooms."""

from __future__ import annotations

import asyncio
import secrets
import time
import traceback
from collections.abc import Mapping

from aiohttp import web
from livekit import api
from livekit.protocol import agent, models

from tests.real.livekit.livekit_job import SERVER, Job
from tests.real.livekit.livekit_peer import agents_can_connect
from tests.real.livekit.livekit_worker import Worker


class LiveKitServer:
    """`async with LiveKitServer() as lk:` then start a worker with `lk.env` in its environment.

    Several workers, rooms and jobs at once. The machine needs a network interface besides loopback (RuntimeError
    without), though nothing leaves the machine. Requests that the server cannot answer are recorded in `errors`, and
    leaving the block then raises an AssertionError that names them.
    """

    def __init__(self, *, api_key: str = "devkey", api_secret: str = "stand-in-secret-of-32-characters") -> None:
        self.api_key = api_key
        self.api_secret = api_secret
        self.workers: list[Worker] = []
        self.jobs: dict[str, Job] = {}  # by room name
        self.errors: list[str] = []
        self._runner: web.AppRunner | None = None
        self._port = 0
        self._reported = asyncio.Event()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that make a worker connect to this server."""
        return {
            "LIVEKIT_URL": self.url,
            "LIVEKIT_API_KEY": self.api_key,
            "LIVEKIT_API_SECRET": self.api_secret,
        }

    async def __aenter__(self) -> LiveKitServer:
        if not agents_can_connect():
            raise RuntimeError("LiveKit's client needs a network interface besides loopback, and there is none")
        app = web.Application()
        app.router.add_get("/agent", self._agent)
        app.router.add_get("/rtc", self._rtc)  # and nothing at /rtc/v1: clients fall back to this
        app.router.add_post("/twirp/livekit.RoomService/DeleteRoom", self._delete_room)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=5.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        assert self._runner is not None
        for connection in (*self.jobs.values(), *self.workers):
            await connection.close()
        await self._runner.cleanup()
        if kind is None:
            assert not self.errors, "the server could not answer:\n" + "\n".join(self.errors)

    async def wait_for_worker(self, agent_name: str = "", timeout: float = 40.0) -> Worker:
        """The worker registered under this name with the least load; waits until there is one."""
        try:
            async with asyncio.timeout(timeout):
                while not (fit := [w for w in self.workers if w.agent_name == agent_name and not w.full]):
                    await self._reported.wait()
        except TimeoutError:
            raise AssertionError(f"no worker {agent_name!r} with room for a job in {timeout} s") from None
        return min(fit, key=lambda worker: worker.job_count)

    async def dispatch(
        self,
        *,
        metadata: str = "",
        participant_identity: str = "user",
        attributes: Mapping[str, str] | None = None,
        kind: models.ParticipantInfo.Kind = models.ParticipantInfo.STANDARD,
        joined: bool = True,
        admitted: bool = True,
        agent_name: str = "",
        room: str | None = None,
        after: Job | None = None,
        timeout: float = 40.0,
    ) -> Job:
        """Put a user into a room and dispatch the room's job to a worker; returns when it is assigned.

        `metadata` is the job's, `attributes` and `kind` are the user's. With `joined=False` the user joins later, by
        `job.join()`; with `admitted=False` the agent's connection waits for `job.admit()`. A worker that
        refuses (it is too busy) is retried for `timeout` seconds. The room of a job whose worker was killed is open
        still: give that job as `after`.
        """
        name = room or f"room-{secrets.token_hex(4)}"
        if after is not None:
            name = after.room_name
            await after.close()
            del self.jobs[name]
        assert name not in self.jobs, f"there is a job in {name!r} already"
        codec = models.Codec(mime="audio/opus")
        proto = agent.Job(
            id=_sid("AJ"),
            dispatch_id=_sid("AD"),
            type=agent.JT_ROOM,
            room=after.proto.room
            if after is not None
            else models.Room(sid=_sid("RM"), name=name, creation_time=int(time.time()), enabled_codecs=[codec]),
            metadata=metadata,
            agent_name=agent_name,
        )
        user = models.ParticipantInfo(
            sid=_sid("PA"),
            identity=participant_identity,
            state=models.ParticipantInfo.ACTIVE,
            attributes=dict(attributes or {}),
            kind=kind,
            joined_at=int(time.time()),
        )
        job = self.jobs[name] = Job(proto, user, joined=joined, admitted=admitted)
        job.mark("dispatched")
        try:
            async with asyncio.timeout(timeout):
                await self._place(job)
        except TimeoutError:
            raise AssertionError(f"no worker took the job in {timeout} s") from None
        return job

    async def _place(self, job: Job) -> None:
        while True:
            worker = await self.wait_for_worker(job.proto.agent_name)
            answer = await worker.offer(job, timeout=10.0)
            if answer.available:
                break
            await asyncio.sleep(0.2)  # backoff for a busy worker
        job.mark("accepted")
        token = (
            api.AccessToken(self.api_key, self.api_secret)
            .with_identity(answer.participant_identity)
            .with_name(answer.participant_name)
            .with_kind("agent")
            .with_grants(api.VideoGrants(room_join=True, room=job.room_name, agent=True))
        )
        job.agent_attributes = dict(answer.participant_attributes)
        await worker.assign(job, token.to_jwt())
        job.mark("assigned")

    async def _agent(self, request: web.Request) -> web.WebSocketResponse:
        self._claims(request)
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        worker = await Worker.register(websocket, _sid("AW"), SERVER)
        self.workers.append(worker)
        self._report()
        try:
            await worker.serve(self._report)
        except Exception as error:
            self._note(error)
        finally:
            self.workers.remove(worker)
        return websocket

    async def _rtc(self, request: web.Request) -> web.WebSocketResponse:
        claims = self._claims(request)
        job = self.jobs.get(claims.video.room if claims.video else "")
        if job is None:
            raise web.HTTPNotFound(text="no such room")
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        try:
            await job.serve_agent(websocket, claims.identity, _sid("PA"))
        except Exception as error:
            self._note(error)
            job.fail(error)
        return websocket

    async def _delete_room(self, request: web.Request) -> web.Response:
        self._claims(request)
        name = api.DeleteRoomRequest.FromString(await request.read()).room
        if name in self.jobs:
            await self.jobs[name].close_room()
        body = api.DeleteRoomResponse().SerializeToString()
        return web.Response(body=body, content_type="application/protobuf")

    def _claims(self, request: web.Request) -> api.Claims:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            return api.TokenVerifier(self.api_key, self.api_secret).verify(
                token or request.query.get("access_token", "")
            )
        except Exception as error:
            raise web.HTTPUnauthorized(text="invalid token") from error

    def _report(self) -> None:
        self._reported.set()
        self._reported = asyncio.Event()

    def _note(self, error: Exception) -> None:
        self.errors.append("".join(traceback.format_exception(error)))


def _sid(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(6)}"
