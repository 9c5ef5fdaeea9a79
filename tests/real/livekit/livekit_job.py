"""One conversation in a room of the stand-in server, driven from the user's side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiohttp import web
from livekit.protocol import agent, models
from livekit.protocol import rtc as pb

from tests.real.livekit.livekit_peer import AgentPeer
from tests.real.livekit.livekit_text import TextStream, TextStreams, text_packets

SERVER = models.ServerInfo(edition=models.ServerInfo.Standard, version="1.9.0", protocol=16, agent_protocol=1)
_ENDED = (agent.JS_SUCCESS, agent.JS_FAILED, agent.JS_CANCELLED)


class Job:
    """Made by `LiveKitServer.dispatch`. Waits take a timeout in seconds and raise AssertionError.

    `milestones` maps a step to the `time.time()` of its first occurrence: dispatched, accepted, assigned,
    signalling (the agent's websocket), room_connected (it receives audio), publisher_connected (it can send audio),
    subscribed (to its audio), first_sound, first_transcription (the first word arrived), user_left, room_closed,
    agent_left, ended.
    """

    def __init__(self, job: agent.Job, user: models.ParticipantInfo, *, joined: bool, admitted: bool) -> None:
        self.proto = job
        self.user = user
        self.milestones: dict[str, float] = {}
        self.status = agent.JS_PENDING
        self.agent_identity = ""
        self.agent_attributes: dict[str, str] = {}
        self._joined = joined
        self._admission = asyncio.Event()
        self._peer: AgentPeer | None = None
        self._streams = TextStreams()
        self._taken: set[str] = set()
        self._changed = asyncio.Event()
        self._problem: Exception | None = None
        if admitted:
            self.admit()

    @property
    def id(self) -> str:
        return self.proto.id

    @property
    def room_name(self) -> str:
        return self.proto.room.name

    @property
    def audio_seconds(self) -> float:
        """How much sound the agent made, in seconds."""
        return self._peer.audio_seconds if self._peer else 0.0

    @property
    def transcripts(self) -> list[TextStream]:
        """All text of the agent so far, unfinished segments included."""
        return [
            stream
            for stream in self._streams
            if stream.topic == "lk.transcription" and stream.sender in ("", self.agent_identity)
        ]

    async def greeting(self, timeout: float = 40.0) -> str:
        """The agent's greeting. Send text only afterwards: earlier text is not received.

        LiveKit's client gives a connection 15 seconds, on a busy machine too little, and then tries another.
        """
        return await self.next_reply(timeout)

    async def next_reply(self, timeout: float = 20.0) -> str:
        """The next complete reply of the agent. Text before and after a tool call are two replies."""

        def said() -> list[TextStream]:
            return [s for s in self.transcripts if s.finished_at is not None and s.id not in self._taken]

        await self.wait_until(lambda: bool(said()), "words of the agent", timeout)
        stream = said()[0]
        self._taken.add(stream.id)
        return stream.text

    async def say(self, text: str, timeout: float = 10.0) -> None:
        """Say `text` as the user, by chat."""
        await self.wait_until(lambda: "room_connected" in self.milestones, "the agent's connection", timeout)
        assert self._peer is not None
        packets = text_packets(text, topic="lk.chat", sender=self.user.identity, sender_sid=self.user.sid)
        async with asyncio.timeout(timeout):
            await self._peer.send(packets)

    def admit(self) -> None:
        """Let the agent in, for a job dispatched with `admitted=False`."""
        self._admission.set()

    async def join(self) -> None:
        """Let the user join, for a job dispatched with `joined=False`."""
        self._joined = True
        self.mark("user_joined")
        if self._peer is not None:
            await self._peer.update(self.user)

    async def join_other(self, identity: str) -> models.ParticipantInfo:
        """Let another user join; `leave_other` disconnects them."""
        other = models.ParticipantInfo(sid=f"PA_{identity}", identity=identity, state=models.ParticipantInfo.ACTIVE)
        assert self._peer is not None
        await self._peer.update(other)
        return other

    async def replace_user(self, identity: str) -> None:
        """Let another user join, whose words `say` says from now on, and whom `leave` disconnects."""
        self.user = await self.join_other(identity)

    async def leave_other(self, other: models.ParticipantInfo) -> None:
        """Disconnect another user."""
        other.state, other.disconnect_reason = models.ParticipantInfo.DISCONNECTED, models.CLIENT_INITIATED
        assert self._peer is not None
        await self._peer.update(other)

    async def leave(self) -> None:
        """Disconnect the user."""
        self.mark("user_left")
        self.user.state = models.ParticipantInfo.DISCONNECTED
        self.user.disconnect_reason = models.CLIENT_INITIATED
        if self._peer is not None:
            await self._peer.update(self.user)

    async def close_room(self) -> None:
        """Close the room; an agent still in it is disconnected."""
        self.mark("room_closed")
        if self._peer is not None:
            await self._peer.leave(models.ROOM_DELETED)

    async def close(self) -> None:
        """Cut the agent's connection without a leave message."""
        if self._peer is not None:
            await self._peer.cut()

    async def finished(self, timeout: float = 20.0) -> str:
        """Wait for the worker's final status of this job: JS_SUCCESS or JS_FAILED.

        An exception that leaves the entrypoint is a JS_SUCCESS to LiveKit; look for it in the worker's log.
        """
        await self.wait_until(lambda: self.status in _ENDED, "the end of the job", timeout)
        return agent.JobStatus.Name(self.status)

    async def end(self, timeout: float = 20.0, *, grace: float = 0.3) -> None:
        """Disconnect the user, and close the room if the agent is still there after `grace` seconds.

        Returns when the job's process has ended; asserts that it ended successfully.
        """
        await self.leave()
        try:
            await self.wait_until(lambda: "agent_left" in self.milestones, "its leaving", grace)
        except AssertionError:
            await self.close_room()
        status = await self.finished(timeout)
        assert status == "JS_SUCCESS", f"the job ended with {status}"

    async def wait_until(self, ready: Callable[[], bool], what: str, timeout: float) -> None:
        """Wait until `ready` is true; it is evaluated at every event of this job.

        Raises AssertionError on a timeout, and at once when the job has ended without it, or the server has failed.
        """
        try:
            async with asyncio.timeout(timeout):
                while not ready():
                    assert self._problem is None, self._story(f"the server failed before {what}: {self._problem!r}")
                    assert "ended" not in self.milestones, self._story(f"the job ended before {what}")
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(self._story(f"waited {timeout} s for {what}")) from None

    def fail(self, problem: Exception) -> None:
        """The server could not serve the agent, which waits for what will not come."""
        self._problem = problem
        self._notify()

    def mark(self, milestone: str) -> None:
        """Record the first time that a milestone was reached."""
        self.milestones.setdefault(milestone, time.time())
        self._notify()

    def take_status(self, status: agent.JobStatus) -> None:
        """Process the worker's updates of the job."""
        self.status = status
        if status in _ENDED:
            self.mark("ended")
        self._notify()

    async def serve_agent(self, websocket: web.WebSocketResponse, identity: str, sid: str) -> None:
        """Serve the agent, once admitted, until it leaves."""
        self.agent_identity = identity
        self.mark("signalling")
        await self._admission.wait()
        permission = models.ParticipantPermission(
            can_publish=True, can_subscribe=True, can_publish_data=True, can_update_metadata=True, agent=True
        )
        codec = models.Codec(mime="audio/opus")
        join = pb.JoinResponse(
            room=self.proto.room,
            participant=models.ParticipantInfo(
                sid=sid,
                identity=identity,
                state=models.ParticipantInfo.JOINED,
                kind=models.ParticipantInfo.AGENT,
                permission=permission,
            ),
            other_participants=[self.user] if self._joined else [],
            server_version=SERVER.version,
            server_info=SERVER,
            subscriber_primary=True,
            fast_publish=True,
            enabled_publish_codecs=[codec],
            ping_interval=5,
            ping_timeout=15,
        )
        self._peer = AgentPeer(
            websocket, join, on_packet=self._take_packet, on_attributes=self._take_attributes, mark=self.mark
        )
        try:
            await self._peer.run()
        finally:
            self.mark("agent_left")

    def _take_packet(self, packet: models.DataPacket) -> None:
        self._streams.take(packet)
        if any(stream.started_at for stream in self.transcripts):
            self.mark("first_transcription")
        self._notify()

    def _take_attributes(self, attributes: dict[str, str]) -> None:
        self.agent_attributes = attributes
        self._notify()

    def _story(self, what: str) -> str:
        so_far = ", ".join(self.milestones)
        return f"{what}; {agent.JobStatus.Name(self.status)}, so far: {so_far}"

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
