"""The server's side of an agent's connection to a room: v0 signalling and two WebRTC connections."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import aioice.ice
from aiohttp import WSMsgType, web
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceCandidate,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import candidate_from_sdp
from livekit.protocol import models
from livekit.protocol import rtc as pb

_host_addresses = aioice.ice.get_host_addresses
# aioice excludes loopback; these tests use nothing else.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]

_SILENCE = 32  # of 32767: upper bound of a decoded silent track

# Sent by every client; this server ignores them.
_NO_ANSWER = {"track_setting", "subscription", "subscription_permission", "update_audio_track", "mute"}


class AgentPeer:
    """One agent in one room. `run` serves it until the agent leaves or `leave` is called.

    Errors of this server are raised at the end of `run`.

    `on_packet` gets every data packet of the agent; `mark` the name of every step, as it happens;
    `on_attributes` the agent's attributes whenever it changes them.
    """

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        join: pb.JoinResponse,
        *,
        on_packet: Callable[[models.DataPacket], None],
        on_attributes: Callable[[dict[str, str]], None],
        mark: Callable[[str], None],
    ) -> None:
        self._websocket = websocket
        self._join = join
        self._info = join.participant
        self._on_packet = on_packet
        self._on_attributes = on_attributes
        self._mark = mark
        self._publisher = _connection()  # the agent publishes to it
        self._subscriber = _connection()  # the agent subscribes to it
        self._early: dict[int, list[RTCIceCandidate]] = {pb.PUBLISHER: [], pb.SUBSCRIBER: []}
        self._unheard: deque[str] = deque()  # ids of announced tracks without audio yet, in order
        self._open = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self.audio_seconds = 0.0  # seconds of audio, without silence
        self._publisher.on("datachannel", self._listen)
        self._publisher.on("track", lambda track: self._spawn(self._hear(track)))
        self._publisher.on("connectionstatechange", self._publisher_changed)
        self._subscriber.on("connectionstatechange", self._subscriber_changed)

    async def run(self) -> None:
        """Join the agent and serve it until it leaves."""
        await self._tell(join=self._join)
        self._reliable = self._subscriber.createDataChannel("_reliable")
        self._reliable.on("open", self._open.set)
        self._subscriber.createDataChannel("_lossy", ordered=False, maxRetransmits=0)
        await self._subscriber.setLocalDescription(await self._subscriber.createOffer())
        await self._tell(offer=_description(self._subscriber))
        try:
            async for message in self._websocket:
                if message.type is WSMsgType.BINARY:
                    request = pb.SignalRequest.FromString(message.data)
                    if request.WhichOneof("message") == "leave":
                        break
                    await self._answer(request)
        finally:
            await self._close()
        if self._failures:
            raise self._failures[0]

    async def send(self, packets: list[models.DataPacket]) -> None:
        """Send data to the agent once it is connected."""
        await self._open.wait()
        for packet in packets:
            self._reliable.send(packet.SerializeToString())

    async def update(self, participant: models.ParticipantInfo) -> None:
        """Send a participant's new state to the agent."""
        await self._tell(update=pb.ParticipantUpdate(participants=[participant]))

    async def leave(self, reason: models.DisconnectReason) -> None:
        """Disconnect the agent permanently, as when the room is closed."""
        await self._tell(leave=pb.LeaveRequest(reason=reason, action=pb.LeaveRequest.DISCONNECT))

    async def cut(self) -> None:
        """Close the signalling connection without a leave message."""
        await self._websocket.close()

    async def _answer(self, request: pb.SignalRequest) -> None:
        kind = request.WhichOneof("message")
        if kind == "offer":
            await self._take_description(self._publisher, pb.PUBLISHER, request.offer)
            await self._publisher.setLocalDescription(await self._publisher.createAnswer())
            await self._tell(answer=_description(self._publisher))
        elif kind == "answer":
            await self._take_description(self._subscriber, pb.SUBSCRIBER, request.answer)
        elif kind == "trickle":
            await self._take_candidate(request.trickle)
        elif kind == "add_track":
            await self._add_track(request.add_track)
        elif kind == "update_metadata":
            await self._update_metadata(request.update_metadata)
        elif kind == "ping":
            await self._tell(pong=request.ping)
        elif kind == "ping_req":
            await self._tell(pong_resp=pb.Pong(last_ping_timestamp=request.ping_req.timestamp))
        elif kind not in _NO_ANSWER:
            raise NotImplementedError(f"this server does not know the signal request {kind!r}")

    async def _take_description(
        self, connection: RTCPeerConnection, target: int, description: pb.SessionDescription
    ) -> None:
        await connection.setRemoteDescription(RTCSessionDescription(description.sdp, description.type))
        for candidate in self._early.pop(target, []):
            await connection.addIceCandidate(candidate)

    async def _take_candidate(self, trickle: pb.TrickleRequest) -> None:
        init = json.loads(trickle.candidateInit)
        candidate = candidate_from_sdp(init["candidate"].removeprefix("candidate:"))
        candidate.sdpMid, candidate.sdpMLineIndex = init["sdpMid"], init["sdpMLineIndex"]
        if trickle.target in self._early:
            self._early[trickle.target].append(candidate)
        else:
            connection = self._publisher if trickle.target == pb.PUBLISHER else self._subscriber
            await connection.addIceCandidate(candidate)

    async def _add_track(self, request: pb.AddTrackRequest) -> None:
        track = models.TrackInfo(sid=f"TR_{request.cid}", type=request.type, name=request.name, source=request.source)
        self._info.tracks.append(track)
        self._unheard.append(track.sid)
        await self._tell(track_published=pb.TrackPublishedResponse(cid=request.cid, track=track))
        if len(self._info.tracks) > 1:
            self._spawn(self._subscribe(track.sid))

    async def _subscribe(self, sid: str) -> None:
        """Subscribe to a track that follows another, whose audio may come in the other's place and say nothing."""
        for _ in range(60):  # an agent that is still publishing drops the message
            await asyncio.sleep(0.2)
            await self._tell(track_subscribed=pb.TrackSubscribed(track_sid=sid))

    async def _update_metadata(self, request: pb.UpdateParticipantMetadata) -> None:
        self._info.name = request.name or self._info.name
        self._info.metadata = request.metadata or self._info.metadata
        for name, value in request.attributes.items():
            self._info.attributes[name] = value
        await self.update(self._info)
        await self._tell(request_response=pb.RequestResponse(request_id=request.request_id))
        self._on_attributes(dict(self._info.attributes))

    def _listen(self, channel: RTCDataChannel) -> None:
        @channel.on("message")
        def take(data: bytes) -> None:
            try:
                self._on_packet(models.DataPacket.FromString(data))
            except Exception as error:
                self._failures.append(error)

    async def _hear(self, track: MediaStreamTrack) -> None:
        subscribed = False
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if not subscribed:
                # Not earlier: an agent that is still publishing would drop the message and wait forever.
                await self._tell(track_subscribed=pb.TrackSubscribed(track_sid=self._unheard.popleft()))
                subscribed = True
                self._mark("subscribed")
            if frame.to_ndarray().max() > _SILENCE:
                self._mark("first_sound")
                self.audio_seconds += frame.samples / frame.sample_rate

    async def _publisher_changed(self) -> None:
        if self._publisher.connectionState == "connected":
            self._mark("publisher_connected")

    async def _subscriber_changed(self) -> None:
        if self._subscriber.connectionState == "connected":
            self._mark("room_connected")
            self._info.state = models.ParticipantInfo.ACTIVE
            await self.update(self._info)

    async def _tell(self, **message: Any) -> None:
        if not self._websocket.closed:
            await self._websocket.send_bytes(pb.SignalResponse(**message).SerializeToString())

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._failures.append(error)

    async def _close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Shielded: aiortc may be closing already, and a cancellation would break that.
        await asyncio.shield(asyncio.gather(self._publisher.close(), self._subscriber.close()))
        await self._websocket.close()


def agents_can_connect() -> bool:
    """Whether this machine has an IPv4 interface besides loopback, which LiveKit's client never uses.

    Traffic never leaves this machine; the interface needs no route.
    """
    return bool(_host_addresses(use_ipv4=True, use_ipv6=False))


def _connection() -> RTCPeerConnection:
    # Without this, aiortc would ask a public STUN server.
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


def _description(connection: RTCPeerConnection) -> pb.SessionDescription:
    description = connection.localDescription
    return pb.SessionDescription(type=description.type, sdp=description.sdp)
