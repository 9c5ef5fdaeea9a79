"""The usual way: a stock agent that asks its model for a greeting, and its voice for the sound, when it is entered."""

from __future__ import annotations

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli
from livekit.agents.voice.room_io import RoomOptions
from livekit.plugins import openai

server = AgentServer()


class Stock(Agent):
    """Greets as LiveKit's starter agent does."""

    async def on_enter(self) -> None:
        self.session.generate_reply(instructions="Greet the user.")


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """Greet, and wait for the end of the room."""
    await ctx.connect()
    session: AgentSession[None] = AgentSession(
        vad=None, turn_handling={"turn_detection": None}, llm=openai.LLM(), tts=openai.TTS()
    )
    await session.start(Stock(instructions="Be brief."), room=ctx.room, room_options=RoomOptions(audio_input=False))


if __name__ == "__main__":
    cli.run_app(server)
