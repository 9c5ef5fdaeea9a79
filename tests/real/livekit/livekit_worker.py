"""The server's side of a registered worker's websocket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiohttp import WSMsgType, web
from livekit.protocol import agent, models

from tests.real.livekit.livekit_job import Job


class Worker:
    """Made by `register`; `serve` runs until it disconnects. `load`, `job_count` and `full` are its last report."""

    def __init__(self, websocket: web.WebSocketResponse, worker_id: str, agent_name: str) -> None:
        self._websocket = websocket
        self._answers: dict[str, asyncio.Future[agent.AvailabilityResponse]] = {}
        self._jobs: dict[str, Job] = {}
        self.id = worker_id
        self.agent_name = agent_name
        self.load = 0.0
        self.job_count = 0
        self.full = False

    @classmethod
    async def register(cls, websocket: web.WebSocketResponse, worker_id: str, server: models.ServerInfo) -> Worker:
        """Receive the worker's registration, which must be its first message, and confirm it."""
        message = agent.WorkerMessage.FromString(await websocket.receive_bytes())
        if not message.HasField("register"):
            raise ValueError("a worker's first message must be its registration")
        worker = cls(websocket, worker_id, message.register.agent_name)
        confirmed = agent.RegisterWorkerResponse(worker_id=worker_id, server_info=server)
        await worker._send(agent.ServerMessage(register=confirmed))
        return worker

    async def serve(self, on_report: Callable[[], None]) -> None:
        """Process the worker's reports until it disconnects; call `on_report` after each."""
        try:
            async for message in self._websocket:
                if message.type is WSMsgType.BINARY:
                    await self._take(agent.WorkerMessage.FromString(message.data))
                    on_report()
        finally:
            for answer in self._answers.values():
                answer.cancel()

    async def offer(self, job: Job, timeout: float) -> agent.AvailabilityResponse:
        """Offer the job to the worker.

        Raises:
            TimeoutError: the worker did not answer.
        """
        answer = self._answers[job.id] = asyncio.get_running_loop().create_future()
        try:
            await self._send(agent.ServerMessage(availability=agent.AvailabilityRequest(job=job.proto)))
            async with asyncio.timeout(timeout):
                return await answer
        finally:
            del self._answers[job.id]

    async def assign(self, job: Job, token: str) -> None:
        """Assign the accepted job, with the token for the agent to join the room."""
        self._jobs[job.id] = job
        await self._send(agent.ServerMessage(assignment=agent.JobAssignment(job=job.proto, token=token)))

    async def close(self) -> None:
        """Close the worker's connection; it will reconnect."""
        await self._websocket.close()

    async def _take(self, message: agent.WorkerMessage) -> None:
        kind = message.WhichOneof("message")
        if kind == "availability":
            if answer := self._answers.get(message.availability.job_id):
                answer.set_result(message.availability)
        elif kind == "update_worker":
            self.load = message.update_worker.load
            self.job_count = message.update_worker.job_count
            self.full = message.update_worker.status == agent.WS_FULL
        elif kind == "update_job":
            if job := self._jobs.get(message.update_job.job_id):
                job.take_status(message.update_job.status)
        elif kind == "ping":
            pong = agent.WorkerPong(last_timestamp=message.ping.timestamp, timestamp=int(time.time() * 1000))
            await self._send(agent.ServerMessage(pong=pong))
        else:
            raise NotImplementedError(f"this server does not know the worker message {kind!r}")

    async def _send(self, message: agent.ServerMessage) -> None:
        await self._websocket.send_bytes(message.SerializeToString())
