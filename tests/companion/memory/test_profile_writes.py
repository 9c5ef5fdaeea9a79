"""Writes of profiles that overlap, come late, or meet a change by hand: nothing is lost, nothing removed returns."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from companion import Caller, get_user_profile_async, save_user_profile_async, use_caller
from companion.memory.context import search_memories_async
from companion.memory.profile import change_user_profile_async
from companion.memory.profile_change import patched, rewritten
from companion.profile_lines import MAX_PROFILE, lines_of
from companion.runtime import Runtime
from companion.store import StoreError
from companion.writes import Profile, Spool
from companion.writes.order import Stored
from companion.writes.profile_write import StoredText
from companion.writes.queue import WriteQueue
from companion.writes.records import Write, from_line, to_line

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ADA = Caller("ada")


async def stored(runtime: Runtime) -> str | None:
    return await runtime.store.get_profile("ada")


async def get_all(runtime: Runtime) -> list[str]:
    facts = await runtime.store.search_memories("ada", "", 1000)
    return [*lines_of(await stored(runtime) or ""), *(fact.text for fact in facts)]


async def authors(runtime: Runtime) -> list[str]:
    return [version.author for version in reversed(await runtime.store.profile_versions("ada"))]


def delay(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Put the store's profiles so many seconds away."""
    for name in ("context", "save_profile", "swap_profile", "profile_for_write"):
        method = getattr(runtime.store, name)

        async def slowly(*args: Any, method: Any = method, **kwargs: Any) -> Any:
            await asyncio.sleep(seconds)
            return await method(*args, **kwargs)

        monkeypatch.setattr(runtime.store, name, slowly)


# -- overlapping ---------------------------------------------------------------------------------------------------


async def test_two_conversations_at_once_lose_nothing(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    await runtime.store.save_profile("ada", "Name: Ada")
    delay(runtime, monkeypatch, 0.06)
    expected = {"Name: Ada"}
    with use_caller(ADA):
        for number in range(3):
            base = await stored(runtime) or ""
            said = [f"Fact {number}a: x", f"Fact {number}b: y"]
            first = asyncio.create_task(change_user_profile_async(rewritten(base, f"{base}\n{said[0]}")))
            await asyncio.sleep(0.02)
            second = await change_user_profile_async(rewritten(base, f"{base}\n{said[1]}"))
            assert (await first).stored
            assert second.stored
            expected |= {*said}
            assert set(lines_of(second.text)) == expected, "the second answer holds both"
            assert set(lines_of(await stored(runtime) or "")) == expected


async def test_a_line_that_one_conversation_removes_does_not_come_back_from_the_other(runtime: Runtime) -> None:
    base = "Name: Ada\nLives in: Oslo\nLikes: tea"
    await runtime.store.save_profile("ada", base)
    with use_caller(ADA):
        await change_user_profile_async(patched(base, [], ["Likes: tea"], [("Lives in: Oslo", "Lives in: Berlin")]))
        saved = await change_user_profile_async(rewritten(base, f"{base}\nWork: nurse"))
    assert saved.text == await stored(runtime) == "Name: Ada\nLives in: Berlin\nWork: nurse"
    assert await authors(runtime) == ["code", "tool", "merge"]


async def test_two_lines_of_one_label_are_both_kept(runtime: Runtime) -> None:
    with use_caller(ADA):
        await asyncio.gather(
            *(change_user_profile_async(rewritten("", f"Allergic to: {what}")) for what in ("nuts", "penicillin"))
        )
    assert set(lines_of(await stored(runtime) or "")) == {"Allergic to: nuts", "Allergic to: penicillin"}


@pytest.mark.parametrize("by_hand", ["UPDATE profiles SET text = 'Name: Ada'", "DELETE FROM profiles"])
async def test_what_was_removed_by_hand_does_not_come_back(runtime: Runtime, tmp_path: Path, by_hand: str) -> None:
    base = "Name: Ada\nLikes: tea"
    await runtime.store.save_profile("ada", base)
    with closing(sqlite3.connect(tmp_path / "store" / "companion.db", isolation_level=None)) as db:
        db.execute(by_hand)
    with use_caller(ADA):
        await change_user_profile_async(rewritten(base, f"{base}\nWork: nurse"))
    left = "Name: Ada\n" if by_hand.startswith("UPDATE") else ""
    assert await stored(runtime) == f"{left}Work: nurse"


async def test_a_profile_that_others_replace_each_time_is_retried(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap, times = runtime.store.swap_profile, 0

    async def busy(user_id: str, text: str, **given: Any) -> bool:
        nonlocal times
        times += 1
        if times <= 7:
            await runtime.store.save_profile(user_id, f"Turn: {times}")
        return await swap(user_id, text, **given)

    monkeypatch.setattr(runtime.store, "swap_profile", busy)
    with use_caller(ADA):
        assert (await change_user_profile_async(rewritten("", "Name: Ada"))).stored is False
        assert await runtime.write_behind.end_conversation("ada", 5) == 0
    assert await stored(runtime) == "Turn: 7\nName: Ada"


# -- late ------------------------------------------------------------------------------------------------------------


class Away:
    """Makes the store's writes of profiles fail; ``after``: although they were stored."""

    def __init__(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mode = ""
        for name in ("save_profile", "swap_profile"):
            monkeypatch.setattr(runtime.store, name, self._switched(getattr(runtime.store, name)))

    def _switched(self, method: Any) -> Any:
        async def switched(*args: Any, **kwargs: Any) -> Any:
            if self.mode == "before":
                raise StoreError("swap_profile", "timeout")
            result = await method(*args, **kwargs)
            if self.mode == "after":
                raise StoreError("swap_profile", "timeout")
            return result

        return switched


@pytest.fixture
def away(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Away:
    return Away(runtime, monkeypatch)


async def test_changes_wait_in_their_order(runtime: Runtime, away: Away) -> None:
    await runtime.store.save_profile("ada", "Name: Ada")
    away.mode = "before"
    known = "Name: Ada"
    with use_caller(ADA):
        for add, remove in (["Likes: tea"], []), (["Likes: jazz"], ["Likes: tea"]), (["Work: nurse"], []):
            saved = await change_user_profile_async(patched(known, add, remove, []))
            assert saved.stored is False
            known = saved.text
        assert known == await get_user_profile_async() == "Name: Ada\nLikes: jazz\nWork: nurse"
        away.mode = ""
        await runtime.store.swap_profile("ada", "Name: Ada\nPet: cat", instead_of="Name: Ada", at=NOON)
        assert await runtime.write_behind.end_conversation("ada", 5) == 0
    assert await stored(runtime) == "Name: Ada\nPet: cat\nLikes: jazz\nWork: nurse"


async def test_a_retry_of_what_was_stored_changes_nothing(runtime: Runtime, away: Away) -> None:
    away.mode = "after"
    with use_caller(ADA):
        assert (await change_user_profile_async(rewritten("", "Name: Ada\nLikes: tea"))).stored is False
    away.mode = ""
    await runtime.store.save_profile("ada", "Name: Ada")  # another worker has read it, and removed the line
    assert await runtime.write_behind.end_conversation("ada", 5) == 0
    assert await stored(runtime) == "Name: Ada"


async def test_an_old_spool_file_brings_nothing_back(runtime: Runtime) -> None:
    spool = Spool(runtime.settings.home)
    write = Profile("Name: Ada\nLikes: tea\nWork: nurse", made_from="Name: Ada\nLikes: tea", at=NOON)
    for _ in range(2):  # a process may die before it has removed the file
        spool.add("ada", [write, Profile("Name: Ada\nPet: cat", at=NOON)])
        await runtime.store.save_profile("ada", "Name: Ada\nLikes: tea\nPet: cat")
        await runtime.store.save_profile("ada", "Name: Ada")
        assert await runtime.write_behind.spool_replay.replay() == 2
    assert await stored(runtime) == "Name: Ada"
    # Stored by the first replay, and then removed by hand.
    assert any("Work: nurse" in version.text for version in await runtime.store.profile_versions("ada"))


async def test_a_late_text_does_not_replace_a_later_change_by_hand(runtime: Runtime, tmp_path: Path) -> None:
    await runtime.store.save_profile("ada", "Lives in: Oslo\nLikes: tea")
    Spool(runtime.settings.home).add("ada", [Profile("Lives in: Oslo\nPet: cat")])
    with closing(sqlite3.connect(tmp_path / "store" / "companion.db", isolation_level=None)) as db:
        db.execute("UPDATE profiles SET text = 'Name: Ada\nLikes: tea'")
    assert await runtime.write_behind.spool_replay.replay() == 1
    assert await stored(runtime) == "Name: Ada\nLikes: tea\nPet: cat"


async def test_a_line_that_a_late_text_says_again_is_not_taken_for_removed(runtime: Runtime) -> None:
    for number, text in enumerate(("Lives in: Oslo", "Lives in: Rome", "Lives in: Rome\nPet: cat")):
        before = await stored(runtime)
        at = NOON + timedelta(hours=number)
        assert await runtime.store.swap_profile("ada", text, instead_of=before, at=at)
    moved_back = Profile("Lives in: Oslo\nLives in: Rome", at=NOON + timedelta(hours=1.5))
    Spool(runtime.settings.home).add("ada", [moved_back])
    assert await runtime.write_behind.spool_replay.replay() == 1
    assert lines_of(await stored(runtime) or "") == ["Lives in: Rome", "Pet: cat", "Lives in: Oslo"]


async def test_a_profile_stays_in_the_spool_behind_one_that_fails(runtime: Runtime) -> None:
    spool = Spool(runtime.settings.home)
    adds = Profile("Likes: tea", made_from="", at=NOON)
    removes = Profile("", made_from="Likes: tea", at=NOON + timedelta(seconds=1))
    spool.add("ada", [adds, removes])
    (path,) = spool.files()

    async def first_fails(_: str, write: Any) -> None:
        if write == adds:
            raise StoreError("swap_profile", "timeout")

    assert (await spool.drain(path, first_fails))[0] == 0
    assert [from_line(line)[1] for line in path.read_text().splitlines()] == [adds, removes]


# -- the limit -------------------------------------------------------------------------------------------------------


async def test_lines_beyond_the_limit_become_facts_once(runtime: Runtime, away: Away) -> None:
    lines = [f"Fact {number:02}: {'x' * 90}" for number in range(60)]
    base = ""
    with use_caller(ADA):
        for batch in range(10):  # prose, each from an older base than the one before has left
            saved = await change_user_profile_async(rewritten("", "\n".join(lines[batch * 6 : batch * 6 + 6])))
            assert len(saved.text) <= MAX_PROFILE
        assert saved.surplus == 6
        base = await get_user_profile_async()
        facts = [memory.text for memory in await runtime.store.search_memories("ada", "", 100)]
        assert sorted([*lines_of(base), *facts]) == lines
        # There is room again, and an update succeeds.
        change = patched(base, ["Name: Ada"], lines[:2], [])
        assert (await change_user_profile_async(change)).text.endswith("\nName: Ada")
        assert "Fact 59" in str(await search_memories_async("59"))


async def test_a_text_of_one_megabyte_from_the_dashboard_is_read_up_to_the_limit(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [f"Fact {number}: my secret" for number in range(43_000)]
    await runtime.store.save_profile("ada", "\n".join(lines))
    with use_caller(ADA):
        read = await get_user_profile_async()
        assert MAX_PROFILE - 30 < len(read) <= MAX_PROFILE
        assert lines_of(read) == lines[: len(lines_of(read))]
        await runtime.store.save_profile("bea", "\n".join(lines))
        with use_caller(Caller("bea")):
            assert await get_user_profile_async() == read
        assert caplog.text.count("characters: only its lines up to 4000 are read") == 1
    assert "my secret" not in caplog.text


async def test_a_longer_text_from_the_dashboard_is_kept_whole_by_the_next_update(runtime: Runtime) -> None:
    lines = [f"Fact {number}: x" for number in range(4000)]
    await runtime.store.save_profile("ada", "\n".join(lines))
    with use_caller(ADA):
        read = await get_user_profile_async()
        assert (await change_user_profile_async(patched(read, ["Name: Ada"], [lines[0]], []))).stored
    facts = "\n".join(memory.text for memory in await runtime.store.search_memories("ada", "", 1000))
    assert sorted([*lines_of(await stored(runtime) or ""), *lines_of(facts)]) == sorted(["Name: Ada", *lines[1:]])


async def test_a_line_that_has_become_a_fact_meanwhile_is_removed_as_well(runtime: Runtime) -> None:
    lines = [f"Fact {number:02}: {'x' * 90}" for number in range(40)]
    base = "\n".join(lines)
    await runtime.store.save_profile("ada", base)
    with use_caller(ADA):
        assert await search_memories_async("39") == []
        longer = patched(base, [], [], [(lines[0], f"Fact 00: {'y' * 190}")])
        assert (await change_user_profile_async(longer)).surplus == 1
        assert await search_memories_async("39") == [lines[39]]
        await change_user_profile_async(patched(base, [], [lines[39]], []))
        assert await search_memories_async("39") == []
    assert lines[39] not in await get_all(runtime)


async def test_a_line_that_almost_became_a_fact_does_not_come_back_as_one(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another author removes it between the two steps of a write that has no room for it."""
    base = "\n".join([*(f"Fact {number}: {'x' * 990}" for number in range(3)), "Likes: tea"])
    await runtime.store.save_profile("ada", base)
    swap, interrupted = runtime.store.swap_profile, False

    async def interrupted_swap(user_id: str, text: str, **kwargs: Any) -> bool:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            assert await swap(user_id, base.replace("\nLikes: tea", ""), instead_of=base, at=NOON)
        return await swap(user_id, text, **kwargs)

    monkeypatch.setattr(runtime.store, "swap_profile", interrupted_swap)
    new = f"Work: {'y' * 990}"
    with use_caller(ADA):
        change = rewritten(base, base.replace("Likes: tea", f"{new}\nLikes: tea"))
        assert (await change_user_profile_async(change)).stored
    assert "Likes: tea" not in await get_all(runtime)
    assert new in await get_all(runtime)


async def test_a_whole_text_beyond_the_limit_is_kept_whole(runtime: Runtime) -> None:
    with use_caller(ADA):
        assert await save_user_profile_async(f"Name: Ada\n{'x' * 5000}\nLikes: tea")
        assert await get_user_profile_async() == "Name: Ada\nLikes: tea"
    assert [memory.text for memory in await runtime.store.search_memories("ada", "")] == ["x" * 5000]


# -- beside a worker of the version before ---------------------------------------------------------------------------


OLD = {
    "user_id": "ada",
    "kind": "profile",
    "text": "Name: Ada\nLives in: Oslo",
    "instead_of": [],
    "at": "2026-03-01T12:00:00+00:00",
    "made_from": "Name: Ada",
}


def test_a_line_has_the_fields_that_a_worker_of_the_version_before_knows() -> None:
    line = json.loads(
        to_line("ada", Profile("Name: Ada\nLives in: Oslo", at=NOON, made_from="Name: Ada", author="tool"))
    )
    assert line == OLD


async def test_a_line_of_the_version_before_is_applied_once(runtime: Runtime) -> None:
    await runtime.store.save_profile("ada", "Name: Ada\nLikes: tea")
    path = Spool(runtime.settings.home).add("ada", [Profile("x")])
    for _ in range(2):
        path.write_text(json.dumps(OLD) + "\n")
        assert await runtime.write_behind.spool_replay.replay() == 1
        assert await stored(runtime) == "Name: Ada\nLikes: tea\nLives in: Oslo"
    assert await authors(runtime) == ["code", "merge"]


async def test_writes_that_the_version_before_has_folded_lose_no_line(runtime: Runtime) -> None:
    """It kept only the last text of a queue, with those that it replaced."""
    await runtime.store.save_profile("ada", "Name: Ada\nPet: cat")
    path = Spool(runtime.settings.home).add("ada", [Profile("x")])
    folded = OLD | {
        "text": "Name: Ada\nLikes: tea\nWork: nurse",
        "made_from": "Name: Ada\nLikes: tea",  # which was never stored
        "instead_of": ["Name: Ada", "Name: Ada\nLikes: tea"],
    }
    path.write_text(json.dumps(folded) + "\n")
    assert await runtime.write_behind.spool_replay.replay() == 1
    assert set(lines_of(await stored(runtime) or "")) == {"Name: Ada", "Pet: cat", "Likes: tea", "Work: nurse"}


async def test_what_waits_is_shown_on_top_of_what_is_stored() -> None:
    """By an author who had not read the stored one: what the store has acknowledged does not vanish meanwhile."""
    away = False

    async def store(write: Write, late: bool, on_stored: Callable[[Stored], None]) -> None:
        if away:
            raise StoreError("swap_profile", "timeout")
        on_stored(Stored(StoredText(write.text) if isinstance(write, Profile) else None))

    queue = WriteQueue(store)
    assert await queue.write(Profile("Name: Ada\nLives in: Oslo", made_from="Work: baker")) is not None
    away = True
    assert await queue.write(Profile("Work: pilot", made_from="Work: baker")) is None
    assert lines_of(queue.pending_profile or "") == ["Name: Ada", "Lives in: Oslo", "Work: pilot"]
    await queue.stop()

    queue = WriteQueue(store)  # of the next conversation, which has read what is stored
    before = queue.stored_profile
    queue.saw_profile("Name: Ada", before=before)
    queue.saw_profile("Name: an older read", before=before)
    queue.add(Profile("Work: pilot", made_from=""))
    assert lines_of(queue.pending_profile or "") == ["Name: Ada", "Work: pilot"]
    await queue.stop()
