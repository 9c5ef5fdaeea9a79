"""One session of a persona: utterances, interruptions and disconnection, and the checks of every reply."""

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
from tests.faults.harness.dialogue import Dialogue, open_dialogue
from tests.soak.fault_injector import FaultInjector
from tests.soak.measures.counters import Counters
from tests.soak.measures.expected_state import ExpectedState, Floor
from tests.soak.sessions.personas import Persona, Utterance

ANSWER_TIMEOUT: Final = 12.0
"""Seconds until an answer must arrive. A locked database delays a write by up to five."""
_INTERRUPT_SHARE: Final = 0.15
_DISCONNECT_SHARE: Final = 0.15
_DELAYS: Final = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1)  # seconds until an interruption or cancellation
_KNOWN: Final = re.compile(r"This is what I know: (.*?)\.(?: You asked me| I cannot reach| This is what I have|$)")
_FACTS: Final = re.compile(r"You asked me to remember: (.*)\.$", re.DOTALL)
_JUST_SAID: Final = re.compile(r"You had just said: “(.*)”\. Shall we go on", re.DOTALL)


@dataclass
class SharedState:
    """Collaborators shared by all sessions."""

    expected: ExpectedState
    injector: FaultInjector
    counters: Counters
    rng: random.Random
    pace: float = 1.0
    """Factor on the pauses between utterances."""
    room: Any = field(default_factory=create_mock_room.__wrapped__)
    """One mock room for all sessions: each would take half a megabyte."""


class UserSession:
    """One session of ``persona``."""

    def __init__(self, persona: Persona, shared: SharedState) -> None:
        self._persona = persona
        self._id = persona.user_id
        self._shared = shared
        self._counters = shared.counters
        self._rng = shared.rng

    async def run(self) -> None:
        """Run the session from greeting to shutdown."""
        persona, room = self._persona, self._shared.room
        persona.open_sessions += 1
        self._counters.sessions += 1
        floor, began = self._shared.expected.floor(self._id), time.monotonic()
        try:
            async with open_dialogue(self._id, room) as dialogue:
                self._counters.greetings += 1
                self._check_start(dialogue, floor, began)
                background = asyncio.create_task(self._use_in_background(), name="background use")
                try:
                    await self._converse(dialogue)
                finally:
                    await background
            self._record_turns(dialogue.session.history)
        finally:
            persona.open_sessions -= 1
            # Mocks keep every call and so the session. reset_mock() of the room does not reach the mocks in its dict.
            for mock in (room, *room.remote_participants.values()):
                mock.reset_mock()

    # -- the dialogue ---------------------------------------------------------------------------------------------

    async def _converse(self, dialogue: Dialogue) -> None:
        for _ in range(self._rng.randint(2, 4)):
            utterance = self._persona.utterance(self._rng)
            if self._rng.random() < _INTERRUPT_SHARE:
                await self._interrupt(dialogue, utterance)
            else:
                await self._ask(dialogue, utterance)
            await asyncio.sleep(self._rng.uniform(0.2, 1.2) * self._shared.pace)
        if self._rng.random() < _DISCONNECT_SHARE:
            self._counters.disconnected += 1
            dialogue.session.run(user_input=self._persona.utterance(self._rng).text)
            await asyncio.sleep(self._rng.choice(_DELAYS))

    async def _ask(self, dialogue: Dialogue, utterance: Utterance) -> None:
        floor, began = self._shared.expected.floor(self._id), time.monotonic()
        self._counters.answers_due += 1
        answer = await dialogue.say(utterance.text, ANSWER_TIMEOUT)
        if not answer:
            self._counters.add_example(f"no answer to {utterance.kind} during {self._shared.injector.during}")
            return
        self._counters.answers += 1
        self._check_text(answer)
        expected, excused = self._shared.expected, self._shared.injector.store_failed_since(began)
        match utterance.kind:
            case "profile" if "I will remember that you" in answer:
                self._check_acknowledged(expected.profile_acknowledged(self._id, utterance.token), "profile")
            case "fact" if answer == "I will remember that.":
                self._check_acknowledged(expected.fact_acknowledged(self._id, utterance.token), "fact")
            case "fact" if "write it down as soon as I can" in answer:
                expected.fact_promised(self._id, utterance.token)
            case "know":
                known, facts = _KNOWN.search(answer), _FACTS.search(answer)
                # An answer that says that the rest cannot be reached shows what waits, and not what is stored.
                if not (excused and "I cannot reach the rest of what I know" in answer):
                    self._check_profile(known[1] if known else "", floor, excused, "answer")
                # An answer that says that others cannot be reached need not hold the newest.
                partial = excused and "I cannot reach the other facts right now" in answer
                if (facts or not excused) and not partial:
                    self._check_read(expected.allows_facts(self._id, floor, facts[1] if facts else ""), "facts")

    async def _interrupt(self, dialogue: Dialogue, utterance: Utterance) -> None:
        """Interrupt the answer. A write in progress may or may not be carried out."""
        self._counters.interrupted += 1
        run = dialogue.session.run(user_input=utterance.text)
        await asyncio.sleep(self._rng.choice(_DELAYS))
        async with asyncio.timeout(ANSWER_TIMEOUT):
            await dialogue.session.interrupt()
            await run

    async def _use_in_background(self) -> None:
        """Read and write as hooks and background tasks of an agent do; cancel some calls."""
        for _ in range(self._rng.randint(1, 3)):
            await asyncio.sleep(self._rng.uniform(0.1, 0.8) * self._shared.pace)
            with use_caller(Caller(self._id)):
                what = self._write() if self._rng.random() < 0.2 else self._read()
                task = asyncio.create_task(what, name="background use")
            if self._rng.random() < 0.3:
                await asyncio.sleep(self._rng.choice(_DELAYS))
                task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()

    async def _read(self) -> None:
        floor, began = self._shared.expected.floor(self._id), time.monotonic()
        profile = await get_user_profile_async()
        self._check_text(profile)
        self._check_profile(
            "; ".join(profile.splitlines()), floor, self._shared.injector.store_failed_since(began), "read"
        )

    async def _write(self) -> None:
        token = self._persona.token()
        if await save_user_profile_async(f"Name: {self._persona.marker}\nLives in: {token}"):
            self._check_acknowledged(self._shared.expected.profile_acknowledged(self._id, token), "profile")

    # -- checks --------------------------------------------------------------------------------------------------

    def _check_start(self, dialogue: Dialogue, floor: Floor, began: float) -> None:
        excused = self._shared.injector.store_failed_since(began)
        instructions = dialogue.prompt
        self._check_text(dialogue.greeting)
        self._check_text(instructions)
        known = profile_in(instructions).splitlines()
        self._check_profile("; ".join(known), floor, excused, "instructions")
        if (last := _JUST_SAID.search(dialogue.greeting)) is not None:
            self._check_read(self._shared.expected.allows_last_words(self._id, floor, last[1]), "greeting")

    def _check_profile(self, shown: str, floor: Floor, excused: bool, where: str) -> None:
        if shown or not excused:  # an empty profile is correct while the store fails
            what = f"{where}, {'an old' if shown else 'no'} profile"
            self._check_read(self._shared.expected.allows_profile(self._id, floor, shown), what)

    def _check_read(self, valid: bool, what: str) -> None:
        self._counters.reads += 1
        if not valid:
            self._counters.stale += 1
            self._counters.add_example(f"stale: {what}, during {self._shared.injector.during}")

    def _check_acknowledged(self, stored: bool, what: str) -> None:
        self._counters.acknowledged += 1
        if not stored:
            self._counters.lost += 1
            self._counters.add_example(f"acknowledged and not stored: {what}, during {self._shared.injector.during}")

    def _check_text(self, text: str) -> None:
        self._counters.texts += 1
        if self._persona.finds_foreign_data_in(text):
            self._counters.cross_user += 1
            self._counters.add_example(f"another user's data, during {self._shared.injector.during}")

    def _record_turns(self, history: Any) -> None:
        """Require all turns to be stored; a greeting without a user turn need not be."""
        messages = [message for message in history.messages() if (message.text_content or "").strip()]
        if any(message.role == "user" for message in messages):
            ids = {message.id for message in messages if message.role in ("user", "assistant")}
            self._counters.turns += len(ids)
            self._shared.expected.session_ended(self._id, ids)
