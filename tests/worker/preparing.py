"""Callers whose next greetings a real worker prepares, and whose jobs are killed meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from benchmarks.first_sound.elapsed import age_store
from cache import keys
from companion.prompts import PREPARED
from companion.store import SqliteStore
from tests.real.livekit.agent_process import AgentProcess
from tests.real.livekit.livekit_job import Job
from tests.real.livekit.livekit_server import LiveKitServer
from tests.real.models.openai_server import ChatRequest, OpenAIServer, Reply
from tests.real.redis.redis_server import RedisServer
from tests.wait import until
from tests.worker.test_worker import model, user

LONG: Final = "Hello Bea, it is good to hear from you."
"""The greeting of a caller who likes bees."""
NO_TEXT, NO_SPEECH, PREPARED_WELL = CALLERS = "cleo", "dan", "eli"
"""The first two are killed while the model, and while the voice, is asked for their greeting."""
AGO: Final = 400.0
"""Seconds to let pass: the call was not cut off, and what a killed job has left may be prepared by another one."""


def prepared(name: str) -> str:
    """The greeting that is prepared for a caller."""
    return f"Welcome back, {name}."


class Preparing:
    """The callers, and what the model and the voice answer for them.

    Args:
        store: the worker's.
        database: its file.
    """

    def __init__(self, store: SqliteStore, database: Path) -> None:
        self._store, self._database = store, database
        self._hang, self._hanging = True, set[str]()

    def model(self, body: dict[str, Any]) -> Reply | str:
        """What ``test_worker.model`` answers, but for the greetings of callers who are known."""
        answer, instructions = model(body), ChatRequest(body, {}).instructions
        if answer == "Hello." and "Likes: bees" in json.dumps(body):
            return LONG
        known = [name for name in CALLERS if f"Likes: {name}" in instructions]
        if answer != "Hello." or not known:
            return answer
        if PREPARED not in instructions:
            return f"Hello, {known[0]}."
        return Reply.silent() if known == [NO_TEXT] and self._hangs(NO_TEXT) else prepared(known[0])

    async def killed(self, process: AgentProcess, lk: LiveKitServer, openai: OpenAIServer, redis: RedisServer) -> None:
        """All have a conversation; two of the jobs are killed after it; then all come back."""
        for name in CALLERS:
            await self._store.save_profile(name, f"Likes: {name}")
        openai.audible = lambda text: any(name in text for name in CALLERS)
        openai.speech_hangs = lambda text: text == prepared(NO_SPEECH) and self._hangs(NO_SPEECH)

        jobs = dict(zip(CALLERS, await _starts(lk), strict=True))
        await asyncio.gather(*(_converse(job) for job in jobs.values()))

        async def kill(name: str) -> None:
            await jobs[name].leave()
            await until(lambda: name in self._hanging, timeout=30)
            (pid,) = set(re.findall(rf'"pid": (\d+), "job_id": "{jobs[name].id}"', process.log))
            os.kill(int(pid), signal.SIGKILL)
            if name == NO_SPEECH:
                (lease,) = redis.cli("KEYS", f"lease:*user:{name}:speech:*")
                assert redis.cli("PERSIST", lease) == 1, "as long as the next start takes"

        await asyncio.gather(jobs[PREPARED_WELL].end(), kill(NO_TEXT), kill(NO_SPEECH))
        self._hang = False
        assert not redis.cli("KEYS", f"user:{NO_SPEECH}:speech:*"), "no half speech"
        left = (await self._store.context(NO_TEXT)).opening
        assert left is not None
        await self._store.save_opening(NO_TEXT, replace(left, at=left.at + timedelta(seconds=AGO)))  # see `let_pass`
        age_store(AGO, self._database)
        redis.cli("DEL", *map(keys.greeting_instructions, CALLERS))

        asked, spoken = len(openai.requests), len(openai.spoken)
        back = await _starts(lk)
        for job in back:
            await job.wait_until(lambda job=job: "first_sound" in job.milestones, "a sound", 30)
        greetings = [f"Hello, {NO_TEXT}.", prepared(NO_SPEECH), prepared(PREPARED_WELL)]
        assert await asyncio.gather(*(job.greeting() for job in back)) == greetings
        by_model = [name for one in openai.requests[asked:] for name in CALLERS if f"Likes: {name}" in one.instructions]
        by_voice = [text for text in openai.spoken[spoken:] if openai.audible(text)]
        assert (by_model, sorted(by_voice)) == ([NO_TEXT], greetings[:2]), "what was not prepared"
        await asyncio.gather(*(job.leave() for job in back))

    def let_pass(self) -> None:
        """What a killed job has left may be prepared from now on. To be called while no worker runs."""
        age_store(AGO, self._database)

    async def another_voice(self, lk: LiveKitServer, openai: OpenAIServer) -> None:
        """One comes back to a worker with another voice, which is silent: what the first voice spoke is not played."""
        job = await lk.dispatch(metadata=user(PREPARED_WELL))
        assert await job.greeting() == prepared(PREPARED_WELL)
        assert prepared(PREPARED_WELL) in openai.spoken_by_other
        assert job.audio_seconds == 0

        async def texts() -> bool:
            opening = (await self._store.context(NO_TEXT)).opening
            return opening is not None and bool(opening.texts) and prepared(NO_TEXT) in opening.texts.values()

        await until(texts, timeout=30)  # by this job, when it is idle
        await job.leave()

    def _hangs(self, name: str) -> bool:
        if self._hang:
            self._hanging.add(name)
        return self._hang


async def _starts(lk: LiveKitServer) -> list[Job]:
    return await asyncio.gather(*(lk.dispatch(metadata=user(name)) for name in CALLERS))


async def _converse(job: Job) -> None:
    await job.greeting()
    await job.say("I play chess")
    assert await job.next_reply() == "You said I play chess."
