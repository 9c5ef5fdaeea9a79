"""Random histories of one person who is known by several ids: writes, moves, erasures and forgetting, in any order.

An erasure is asked for under the present id, or under one of before, by a conversation that goes on. After everything
that was on its way has arrived, nothing is left that was said before an erasure or that was forgotten, and nothing else
is lost.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from companion.store import Memory, PersonErased, SqliteStore, Store, Summary, SupabaseStore, Thing, Turn
from companion.writes import Profile
from companion.writes.records import Write, apply_or_follow

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass
class Talk:
    """A conversation: the id it knows, what was erased when it began, and whether the person was erased since."""

    user_id: str
    since: int
    erased: bool = False


@dataclass
class History:
    """What has happened to one person."""

    store: Store
    ids: list[str]
    random: random.Random
    present: str = ""
    talks: list[Talk] = field(default_factory=list)
    waiting: list[tuple[Talk, Write]] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    said: int = 0

    async def begin(self) -> None:
        """Begin a conversation, which says something at once, so that there is something to move."""
        self.present = self.present or self.ids[0]
        self.talks.append(Talk(self.present, await self.store.latest_erasure()))
        await self.store.add_turn(self.present, Turn("user", "hello", NOON, "c0", since=self.talks[-1].since))

    async def say(self) -> None:
        """Say something in one of the conversations; it may be on its way for long."""
        talk = self.random.choice(self.talks)
        self.said += 1
        text, since = f"w{self.said} is said", talk.since
        writes: list[Write] = [
            Turn("user", text, NOON, "c", f"t{self.said}", since=since),
            Memory(text, NOON, f"f{self.said}", since=since),
            Summary(f"c{self.said}", text, NOON, since=since),
            Profile(text, made_from="", at=NOON, since=since),
        ]
        write = self.random.choice(writes)
        (self.gone if talk.erased else self.kept).add(text)
        if self.random.random() < 0.5:
            self.waiting.append((talk, write))
        else:
            await self.arrive(talk, write, late=False)

    async def arrive(self, talk: Talk, write: Write, *, late: bool = True) -> None:
        """Let a write come to the store, perhaps twice."""
        for _ in range(self.random.choice([1, 2])):
            try:
                await apply_or_follow(write, self.store, talk.user_id, late=late)
            except PersonErased:
                assert talk.erased
            late = True

    async def deliver(self) -> None:
        """Let one of those that are on their way come."""
        if self.waiting:
            await self.arrive(*self.waiting.pop(self.random.randrange(len(self.waiting))))

    async def move(self) -> None:
        """Know the person by another id from now on."""
        self.present = self.random.choice(self.ids)
        earlier = [each for each in self.ids if each != self.present]
        await self.store.move_user(self.random.sample(earlier, len(earlier)), self.present)

    async def erase(self) -> None:
        """Erase the person, under the present id or that of a conversation."""
        talks = [talk.user_id for talk in self.talks if not talk.erased]
        await self.store.erase_user(self.random.choice([self.present, *talks]), f"r{self.random.random()}")
        for talk in self.talks:
            talk.erased = True
        self.gone |= self.kept
        self.kept = set()

    async def forget(self) -> None:
        """Forget something, as a conversation asks for it."""
        talks = [talk for talk in self.talks if not talk.erased]
        if talks and self.kept:
            text = self.random.choice(sorted(self.kept))
            await self.store.forget(self.random.choice(talks).user_id, [Thing(text, text.split()[:1])])
            self.kept.remove(text)
            self.gone.add(text)

    async def found(self) -> str:
        """All that is kept under any of the ids, but turns that are skipped."""
        found = []
        for user_id in self.ids:
            data = await self.store.export_user(user_id)
            skipped = {turn.id for turn in (await self.store.context(user_id, 200)).turns if turn.skipped}
            found.append(repr(replace(data, turns=[turn for turn in data.turns if turn.id not in skipped])))
        return "".join(found)


async def check(store: Store, ids: list[str], seed: int) -> None:
    """Let such a history happen, and look at what is left."""
    history = History(store, ids, random.Random(seed))
    await history.begin()
    for _ in range(20):
        steps = [history.begin, history.deliver, history.move, history.erase, history.forget, *[history.say] * 4]
        await history.random.choice(steps)()
        if all(talk.erased for talk in history.talks):
            await history.begin()
    while history.waiting:
        await history.deliver()
    found = await history.found()
    assert {text for text in history.gone if text in found} == set(), seed
    assert {text for text in history.kept if text not in found} == set(), seed


async def test_nothing_comes_back_and_nothing_is_lost_in_sqlite(sqlite_store: SqliteStore, user: str) -> None:
    for seed in range(8):
        await check(sqlite_store, [f"{user}-{seed}-{name}" for name in "abc"], seed)


async def test_nothing_comes_back_and_nothing_is_lost_in_postgres(supabase_store: SupabaseStore, user: str) -> None:
    for seed in range(20, 28):
        await check(supabase_store, [f"{user}-{seed}-{name}" for name in "abc"], seed)
