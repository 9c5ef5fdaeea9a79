"""What was forgotten stays so: no late write, no merge, no other conversation brings it back."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from companion import Caller, save_user_profile_async, use_caller
from companion.conversation.opening.greeting import make_plan
from companion.conversation.wrap_up import wrap_up
from companion.memory.facts import remember_fact_async
from companion.memory.forgetting import ForgottenFact, forget_fact_async
from companion.memory.profile import change_user_profile_async
from companion.memory.profile_change import patched, rewritten
from companion.runtime import Runtime
from companion.store import Memory, StoreError, Summary, Thing, Turn
from companion.writes import Profile, Spool
from companion.writes.records import apply
from tests.companion.scripted import ScriptedLLM
from tests.wait import until

pytestmark = pytest.mark.integration
LATER = datetime.now(UTC) + timedelta(days=1)  # a clock that is wrong changes nothing


@pytest.fixture
async def ada(runtime: Runtime) -> Caller:
    """The caller of a conversation that began before anything was forgotten."""
    caller = Caller("ada")
    with use_caller(caller):
        await runtime.write_behind.beginnings.number("ada")
    return caller


async def forget(what: str) -> ForgottenFact:
    with use_caller(Caller("ada")):
        return await forget_fact_async(what)


async def everything(runtime: Runtime) -> str:
    """All that the store would say of the person, without what was said in turns."""
    store = runtime.store
    versions = [version.text for version in await store.profile_versions("ada")]
    facts = [fact.text for fact in await store.search_memories("ada", "", 100)]
    return repr([await store.get_profile("ada"), versions, facts, await store.latest_summary("ada")])


def lines(at: datetime = LATER) -> list[Any]:
    """Writes of chess, in every kind."""
    return [
        Profile("Likes: chess", made_from="", at=at, author="tool"),
        Profile("Likes: chess\nLikes: go", made_from=None, at=at),
        Profile("Name: Ada\nlikes: Chess!", made_from="Name: Ada", at=at),
        Profile("Name: Ada\nLikes: chess, and go", made_from="Name: Ada\nLikes: chess", at=at),
        Memory("likes: chess.", at),
        Memory("Likes: chess\nLikes: running", at),
        Summary("c", "They play chess.", at),
        Turn("user", "I like chess so much", at, "c"),
    ]


@pytest.mark.parametrize("number", range(len(lines())))
async def test_a_replayed_write_does_not_bring_it_back(runtime: Runtime, number: int) -> None:
    await runtime.store.save_profile("ada", "Name: Ada\nLikes: chess")
    Spool(runtime.settings.home).add("ada", [Turn("user", "I like tea", LATER, "c"), lines()[number]])
    assert (await forget("I like chess")).removed == ["Likes: chess"]
    await runtime.write_behind.spool_replay.replay()
    assert not list(Spool(runtime.settings.home).files())
    assert "hess" not in await everything(runtime)
    plan, _ = await make_plan("ada")
    last_is_forgotten = isinstance(lines()[number], Turn)
    assert plan.last_words == ("" if last_is_forgotten else "I like tea")


@pytest.mark.parametrize(
    ("what", "line", "fact"),
    [
        ("下棋", "我喜欢下棋", "昨天我下棋了"),
        ("将棋", "趣味は将棋です", "毎週将棋をする"),
        ("หมากรุก", "ฉันชอบหมากรุก", "เล่นหมากรุกทุกวัน"),
        ("शतरंज", "मुझे शतरंज पसंद है", "शतरंज रोज़ खेलता है"),
    ],
)
async def test_a_word_is_forgotten_in_any_script(runtime: Runtime, what: str, line: str, fact: str) -> None:
    """Also within a sentence without blanks, where the store's search finds no word."""
    other = "name: Ada 人 ม म"
    await runtime.store.save_profile("ada", f"{line}\n{other}")
    await runtime.store.add_memory("ada", Memory(fact, LATER))
    assert set((await forget(what)).candidates) == {line, fact}, "asks which"
    assert set((await forget(f"everything about {what}")).removed) == {line, fact}
    assert what not in await everything(runtime)
    late = [Turn("user", f"{what}?", LATER, "c"), Summary("c", f"{line}.", LATER), Turn("user", "tea", LATER, "c")]
    Spool(runtime.settings.home).add("ada", late)
    await runtime.write_behind.spool_replay.replay()
    assert what not in await everything(runtime)
    assert [turn.skipped for turn in (await runtime.store.context("ada")).turns] == [True, False]


async def test_nor_does_a_write_of_this_process_that_waited_for_the_store(
    runtime: Runtime, ada: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise StoreError("write", "away")

    for operation in ("swap_profile", "add_memory", "add_turn", "profile_for_write", "save_summary"):
        monkeypatch.setattr(runtime.store, operation, fail)
    monkeypatch.setattr("companion.writes.queue._BACKOFF", (0.05,))  # private: a shorter pause than a person's
    runtime.write_behind.begin_conversation("ada")
    runtime.write_behind.add("ada", *lines())
    with use_caller(ada):
        assert await remember_fact_async("Likes: chess") == "waiting"
    await forget("I like chess")
    monkeypatch.undo()
    assert await runtime.write_behind.end_conversation("ada", 10) == 0
    assert "hess" not in await everything(runtime)


async def test_nor_does_a_conversation_that_has_read_it(runtime: Runtime, ada: Caller) -> None:
    read = "Name: Ada\nLikes: chess"
    await runtime.store.save_profile("ada", read)
    await forget("I like chess")
    with use_caller(ada):
        for change in (
            rewritten(read, f"{read}\nLikes: tea"),
            patched(read, ["Work: nurse"], [], []),
            patched(read, [], [], [("Likes: chess", "Likes: chess and go")]),
        ):
            await change_user_profile_async(change)
        assert await save_user_profile_async(f"{read}\nLikes: go", made_from=read)
        assert await save_user_profile_async("Name: Ada\nLikes: chess\nWork: nurse")
    assert await runtime.store.get_profile("ada") == "Name: Ada\nWork: nurse"
    assert "hess" not in await everything(runtime)


async def test_what_is_said_again_is_kept(runtime: Runtime, ada: Caller) -> None:
    await runtime.store.save_profile("ada", "Likes: chess")
    await forget("I like chess")
    with use_caller(ada):
        saved = await change_user_profile_async(patched("", ["Likes: chess"], [], []))
        assert saved.text == "Likes: chess"
        assert await save_user_profile_async("Likes: chess\nName: Ada")
        assert await remember_fact_async("plays chess") == "stored"
    await runtime.store.add_turn("ada", Turn("user", "chess again", datetime.now(UTC), "c"))
    assert await runtime.store.get_profile("ada") == "Likes: chess\nName: Ada"
    Spool(runtime.settings.home).add("ada", [Memory("Likes: chess", LATER)])
    await runtime.write_behind.spool_replay.replay()
    assert await runtime.store.count_memories("ada") == 2, "said again, it is a fact like any other"


async def test_a_whole_text_replaces_the_profile_if_its_author_knows_what_was_forgotten(runtime: Runtime) -> None:
    before, again = Caller("ada"), "Likes: chess\nName: Ada"
    with use_caller(before):
        assert await save_user_profile_async("Likes: chess")
        await forget("I like chess")
        assert await save_user_profile_async(again)
        assert await runtime.store.get_profile("ada") == "Name: Ada", "it may have been made from what was read before"
    with use_caller(Caller("ada")):
        assert await save_user_profile_async(again)
    assert await runtime.store.get_profile("ada") == again


@pytest.mark.parametrize("conversation", ["same", "next"])
async def test_what_is_said_again_while_the_store_is_away_is_kept(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, conversation: str
) -> None:
    caller = Caller("ada")
    await runtime.store.save_profile("ada", "Likes: chess")
    with use_caller(caller):
        assert await forget_fact_async("I like chess")
    if conversation == "next":
        caller = Caller("ada")
        runtime.write_behind.beginnings.note(caller)
        await until(lambda: caller.beginning.erasures is not None)

    async def fail(*_: object, **__: object) -> None:
        raise StoreError("write", "away")

    runtime.write_behind.begin_conversation("ada")
    with use_caller(caller), monkeypatch.context() as away:
        for write in ("add_memory", "swap_profile", "profile_for_write"):
            away.setattr(runtime.store, write, fail)
        assert await remember_fact_async("I like chess") == "waiting"
        assert not (await change_user_profile_async(patched("", ["Likes: chess"], [], []))).stored
    assert await runtime.write_behind.end_conversation("ada", 5.0) == 0
    assert await runtime.store.get_profile("ada") == "Likes: chess"
    assert [fact.text for fact in await runtime.store.search_memories("ada", "", 9)] == ["I like chess"]


async def test_another_conversation_does_not_summarise_it(runtime: Runtime, ada: Caller, model: ScriptedLLM) -> None:
    turns = [
        Turn("user", words, datetime.now(UTC) + timedelta(seconds=number), "running")
        for number, words in enumerate(["My sister visits on Friday", "I like chess a lot", "It rains"])
    ]
    for turn in turns:
        await runtime.store.add_turn("ada", turn)
    await forget("chess")
    model.says = "A note."
    await wrap_up(ada, "running", turns)
    (asked, *_) = [str(item.messages()) for item in model.asked if "note a voice companion" in str(item.messages())]
    assert "sister" in asked
    assert "chess" not in asked


async def test_nor_if_it_is_forgotten_while_the_model_summarises(
    runtime: Runtime, ada: Caller, model: ScriptedLLM
) -> None:
    for text, kept in (("They like chess.", ""), ("Their sister visits.", "Their sister visits.")):
        model.says, asked = text, len(model.asked)
        model.gate.clear()
        turns = [Turn("user", "My sister and I play chess", datetime.now(UTC), text)]
        ending = asyncio.create_task(wrap_up(ada, text, turns))
        await until(lambda asked=asked: len(model.asked) > asked)
        await forget("chess")
        model.gate.set()
        await ending
        summary = await runtime.store.latest_summary("ada")
        assert (summary.text if summary else "") == kept


async def test_nor_if_it_is_forgotten_at_the_moment_of_the_write(
    runtime: Runtime, ada: Caller, model: ScriptedLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.says, save = "They like chess.", runtime.store.save_summary

    async def just_before(*given: Any) -> None:
        monkeypatch.setattr(runtime.store, "save_summary", save)
        await runtime.store.forget("ada", [Thing("Likes: chess", ["chess"])])
        await save(*given)

    monkeypatch.setattr(runtime.store, "save_summary", just_before)
    runtime.write_behind.begin_conversation("ada")
    await wrap_up(ada, "c", [Turn("user", "I play chess", datetime.now(UTC), "c")])
    assert runtime.store.save_summary == save, "it was written"
    assert await runtime.write_behind.end_conversation("ada", 5.0) == 0
    assert await runtime.store.latest_summary("ada") is None


async def test_what_is_mentioned_again_is_summarised(runtime: Runtime, ada: Caller, model: ScriptedLLM) -> None:
    await forget("chess")
    model.says = "They like chess again."
    await wrap_up(ada, "c", [Turn("user", "I play chess again", datetime.now(UTC), "c")])
    summary = await runtime.store.latest_summary("ada")
    assert summary is not None
    assert summary.text == model.says


async def test_what_waits_is_found_and_forgotten(
    runtime: Runtime, ada: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise StoreError("write", "away")

    monkeypatch.setattr(runtime.store, "add_memory", fail)
    runtime.write_behind.begin_conversation("ada")
    with use_caller(ada):
        for fact in ("My sister visits on Friday", "My sister lives in Rome"):
            assert await remember_fact_async(fact) == "waiting"
    assert len((await forget("my sister")).candidates) == 2
    await forget("My sister lives in Rome")
    monkeypatch.undo()
    await until(lambda: not runtime.write_behind.waiting_facts("ada"))
    assert [fact.text for fact in await runtime.store.search_memories("ada", "")] == ["My sister visits on Friday"]
    assert await runtime.write_behind.end_conversation("ada", 10) == 0


@pytest.mark.parametrize("seed", range(20))
async def test_no_interleaving_of_writes_brings_it_back(runtime: Runtime, seed: int) -> None:
    """A write that comes while something is being forgotten is refused, and cleared when it is tried again."""
    rng, store, read = Random(seed), runtime.store, "Name: Ada\nLikes: chess\nLikes: tea"
    await store.save_profile("ada", read)
    kinds = [
        lambda: (Profile(f"{read}\nNote: {rng.random()}", made_from=read, author="tool"), False),
        lambda: (Profile(read.replace("chess", "chess and go"), made_from=read, author="tool"), rng.random() < 0.5),
        lambda: (Profile(f"{read}\nWork: nurse"), rng.random() < 0.5),
        lambda: (Profile("Likes: chess", made_from="", author="tool"), True),
        lambda: (Memory("Likes: chess", LATER), True),
        lambda: (Summary("c", "They like chess.", LATER), True),
    ]

    async def write(what: Any, late: bool) -> None:
        await asyncio.sleep(rng.random() * 0.02)
        while True:  # as the queue does
            with suppress(StoreError):
                await apply(what, store, "ada", late=late)
                return
            late = True

    async def forget_soon() -> None:
        await asyncio.sleep(rng.random() * 0.02)
        await forget("Likes: chess")

    await asyncio.gather(forget_soon(), *(write(*rng.choice(kinds)()) for _ in range(6)))
    kept = await everything(runtime)
    assert "Likes: chess\\n" not in kept
    assert "Likes: chess'" not in kept
    assert "They like chess" not in kept
