"""A phone line that knows who calls: the caller is known by their number, and hears that the line remembers them.

$ lk sip dispatch create dispatch-rule.json    # each call gets a room of its own, and this agent
$ python telephony.py dev                      # needs the extra "phone"
"""

from __future__ import annotations

import os

from dotenv import load_dotenv
from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, inference
from livekit_companion import MemoryTools, attach

load_dotenv(".env.local")
# A number is then one identity, as E.164, whatever the trunk delivers. A caller id can be forged: let the memory of a
# phone call hold nothing that is worth a forgery. COMPANION_ID_KEY keeps a hash in place of the number.
os.environ.setdefault("COMPANION_PHONE_IDENTITY", "true")

# Spoken as it stands, in each call and before anything else: a model might leave it out, or change it.
CONSENT = "This is an automated assistant that remembers your calls. Say forget everything, and I erase what I know."

server = AgentServer()


@server.rtc_session(agent_name="telephony")  # the name in dispatch-rule.json
async def answer(ctx: JobContext) -> None:
    session = AgentSession[None](
        stt=inference.STT(model="deepgram/nova-3", language="multi"),
        llm=inference.LLM(model="openai/gpt-5.2-chat-latest"),
        tts=inference.TTS(model="cartesia/sonic-3"),
        tools=[MemoryTools()],  # forgetEverything, which the sentence promises, is one of them
    )
    memory = await attach(session, ctx)
    await session.start(agent=Agent(instructions="You answer the phone. Be brief and friendly."), room=ctx.room)
    await ctx.connect()
    await ctx.wait_for_participant()
    session.say(CONSENT)
    await memory.greet("Greet the caller and ask what you can do for them.")


if __name__ == "__main__":
    cli.run_app(server)
