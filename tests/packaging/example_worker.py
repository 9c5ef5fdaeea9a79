"""A worker with the agents of several examples: the name of a room says which one answers.

One process with its jobs in threads, in the place of one worker for each example. Run by the interpreter of an
environment that has nothing but the wheel; ``realtime_stand_in`` and the examples are on its path.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any, Literal

from livekit import rtc
from livekit.agents import AgentServer, JobContext, JobExecutorType, cli, llm
from livekit.plugins import openai
from realtime_stand_in import SilentRealtime


class AnsweringRealtime(SilentRealtime):
    """Answers from its prompt; the real model needs a key."""

    def __init__(self, *, voice: str) -> None:
        super().__init__()
        self.capabilities.audio_output = True  # the text follows the sound

    def session(self, **_: Any) -> llm.RealtimeSession[Any]:
        session = super().session()
        session.generate_reply = self._generate_reply  # type: ignore[method-assign]  # its answer
        return session

    def _generate_reply(self, **_: Any) -> asyncio.Future[llm.GenerationCreatedEvent]:
        async def modalities() -> list[Literal["text", "audio"]]:
            return ["audio", "text"]

        text = "You play chess." if "I play chess" in self.prompts[-1] else "Hello."
        silence = rtc.AudioFrame(bytes(2 * 2_400), 24_000, 1, 2_400)
        message = llm.MessageGeneration("1", _stream(text), _stream(silence), modalities())
        answer: asyncio.Future[llm.GenerationCreatedEvent] = asyncio.Future()
        answer.set_result(llm.GenerationCreatedEvent(_stream(message), _stream(), user_initiated=True))
        return answer


async def _stream(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        yield item


openai.realtime.RealtimeModel = AnsweringRealtime  # type: ignore[assignment, misc]  # the stand-in

import handoff  # noqa: E402 - needs the line above, as do the others
import own_store  # noqa: E402 - likewise
import realtime  # noqa: E402 - likewise
import telephony  # noqa: E402 - likewise

ENTRYPOINTS = {"handoff": handoff.talk, "own": own_store.talk, "realtime": realtime.talk, "call": telephony.answer}
server = AgentServer(
    job_executor_type=JobExecutorType.THREAD,
    num_idle_processes=len(ENTRYPOINTS),
    host="127.0.0.1",
    port=0,
    load_threshold=math.inf,  # else it refuses jobs while the machine is loaded, by any process
)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    await ENTRYPOINTS[ctx.room.name.partition("-")[0]](ctx)


if __name__ == "__main__":
    cli.run_app(server)
