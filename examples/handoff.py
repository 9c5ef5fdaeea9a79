"""Two agents in one conversation: the memory belongs to the session, so both know the caller.

$ python handoff.py dev
"""

from __future__ import annotations

from dotenv import load_dotenv
from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, function_tool, inference
from livekit_companion import MemoryTools, attach

load_dotenv(".env.local")


class Receptionist(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="You are the receptionist. Pass the caller on as soon as they want a booking.")

    @function_tool
    async def pass_to_bookings(self) -> Agent:
        """Pass the caller on to the booking desk."""
        return BookingDesk()


class BookingDesk(Agent):
    def __init__(self) -> None:
        # Nothing about the caller: what is known of them is added to each request, whichever agent makes it.
        super().__init__(instructions="You are the booking desk. Book a table, and suggest what the caller likes.")

    async def on_enter(self) -> None:
        # An agent's own hooks run as ever. Only the session's first words are memory.greet's.
        self.session.generate_reply(instructions="Say that you are the booking desk, and ask for the day.")


server = AgentServer()


@server.rtc_session(agent_name="handoff")
async def talk(ctx: JobContext) -> None:
    session = AgentSession[None](
        stt=inference.STT(model="deepgram/nova-3", language="multi"),
        llm=inference.LLM(model="openai/gpt-5.2-chat-latest"),
        tts=inference.TTS(model="cartesia/sonic-3"),
        tools=[MemoryTools()],  # the session's, so that both agents can remember
    )
    memory = await attach(session, ctx)
    await session.start(agent=Receptionist(), room=ctx.room)
    await ctx.connect()
    await memory.greet("Greet the caller.")


if __name__ == "__main__":
    cli.run_app(server)
