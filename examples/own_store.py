"""A store of one's own: the database never holds a card number, whatever callers say.

Any object with the methods of ``Store`` is a store. One that is like another but for a few methods inherits the rest.

$ python own_store.py dev
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from dotenv import load_dotenv
from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, inference
from livekit_companion import MemoryTools, attach
from livekit_companion.companion.runtime import Runtime, set_runtime
from livekit_companion.companion.store import Memory, SqliteStore, Store, Summary, Turn

load_dotenv(".env.local")
DATABASE = Path(os.environ.get("COMPANION_HOME", ".companion")) / "masked.db"
CARD = re.compile(r"\b\d(?:[ -]?\d){12,18}\b")


def masked(text: str) -> str:
    return CARD.sub("(card number)", text)


class MaskingStore(SqliteStore):
    """Masks card numbers in everything that is written."""

    async def add_turn(self, user_id: str, turn: Turn) -> None:
        await super().add_turn(user_id, replace(turn, text=masked(turn.text)))

    async def add_memory(self, user_id: str, memory: Memory) -> None:
        await super().add_memory(user_id, replace(memory, text=masked(memory.text)))

    async def save_summary(self, user_id: str, summary: Summary) -> None:
        await super().save_summary(user_id, replace(summary, text=masked(summary.text)))

    async def save_profile(self, user_id: str, text: str, **options: Any) -> None:
        await super().save_profile(user_id, masked(text), **options)

    async def swap_profile(self, user_id: str, text: str, **options: Any) -> bool:
        return await super().swap_profile(user_id, masked(text), **options)


server = AgentServer()


@server.rtc_session(agent_name="own-store")
async def talk(ctx: JobContext) -> None:
    store: Store = MaskingStore(DATABASE)  # the annotation lets mypy check the protocol
    set_runtime(Runtime(store=store))  # before attach: each job's process has one runtime, and it closes the store
    session = AgentSession[None](
        stt=inference.STT(model="deepgram/nova-3", language="multi"),
        llm=inference.LLM(model="openai/gpt-5.2-chat-latest"),
        tts=inference.TTS(model="cartesia/sonic-3"),
        tools=[MemoryTools()],
    )
    memory = await attach(session, ctx)
    await session.start(agent=Agent(instructions="You are a friendly voice assistant. Be brief."), room=ctx.room)
    await ctx.connect()
    await memory.greet("Greet the user.")


if __name__ == "__main__":
    cli.run_app(server)
