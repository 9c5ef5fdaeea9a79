"""Races edits of a person against starts that choose a greeting, in several workers with one Redis and one store.

Each worker is a thread with a loop and a runtime of its own. By hand:
``python -m tests.companion.conversation.opening_race 10000``
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from livekit.agents import llm

from companion import Caller, save_user_profile_async, use_caller
from companion.conversation.opening.greeting import read_plan
from companion.conversation.opening.next_opening import prepare_opening
from companion.conversation.opening.prompt import GreetingPrompt
from companion.memory.context import add_memory_async
from companion.prompts import FOLLOW_UP_PROMPT
from companion.runtime import Runtime, close_runtime, get_runtime, set_runtime
from companion.settings import Settings
from companion.store import Memory, Opening, SqliteStore, StoreError, Turn
from companion.voice.prepared_speech import NoSpeech
from tests.companion.scripted import ScriptedLLM
from tests.real.redis.redis_server import RedisServer

PROMPT = GreetingPrompt("Be kind.", "Greet.", "en")
USER = "ada"


class NumberedLLM(ScriptedLLM):
    """Decides on a follow-up, and greets with another word each time, in letters."""

    numbers = count()

    def chat(self, *, chat_ctx: llm.ChatContext, **options: Any) -> Any:
        if chat_ctx.items[0].text_content == FOLLOW_UP_PROMPT:
            says = json.dumps({"follow_up": True, "confidence": 1, "topic": "chess"})
        else:
            says = "Hello " + str(next(self.numbers)).translate(str.maketrans("0123456789", "bcdfghklmn"))
        return ScriptedLLM(says).chat(chat_ctx=chat_ctx, **options)


@dataclass
class Race:
    """What the workers have seen.

    Attributes:
        edits: how many edits to make in all.
        made_of: the version that each prepared text was made of.
        acknowledged: the version up to which edits were acknowledged.
        seen: how many starts there were, and how many of them were prepared.
        stale: greetings of an older version than the one acknowledged before their start.
    """

    edits: int
    made_of: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    stale: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    async def edit(self, random_: random.Random) -> None:
        """Change the profile, or add a fact, one after the other."""
        with use_caller(Caller(USER)):
            for number in range(self.edits):
                if random_.random() < 0.5:
                    assert await save_user_profile_async(f"Mood: {number}")
                else:
                    assert await add_memory_async(Memory(f"fact {number}", datetime.now(UTC)))
                self.acknowledged = (await get_runtime().store.context(USER)).version
                await asyncio.sleep(random_.random() * 0.012)
                if number % 20 == 0:  # on a machine that is busy, every edit may come before the end of a preparation
                    await self._prepared()
        self.done.set()

    async def _prepared(self) -> None:
        before, give_up = self.seen["prepared"], time.monotonic() + 30
        while self.seen["prepared"] == before and time.monotonic() < give_up:  # noqa: ASYNC110 - of another thread
            await asyncio.sleep(0.001)

    async def prepare(self) -> None:
        """Prepare the next greeting, again and again."""
        with use_caller(Caller(USER)):
            while not self.done.is_set():
                try:
                    await prepare_opening(USER, PROMPT, NoSpeech())
                except StoreError:
                    self.seen["store busy"] += 1
                await asyncio.sleep(0.001)

    async def start(self, random_: random.Random) -> None:
        """Choose a greeting, again and again."""
        with use_caller(Caller(USER)):
            while not self.done.is_set():
                known = self.acknowledged
                text = (await read_plan(USER)).text(PROMPT.hash)
                self.seen["prepared" if text else "not prepared"] += 1
                if text and self.made_of[text] < known:
                    self.stale.append(f"{text} of {self.made_of[text]}, {known} was acknowledged")
                await asyncio.sleep(random_.random() * 0.004)

    def keep(self, opening: Opening) -> None:
        """Note what the texts of an opening were made of, before they can be read."""
        for text in (opening.texts or {}).values():
            self.made_of[text] = opening.version


class NotingStore(SqliteStore):
    """Notes each opening that is stored."""

    def __init__(self, path: Path, race: Race) -> None:
        super().__init__(path)
        self._race = race

    async def save_opening(self, user_id: str, opening: Opening) -> None:
        self._race.keep(opening)
        await super().save_opening(user_id, opening)


def run(folder: Path, edits: int, seed: int = 0, workers: int = 2) -> Race:
    """Race, with the Redis of the environment.

    Args:
        folder: for the store and the workers' homes.
        edits: how many edits.
        seed: of the pauses.
        workers: how many; the first one edits, all prepare and start.
    """
    race = Race(edits)

    async def work(number: int) -> None:
        settings = Settings.from_env({**os.environ, "COMPANION_HOME": str(folder / str(number))})
        set_runtime(Runtime(settings, store=NotingStore(folder / "companion.db", race), model=NumberedLLM()))
        if number == 0:
            at = datetime.now(UTC) - timedelta(hours=1)
            await get_runtime().store.add_turn(USER, Turn("user", "I play chess", at, "c1"))
        random_ = random.Random(seed * 100 + number)
        roles = [race.prepare(), *(race.start(random_) for _ in range(3))]
        if number == 0:
            roles.append(race.edit(random_))
        try:
            await asyncio.gather(*roles)
        finally:
            race.done.set()
            await close_runtime()

    failures: list[BaseException] = []

    def thread(number: int) -> None:
        try:
            asyncio.run(work(number))
        except BaseException as problem:  # reported by the thread that waits
            failures.append(problem)

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(workers)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    if failures:
        raise failures[0]
    return race


def main() -> None:
    """Race by hand, with a Redis of its own."""
    os.environ |= {"CACHE_DEADLINE_MS": "10000", "CACHE_CONNECT_WAIT_MS": "5000"}
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as server:
        os.environ["REDIS_URL"] = server.url
        began = time.monotonic()
        race = run(Path(folder), int(sys.argv[1]))
    print(f"{race.edits} edits, {dict(race.seen)}, stale: {len(race.stale)}, {time.monotonic() - began:.0f} s")
    print("\n".join(race.stale[:10]))


if __name__ == "__main__":
    main()
