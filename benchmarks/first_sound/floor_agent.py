"""The floor: a stock agent that plays frames from memory as soon as it is entered. Nothing can be heard sooner."""

from __future__ import annotations

import math
import struct
from collections.abc import AsyncIterator

from livekit import rtc
from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli
from livekit.agents.voice.room_io import RoomOptions

server = AgentServer()
SAMPLES = [int(8_000 * math.sin(at / 13)) for at in range(48_000)]
FRAMES = [rtc.AudioFrame(struct.pack("<480h", *SAMPLES[at : at + 480]), 24_000, 1, 480) for at in range(0, 48_000, 480)]


async def tone() -> AsyncIterator[rtc.AudioFrame]:
    """Two seconds of sound."""
    for frame in FRAMES:
        yield frame


class Tone(Agent):
    """Plays at once."""

    async def on_enter(self) -> None:
        self.session.say("Hello.", audio=tone())


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """Play, and wait for the end of the room."""
    await ctx.connect()
    session: AgentSession[None] = AgentSession(vad=None, turn_handling={"turn_detection": None})
    await session.start(Tone(instructions=""), room=ctx.room, room_options=RoomOptions(audio_input=False))


if __name__ == "__main__":
    cli.run_app(server)
