"""Plays `lk agent console`: starts an agent's console process and connects to it over loopback."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from livekit.protocol.agent_pb import agent_session as pb

from tests.real.livekit.agent_process import AgentProcess

_HEADER = struct.Struct(">I")


@dataclass(frozen=True)
class Turn:
    """The results of one user turn, in order: `calls` and `outputs` pair up by position."""

    items: list[pb.ChatContext.ChatItem]
    calls: list[pb.FunctionCall] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The agent's last message of this turn; empty if there is none."""
        return self.replies[-1] if self.replies else ""


class TcpConsole:
    """`async with TcpConsole("agent.py", cwd=..., env=...) as console:` waits until the session is up.

    `text` switches audio off as soon as the agent connects, as `lk` does for a text console. Without it the
    agent's speech comes as audio: it is measured (`audio_seconds`) and acknowledged as played at once.
    Every wait takes a timeout in seconds and raises AssertionError with the end of the agent's log when it
    expires or the agent ends. Leaving the block normally ends the agent (see `end`); after a failure
    it is killed.
    """

    def __init__(
        self,
        agent: str | Path = "agent.py",
        *,
        cwd: str | Path,
        env: Mapping[str, str] | None = None,
        text: bool = True,
        start_timeout: float = 40.0,
    ) -> None:
        self._agent = str(agent)
        self._cwd = cwd
        self._env = env
        self._text = text
        self._start_timeout = start_timeout
        self._process: AgentProcess | None = None
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._gone = False
        self._responses: dict[str, pb.SessionResponse] = {}
        self._requests = 0
        self._taken: set[str] = set()
        self.events: list[pb.AgentSessionEvent] = []
        self.audio_seconds = 0.0

    @property
    def process(self) -> AgentProcess:
        """The agent's process: its `log`, its `pid`."""
        assert self._process is not None
        return self._process

    @property
    def messages(self) -> list[tuple[str, str]]:
        """("user" or "assistant", text) of every message so far, the greeting included."""
        return [(pb.ChatRole.Name(message.role).lower(), _text(message)) for message in self._messages()]

    async def __aenter__(self) -> TcpConsole:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        command = ["-m", "livekit.agents", "console", self._agent, "--connect-addr", f"127.0.0.1:{port}"]
        try:
            self._process = await AgentProcess.start(command, cwd=self._cwd, env=self._env)
            await self._wait_for(lambda: self._writer is not None, "it connects", self._start_timeout)
            if self._text:
                off = pb.SessionRequest.UpdateIO()
                off.input.audio_enabled = off.output.audio_enabled = off.output.transcription_enabled = False
                await self.request(pb.SessionRequest(update_io=off))
        except BaseException:
            await self._clean_up()
            raise
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                await self.end()
        finally:
            await self._clean_up()

    async def next_message(self, timeout: float = 20.0) -> str:
        """The agent's next message that neither this nor `say` returned yet: to begin with, the greeting."""

        def new() -> list[pb.ChatMessage]:
            return [m for m in self._messages() if m.role == pb.ASSISTANT and m.id not in self._taken]

        await self._wait_for(lambda: bool(new()), "a message of the agent", timeout)
        message = new()[0]
        self._taken.add(message.id)
        return _text(message)

    async def say(self, text: str, timeout: float = 30.0) -> Turn:
        """Say `text` as the user and wait for the whole turn, tool calls and all.

        Raises AssertionError if the agent answers with an error.
        """
        answer = await self.request(pb.SessionRequest(run_input=pb.SessionRequest.RunInput(text=text)), timeout)
        turn = Turn(list(answer.run_input.items))
        for item in turn.items:
            if item.HasField("function_call"):
                turn.calls.append(item.function_call)
            elif item.HasField("function_call_output"):
                turn.outputs.append(item.function_call_output.output)
            elif item.HasField("message") and item.message.role == pb.ASSISTANT:
                turn.replies.append(_text(item.message))
                self._taken.add(item.message.id)
        return turn

    async def wait_for_event(
        self, matches: Callable[[pb.AgentSessionEvent], bool], timeout: float = 20.0
    ) -> pb.AgentSessionEvent:
        """The first past or future event for which `matches` is true."""
        await self._wait_for(lambda: any(map(matches, self.events)), "a matching event", timeout)
        return next(filter(matches, self.events))

    async def request(self, request: pb.SessionRequest, timeout: float = 20.0) -> pb.SessionResponse:
        """Send any request of the protocol (its id is set here) and wait for the response to it."""
        self._requests += 1
        request.request_id = f"console-{self._requests}"
        await self._send(pb.AgentSessionMessage(request=request))
        await self._wait_for(lambda: request.request_id in self._responses, "a response", timeout)
        response = self._responses.pop(request.request_id)
        assert not response.error, f"the agent answered with an error: {response.error}\n{self.process.tail}"
        return response

    async def end(self, timeout: float = 20.0) -> None:
        """Interrupt the agent as `lk` does; assert that it ends with code 0 and leaves no process behind."""
        await self.process.end(timeout=timeout)

    def _messages(self) -> list[pb.ChatMessage]:
        items = (e.conversation_item_added.item for e in self.events if e.HasField("conversation_item_added"))
        return [item.message for item in items if item.HasField("message")]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        await self.process.nudge()
        try:
            while True:
                (length,) = _HEADER.unpack(await reader.readexactly(_HEADER.size))
                message = pb.AgentSessionMessage.FromString(await reader.readexactly(length))
                await self._take(message)
        except (asyncio.IncompleteReadError, ConnectionError):
            self._gone = True
            await self.process.nudge()
        finally:
            writer.close()

    async def _take(self, message: pb.AgentSessionMessage) -> None:
        kind = message.WhichOneof("message")
        if kind == "event":
            self.events.append(message.event)
        elif kind == "response":
            self._responses[message.response.request_id] = message.response
        elif kind == "audio_output":
            self.audio_seconds += message.audio_output.samples_per_channel / message.audio_output.sample_rate
        elif kind == "audio_playback_flush":
            played = pb.AgentSessionMessage.ConsoleIO.AudioPlaybackFinished()
            await self._send(pb.AgentSessionMessage(audio_playback_finished=played))
        await self.process.nudge()

    async def _send(self, message: pb.AgentSessionMessage) -> None:
        assert self._writer is not None
        data = message.SerializeToString()
        self._writer.write(_HEADER.pack(len(data)) + data)
        await self._writer.drain()

    async def _wait_for(self, ready: Callable[[], bool], what: str, timeout: float) -> None:
        await self.process.wait_until(lambda: ready() or self._gone, what, timeout)
        assert ready(), f"the agent hung up before {what}\n{self.process.tail}"

    async def _clean_up(self) -> None:
        if self._process is not None:
            await self._process.kill()
        if self._writer is not None:
            self._writer.close()
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()


def _text(message: pb.ChatMessage) -> str:
    return "".join(part.text for part in message.content)
