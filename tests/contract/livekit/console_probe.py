"""A program for LiveKit's text console that records what it finds there. See test_livekit_console.py."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli
from livekit.agents.cli import AgentsConsole
from livekit.agents.utils import is_dev_mode
from rich.console import Console

from tests.contract.livekit.livekit_stand_in import Asked, PlayedLLM

server = AgentServer(log_level="INFO")


class NoAudio(ModuleType):
    """A sounddevice that fails when it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ValueError("sounddevice was used")


def speak(asked: Asked) -> str:
    """Greets, then answers."""
    return "THE-GREETING" if asked.last.role == "system" else "THE-ANSWER"


class Greeter(Agent):
    """Greets on entering."""

    async def on_enter(self) -> None:
        self.session.generate_reply(instructions="greet")


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """Record the console's state, and talk."""
    console = AgentsConsole.get_instance()
    found: dict[str, Any] = {
        "enabled": console.enabled,
        "mode": console.console_mode,
        "terminal": isinstance(getattr(console, "console", None), Console),
        "fake": ctx.is_fake_job(),
        "dev": is_dev_mode(),
        "level": logging.getLevelName(logging.getLogger().level),
    }
    session: AgentSession[Any] = AgentSession(llm=PlayedLLM(speak), vad=None, turn_handling={"turn_detection": None})
    session.input.set_audio_enabled(False)
    session.output.set_audio_enabled(False)
    spoken = asyncio.Event()
    session.on("conversation_item_added", lambda event: spoken.set() if event.item.type == "message" else None)
    await session.start(Greeter(instructions="-"), room=ctx.room)
    await spoken.wait()
    found["said"] = [item.text_content for item in session.history.messages()]
    await asyncio.to_thread(Path(os.environ["CONTRACT_FOUND"]).write_text, json.dumps(found))


if __name__ == "__main__":
    sys.modules["sounddevice"] = NoAudio("sounddevice")
    cli.run_app(server)
