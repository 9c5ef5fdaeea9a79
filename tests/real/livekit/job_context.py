"""A job without a LiveKit server: its context in this process, and its shutdown as the framework does it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from livekit.agents import JobContext
from livekit.agents.testing import fake_job_context


@asynccontextmanager
async def job_context(room: Any, metadata: str, *, dispatched: bool = True) -> AsyncIterator[JobContext]:
    """The context of one job; the job ends with the block.

    Args:
        room: a mock of the room.
        metadata: the job's metadata.
        dispatched: as from a LiveKit server; else as from the console.
    """
    with fake_job_context(room=room, job_metadata=metadata) as ctx:
        ctx._info.fake_job = not dispatched  # private: fake_job_context makes jobs of the console only
        ctx.job.room.sid = f"RM_{uuid4().hex}"  # or all jobs were for one room
        try:
            yield ctx
        finally:  # as livekit.agents.ipc ends a job, which has no public way to end one outside of its own process
            if (session := ctx._primary_agent_session) is not None:  # private: see above
                await session.aclose()
            callbacks = ctx._shutdown_callbacks  # private: see above
            await asyncio.gather(*(callback("the test is over") for callback in callbacks))
            await ctx._on_cleanup()  # private: see above
