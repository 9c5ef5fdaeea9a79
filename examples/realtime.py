"""A speech-to-speech model with a memory: what is known of the user is added to the model's instructions.

$ python realtime.py dev    # needs the extra "openai", and OPENAI_API_KEY
"""

from __future__ import annotations

from dotenv import load_dotenv
from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli
from livekit.plugins import openai
from livekit_companion import MemoryTools, attach

load_dotenv(".env.local")
server = AgentServer()


@server.rtc_session(agent_name="realtime")
async def talk(ctx: JobContext) -> None:
    # A model whose instructions can change in a session. One that keeps those it starts with knows a user who is named
    # before session.start: in the job's metadata, {"user_id": "..."}, or by attach(..., caller=Caller("...")).
    session = AgentSession[None](llm=openai.realtime.RealtimeModel(voice="marin"), tools=[MemoryTools()])
    memory = await attach(session, ctx)
    await session.start(agent=Agent(instructions="You are a friendly voice assistant. Be brief."), room=ctx.room)
    await ctx.connect()
    await memory.greet("Greet the user.")


if __name__ == "__main__":
    cli.run_app(server)
