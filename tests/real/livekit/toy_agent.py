"""A worker without external models: it greets the caller by name and repeats each message."""

from __future__ import annotations

import asyncio
import json
import math
import os
import struct
from collections.abc import AsyncIterator

from livekit import rtc
from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, function_tool, llm, room_io

server = AgentServer(load_fnc=lambda: 0.0, port=0, num_idle_processes=2)


class Toy(llm.LLM):
    def chat(self, *, chat_ctx, tools=None, conn_options, **_):
        return ToyStream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class ToyStream(llm.LLMStream):
    async def _run(self) -> None:
        last = self._chat_ctx.items[-1]
        delta = llm.ChoiceDelta(role="assistant")
        if last.type == "function_call_output":
            delta.content = f"The tool says {last.output}."
        elif "weather" in (last.text_content or ""):
            call = llm.FunctionToolCall(name="weather", arguments='{"city": "Bern"}', call_id="c1")
            delta.tool_calls = [call]
        else:
            delta.content = f"You said {last.text_content}."
        self._event_ch.send_nowait(llm.ChatChunk(id="1", delta=delta))


@function_tool
async def weather(city: str) -> str:
    """The weather in a city."""
    return f"sun in {city}"


async def tone() -> AsyncIterator[rtc.AudioFrame]:
    for start in range(0, 12_000, 1_200):
        samples = [int(8_000 * math.sin(2 * math.pi * 440 * i / 24_000)) for i in range(start, start + 1_200)]
        yield rtc.AudioFrame(struct.pack("<1200h", *samples), 24_000, 1, 1_200)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    name = json.loads(ctx.job.metadata)["user_id"] if ctx.job.metadata else None
    if name == "crash":
        os._exit(3)
    if name == "stumble":
        raise RuntimeError("the toy was told to stumble")
    await ctx.connect()
    if name is None:
        name = (await ctx.wait_for_participant()).identity
    audible = name == "listener"
    session = AgentSession(llm=Toy(), vad=None, turn_handling={"turn_detection": None})
    options = room_io.RoomOptions(audio_input=False, audio_output=audible)
    await session.start(Agent(instructions="toy", tools=[weather]), room=ctx.room, room_options=options)
    asked = asyncio.Event()
    session.on("conversation_item_added", lambda event: asked.set() if event.item.role == "user" else None)
    if audible:
        await session.say(f"Good morning, {name}.", audio=tone())
        session.output.set_audio_enabled(False)
    else:
        await session.say(f"Good morning, {name}.")
    if name == "goodbye":
        ctx.shutdown("toy")
    if name == "closer":
        await asked.wait()
        await ctx.delete_room()


if __name__ == "__main__":
    cli.run_app(server)
