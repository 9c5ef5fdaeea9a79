"""One session of one person: what they say, when they interrupt, how they leave, and what must hold meanwhile."""

from __future__ import annotations

import asyncio
import random
import re
import time
from dataclasses import dataclass, field
from typing import Any, Final

from livekit.agents.ipc.mock_room import create_mock_room

from companion import Caller, get_user_profile_async, save_user_profile_async, use_caller
from companion.offline.replies import profile_in
from tests.faults.dialogue import Dialogue, open_dialogue
from tests.soak.ledger import Floor, Ledger
from tests.soak.people import Person, Sentence
from tests.soak.tally import Tally
from tests.soak.troubles import Troubles

ANSWER: Final = 12.0
"""Seconds an answer may take. A locked database holds a write back for up to five."""
_INTERRUPTS: Final = 0.15
_HANGS_UP: Final = 0.15
_MOMENTS: Final = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1)  # seconds until they interrupt
_KNOWN: Final = re.compile(r"This is what I know: (.*?)\.(?: You asked me| I cannot reach|$)")
_FACTS: Final = re.compile(r"You asked me to remember: (.*)\.$", re.DOTALL)
_JUST_SAID: Final = re.compile(r"You had just said: “(.*)”\. Shall we go on", re.DOTALL)


@dataclass
class House:
    """What all visits share."""

    ledger: Ledger
    troubles: Troubles
    tally: Tally
    rng: random.Random
    haste: float = 1.0
    """How long people think before they say something; 1 is usual."""
    room: Any = field(default_factory=create_mock_room.__wrapped__)
    """A mock that all share: it does nothing, and there is half a megabyte of it."""


class Visit:
    """One session of ``person``."""

    def __init__(self, person: Person, house: House) -> None:
        self._person = person
        self._id = person.user_id
        self._house = house
        self._tally = house.tally
        self._draw = house.rng

    async def happen(self) -> None:
        """From the greeting to the goodbye."""
        person, room = self._person, self._house.room
        person.talks += 1
        self._tally.sessions += 1
        floor, began = self._house.ledger.floor(self._id), time.monotonic()
        try:
            async with open_dialogue(self._id, room) as dialogue:
                self._tally.greetings += 1
                self._check_beginning(dialogue, floor, began)
                beside = asyncio.create_task(self._read_and_write(), name="beside the conversation")
                try:
                    await self._converse(dialogue)
                finally:
                    await beside
            self._remember(dialogue.session.history)
        finally:
            person.talks -= 1
            # Mocks remember every call, and with it the session. That of the room does not reach those in its dict.
            for mock in (room, *room.remote_participants.values()):
                mock.reset_mock()

    # -- talking -------------------------------------------------------------------------------------------------

    async def _converse(self, dialogue: Dialogue) -> None:
        for _ in range(self._draw.randint(2, 4)):
            sentence = self._person.sentence(self._draw)
            if self._draw.random() < _INTERRUPTS:
                await self._interrupt(dialogue, sentence)
            else:
                await self._ask(dialogue, sentence)
            await asyncio.sleep(self._draw.uniform(0.2, 1.2) * self._house.haste)
        if self._draw.random() < _HANGS_UP:
            self._tally.hung_up += 1
            dialogue.session.run(user_input=self._person.sentence(self._draw).words)
            await asyncio.sleep(self._draw.choice(_MOMENTS))

    async def _ask(self, dialogue: Dialogue, sentence: Sentence) -> None:
        floor, began = self._house.ledger.floor(self._id), time.monotonic()
        self._tally.answers_due += 1
        answer = await dialogue.say(sentence.words, ANSWER)
        if not answer:
            self._tally.note(f"no answer to {sentence.kind} during {self._house.troubles.now or 'nothing'}")
            return
        self._tally.answers += 1
        self._hear(answer)
        ledger, excused = self._house.ledger, self._house.troubles.store_was_away(began)
        match sentence.kind:
            case "profile" if "I will remember that you" in answer:
                self._kept(ledger.profile_acknowledged(self._id, sentence.token), "profile")
            case "fact" if answer == "I will remember that.":
                self._kept(ledger.fact_acknowledged(self._id, sentence.token), "fact")
            case "fact" if "write it down as soon as I can" in answer:
                ledger.fact_promised(self._id, sentence.token)
            case "know":
                known, facts = _KNOWN.search(answer), _FACTS.search(answer)
                self._judge_profile(known[1] if known else "", floor, excused, "answer")
                if facts or not excused:
                    self._judge(ledger.allows_facts(self._id, floor, facts[1] if facts else ""), "facts")

    async def _interrupt(self, dialogue: Dialogue, sentence: Sentence) -> None:
        """In mid-answer. Whatever was under way may or may not have happened."""
        self._tally.interrupted += 1
        run = dialogue.session.run(user_input=sentence.words)
        await asyncio.sleep(self._draw.choice(_MOMENTS))
        async with asyncio.timeout(ANSWER):
            await dialogue.session.interrupt()
            await run

    async def _read_and_write(self) -> None:
        """What hooks and background tasks of an agent do, cut off now and then."""
        for _ in range(self._draw.randint(1, 3)):
            await asyncio.sleep(self._draw.uniform(0.1, 0.8) * self._house.haste)
            with use_caller(Caller(self._id)):
                what = self._write() if self._draw.random() < 0.2 else self._read()
                task = asyncio.create_task(what, name="beside the conversation")
            if self._draw.random() < 0.3:
                await asyncio.sleep(self._draw.choice(_MOMENTS))
                task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()

    async def _read(self) -> None:
        floor, began = self._house.ledger.floor(self._id), time.monotonic()
        profile = await get_user_profile_async()
        self._hear(profile)
        self._judge_profile("; ".join(profile.splitlines()), floor, self._house.troubles.store_was_away(began), "read")

    async def _write(self) -> None:
        token = self._person.token()
        if await save_user_profile_async(f"Name: {self._person.word}\nLives in: {token}"):
            self._kept(self._house.ledger.profile_acknowledged(self._id, token), "profile")

    # -- judging -------------------------------------------------------------------------------------------------

    def _check_beginning(self, dialogue: Dialogue, floor: Floor, began: float) -> None:
        excused = self._house.troubles.store_was_away(began)
        instructions = str(dialogue.session.current_agent.instructions)
        self._hear(dialogue.greeting)
        self._hear(instructions)
        known = profile_in(instructions).splitlines()
        self._judge_profile("; ".join(known), floor, excused, "instructions")
        if (last := _JUST_SAID.search(dialogue.greeting)) is not None:
            self._judge(self._house.ledger.allows_last_words(self._id, floor, last[1]), "greeting")

    def _judge_profile(self, shown: str, floor: Floor, excused: bool, where: str) -> None:
        if shown or not excused:  # while the store cannot say, nothing is known, and that is no lie
            what = f"{where}, {'an old' if shown else 'no'} profile"
            self._judge(self._house.ledger.allows_profile(self._id, floor, shown), what)

    def _judge(self, right: bool, what: str) -> None:
        self._tally.reads += 1
        if not right:
            self._tally.stale += 1
            self._tally.note(f"stale: {what}, during {self._house.troubles.now or 'nothing'}")

    def _kept(self, kept: bool, what: str) -> None:
        self._tally.kept += 1
        if not kept:
            self._tally.gone += 1
            self._tally.note(f"acknowledged and not stored: {what}, during {self._house.troubles.now or 'nothing'}")

    def _hear(self, text: str) -> None:
        self._tally.heard += 1
        if self._person.is_betrayed_by(text):
            self._tally.cross_user += 1
            self._tally.note(f"somebody else's words, during {self._house.troubles.now or 'nothing'}")

    def _remember(self, history: Any) -> None:
        """Everything that was said has to be in the store; a greeting that nobody answered need not be."""
        messages = [message for message in history.messages() if (message.text_content or "").strip()]
        if any(message.role == "user" for message in messages):
            ids = {message.id for message in messages if message.role in ("user", "assistant")}
            self._tally.turns += len(ids)
            self._house.ledger.conversation_over(self._id, ids)
