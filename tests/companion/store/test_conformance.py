"""Behaviour common to all stores, run over each of them."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from companion.store import (
    Memory,
    Opening,
    OutboxRow,
    Removed,
    Store,
    StoreError,
    Summary,
    Thing,
    Turn,
    fact_key,
    knowing,
    words_of,
)
from companion.store.search_terms import search_words

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
TEXTS = [
    "",
    "plain",
    "  blanks kept \n\t",
    "line\r\nline",
    "quotes ' \" ` and \\ back\\slashes",
    "Zażółć gęślą jaźń — 日本語 — 👩‍👩‍👧 — e\u0301",
    '{"role": "user"}',
    "null",
    "'; DROP TABLE turns; --",
    "%00 %s {0} $1 :x ?",
    "x" * 200_000,
]


def said(text: str, seconds: float = 0, conversation: str = "c1") -> Turn:
    return Turn("user", text, NOON + timedelta(seconds=seconds), conversation)


async def test_a_stranger_has_nothing(store: Store, user: str) -> None:
    assert await store.get_profile(user) is None
    assert await store.recent_turns(user) == []
    assert await store.search_memories(user, "dog") == []
    assert await store.search_memories(user, "") == []


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
async def test_texts_come_back_as_they_went_in(store: Store, user: str, text: str) -> None:
    turn, memory = said(text), Memory(text, NOON)
    await store.save_profile(user, text)
    await store.add_turn(user, turn)
    await store.add_memory(user, memory)
    assert await store.get_profile(user) == text
    assert await store.recent_turns(user) == [turn]
    assert await store.search_memories(user, "") == [memory]


async def test_what_no_database_can_hold_is_marked_not_lost(store: Store, user: str) -> None:
    await store.save_profile(user, "a\x00b\ud800c")
    await store.add_turn(user, said("a\x00b\udfffc"))
    await store.add_memory(user, Memory("\x00 dog", NOON))
    assert await store.get_profile(user) == "a\ufffdb\ufffdc"
    assert [turn.text for turn in await store.recent_turns(user)] == ["a\ufffdb\ufffdc"]
    assert [memory.text for memory in await store.search_memories(user, "dog")] == ["\ufffd dog"]


async def test_a_profile_is_swapped_only_for_the_one_that_is_there(store: Store, user: str) -> None:
    assert await store.swap_profile(user, "new", instead_of="", at=NOON) is False
    assert await store.get_profile(user) is None
    await store.save_profile(user, "first\x00")
    assert await store.swap_profile(user, "new", instead_of="other", at=NOON) is False
    assert await store.swap_profile(user, "new", instead_of=None, at=NOON) is False
    assert await store.swap_profile(user, "second\x00", instead_of="first\x00", at=NOON) is True
    assert await store.get_profile(user) == "second\ufffd"
    assert await store.swap_profile(f"{user}-2", "third", instead_of="second\ufffd", at=NOON) is False
    assert await store.pending_changes_of(user, ["profile"]) == [OutboxRow(user, "profile", 2)]


async def test_a_profile_is_replaced(store: Store, user: str) -> None:
    await store.save_profile(user, "first")
    await store.save_profile(user, "second")
    assert await store.get_profile(user) == "second"


async def test_turns_are_deleted_by_age_and_nothing_else_is(store: Store, user: str) -> None:
    while await store.expire_turns(30, 1000) == 1000:  # what other tests have left
        pass
    now = datetime.now(UTC)
    ages = {days: replace(said(f"{days} days ago"), at=now - timedelta(days=days)) for days in (29, 31, 33, 32)}
    for turn in ages.values():
        await store.add_turn(user, turn)
    await store.add_turn(f"{user}-2", replace(said("of another"), at=now - timedelta(days=34)))
    await store.save_profile(user, "Name: Ada")
    await store.save_summary(user, Summary("c1", "about a dog", NOON))
    await store.add_memory(user, Memory("has a dog", NOON))
    await store.save_state(user, {"n": 1})
    assert [await store.expire_turns(30, 2), await store.recent_turns(f"{user}-2")] == [2, []]  # the oldest first
    assert await store.recent_turns(user) == [ages[32], ages[31], ages[29]]
    assert [await store.expire_turns(30, 2), await store.expire_turns(30, 2)] == [2, 0]
    context = await store.context(user)
    assert (context.profile, context.turns, context.state) == ("Name: Ada", [ages[29]], {"n": 1})
    assert context.summary == Summary("c1", "about a dog", NOON)
    assert [memory.text for memory in await store.search_memories(user, "dog")] == ["has a dog"]
    assert await store.pending_changes_of(user, ["turn"]) == [OutboxRow(user, "turn", 7)]  # invalidates the cache
    for days in (0, -1):
        with pytest.raises(StoreError):
            await store.expire_turns(days, 1)
    assert await store.recent_turns(user) == [ages[29]]


async def test_a_turn_of_a_clock_that_was_wrong_does_not_stay_for_ever(store: Store, user: str) -> None:
    now = datetime.now(UTC)
    ahead = replace(said("in 2099"), at=now + timedelta(days=30_000))
    soon = replace(said("in a minute"), at=now + timedelta(minutes=1))
    for turn in (soon, ahead):
        await store.add_turn(user, turn)
    await store.expire_turns(1, 1000)
    dated = {turn.text: turn.at for turn in await store.recent_turns(user)}
    assert dated["in a minute"] == soon.at
    assert abs(dated["in 2099"] - now) < timedelta(minutes=5)


async def test_a_turn_keeps_all_it_has(store: Store, user: str) -> None:
    turns = [
        Turn("user", "hello", NOON, "c1", id="t1"),
        Turn("assistant", "hi", NOON + timedelta(microseconds=1), "c2", id="t2"),
        Turn("user", "elsewhere", datetime(2026, 3, 2, 1, tzinfo=timezone(timedelta(hours=5))), "c3"),
    ]
    for turn in turns:
        await store.add_turn(user, turn)
    kept = await store.recent_turns(user)
    assert kept == turns
    assert all(turn.at.tzinfo is UTC for turn in kept)


async def test_recent_turns_are_the_last_ones_oldest_first(store: Store, user: str) -> None:
    for second in (5, 1, 4, 2, 3):
        await store.add_turn(user, said(str(second), second))
    assert [turn.text for turn in await store.recent_turns(user, 3)] == ["3", "4", "5"]
    assert [turn.text for turn in await store.recent_turns(user)] == ["1", "2", "3", "4", "5"]
    assert await store.recent_turns(user, 0) == []
    assert await store.recent_turns(user, -1) == []


async def test_turns_of_one_instant_keep_the_order_of_writing(store: Store, user: str) -> None:
    for number in range(6):
        await store.add_turn(user, said(str(number)))
    assert [turn.text for turn in await store.recent_turns(user, 4)] == ["2", "3", "4", "5"]


async def test_writing_again_changes_nothing(store: Store, user: str) -> None:
    turn, memory = said("once"), Memory("a fact", NOON)
    for _ in range(3):
        await store.add_turn(user, turn)
        await store.add_memory(user, memory)
    await store.add_turn(user, Turn("user", "another text", NOON, "c9", id=turn.id))
    assert await store.recent_turns(user) == [turn]
    assert await store.search_memories(user, "fact") == [memory]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("My sister visits on Friday", "my sister  visits on friday.", True),
        ("My sister visits on Friday!", " My sister visits\non Friday ?! ", True),
        ("\uff2dy \ufb01sh swims", "My fish swims", True),
        ("Likes tea", "Likes te\u0301a", False),
        ("Likes tea", "Likes tea, not coffee", False),
        ("...", "!?", False),
        ("...", "...", True),
        ("", " ", False),
    ],
)
async def test_the_same_fact_is_kept_once(store: Store, user: str, one: str, other: str, same: bool) -> None:
    await store.add_memory(user, Memory(one, NOON))
    await store.add_memory(user, Memory(other, NOON))
    await store.add_memory(f"{user}-2", Memory(one, NOON))
    assert await store.count_memories(user) == (1 if same else 2)
    assert await store.count_memories(f"{user}-2") == 1
    assert (fact_key(one) == fact_key(other)) == same


async def test_the_same_fact_from_many_writers_at_once_is_kept_once(store: Store, user: str) -> None:
    await asyncio.gather(*(store.add_memory(user, Memory("My sister visits", NOON)) for _ in range(20)))
    assert [memory.text for memory in await store.search_memories(user, "")] == ["My sister visits"]


async def test_memories_are_counted_as_they_are_found(store: Store, user: str) -> None:
    for number in range(31):
        await store.add_memory(user, Memory(f"{'dog' if number % 3 else 'cat'} number {number}", NOON))
    assert await store.count_memories(user) == 31
    assert await store.count_memories(user, "dogs!") == 20
    assert await store.count_memories(user, "dog cat") == 31
    assert await store.count_memories(user, "horse") == 0
    assert await store.count_memories(f"{user}-2") == 0


async def test_a_fact_is_removed(store: Store, user: str) -> None:
    for text in ("My sister visits", "Likes tea"):
        await store.add_memory(user, Memory(text, NOON))
    await store.add_memory(f"{user}-2", Memory("My sister visits", NOON))
    assert await store.remove_memory(user, "my sister visits.") == 1
    assert await store.remove_memory(user, "my sister visits.") == 0
    assert [memory.text for memory in await store.search_memories(user, "")] == ["Likes tea"]
    assert await store.search_memories(user, "sister") == []
    assert await store.count_memories(f"{user}-2") == 1
    assert await store.pending_changes_of(user, ["memory"]) == [OutboxRow(user, "memory", 3)]


async def test_a_removed_fact_stays_removed(store: Store, user: str) -> None:
    """A retry, or a replay of the spool, writes it under its old id; a person who says it again makes a new one."""
    fact = Memory("My sister visits", NOON)
    await store.add_memory(user, fact)
    await store.remove_memory(user, fact.text)
    await store.add_memory(user, fact)
    assert await store.search_memories(user, "") == []
    await store.add_memory(f"{user}-2", fact)
    assert await store.count_memories(f"{user}-2") == 1, "another user's fact may have the same id"
    await store.add_memory(user, Memory(fact.text, NOON))
    assert await store.count_memories(user) == 1


CHESS = Thing("Likes: chess", words_of("Likes: chess"))


async def test_a_forgotten_thing_is_nowhere_any_more(store: Store, user: str) -> None:
    await store.save_profile(user, "Likes: chess\nName: Ada")
    await store.save_profile(user, "Name: Ada\r\n  likes:  Chess. \nLikes: tea")
    await store.add_memory(user, Memory("likes: chess!", NOON))
    await store.add_memory(user, Memory("My sister visits", NOON))
    for id, text in (("c1", "They play CHESS well."), ("c2", "Their sister visits.")):
        await store.save_summary(user, Summary(id, text, NOON))
    turns = [said("I like chéss"), said("We spoke of the chessboard"), said("My sister visits")]
    for turn in turns:
        await store.add_turn(user, turn)
    assert await store.forget(user, [CHESS]) == Removed(["likes:  Chess."], ["likes: chess!"])
    assert await store.get_profile(user) == "Name: Ada\nLikes: tea"
    versions = await store.profile_versions(user)
    assert [version.text for version in versions] == ["Name: Ada\nLikes: tea", "Name: Ada\nLikes: tea", "Name: Ada"]
    assert all([await store.restore_profile(user, version.number) for version in versions])
    assert "hess" not in str(await store.profile_versions(user))
    assert [memory.text for memory in await store.search_memories(user, "")] == ["My sister visits"]
    context = await store.context(user)
    assert [turn.skipped for turn in context.turns] == [True, True, False]
    assert context.turns == turns, "what was said stays"
    assert (await store.latest_summary(user) or CHESS).text in ("", "Their sister visits.")
    changed = {row.kind for row in await store.pending_changes_of(user, ["profile", "turn", "memory", "summary"])}
    assert changed == {"profile", "turn", "memory", "summary"}


async def test_a_line_of_a_fact_is_forgotten_and_the_others_are_kept(store: Store, user: str) -> None:
    await store.add_memory(user, Memory("Likes: tea\nLikes: chess.\nLikes: go", NOON))
    assert await store.forget(user, [CHESS]) == Removed([], ["Likes: chess."])
    assert [memory.text for memory in await store.search_memories(user, "")] == ["Likes: tea\nLikes: go"]
    assert await store.search_memories(user, "chess") == []
    assert (await store.forgotten(user)).left_of("Likes: go\nlikes: chess") == "Likes: go"


async def test_forgetting_what_is_not_there_changes_nothing_but_is_recorded(store: Store, user: str) -> None:
    await store.save_profile(user, "Name: Ada")
    await store.save_profile(f"{user}-2", "Likes: chess")
    assert await store.forget(user, [CHESS, CHESS]) == Removed([], [])
    assert await store.forget(user, []) == Removed([], [])
    assert await store.get_profile(user) == "Name: Ada"
    assert await store.get_profile(f"{user}-2") == "Likes: chess"
    assert len(await store.profile_versions(user)) == 1
    assert (await store.forgotten(user)).has("likes: chess")
    assert not (await store.forgotten(f"{user}-2")).tombstones


async def test_a_tombstone_knows_what_was_forgotten_until_it_is_said_again(store: Store, user: str) -> None:
    tea = Thing("Likes: tea", words_of("Likes: tea"))
    sister = Thing("My sister visits on Friday", words_of("My sister visits on Friday"))
    await store.forget(user, [CHESS, tea, sister])
    forgotten = await store.forgotten(user)
    assert [forgotten.has(text) for text in ("LIKES: chess.", "Likes: go", "Likes: tea")] == [True, False, True]
    assert forgotten.mentioned_in("Chess is fun")
    assert forgotten.mentioned_in("On Friday comes my sister")
    assert not forgotten.mentioned_in("My sister is kind")
    assert "chess" not in repr(forgotten)
    await store.save_profile(user, "Name: Ada\nLikes: chess")
    await store.add_memory(user, Memory("likes: tea", NOON))
    forgotten = await store.forgotten(user)
    assert [forgotten.has(text) for text in ("Likes: chess", "Likes: tea", sister.text)] == [False, False, True]


async def test_a_tombstone_is_recognised_in_any_script(store: Store, user: str) -> None:
    """Its hash is made by the store, and looked for by the worker: both write the text in lower case alike."""
    texts = ["Lives in: İstanbul", "Ζει στη ΡΟΔΟΣ.", "groẞ", "Ⅷ ﬁsh", "Київ", "寿司"]
    await store.forget(user, [Thing(text, ["x"]) for text in texts])
    forgotten = await store.forgotten(user)
    assert [text for text in texts if not forgotten.has(text)] == []


async def test_a_turn_that_mentions_it_is_skipped_in_any_script(store: Store, user: str) -> None:
    said = {
        "Ρόδος": "Η ΡΌΔΟΣ ΕΊΝΑΙ ΩΡΑΊΑ",
        "すしがり": "昨日はスシ、いや、すしがり",
        "Київ": "КИЇВ МОЄ МІСТО",
        "שלום": "שָׁלוֹם",
        "café": "A Café In Lyon",
    }
    for text in said.values():
        await store.add_turn(user, Turn("user", text, NOON, "c1"))
    await store.forget(user, [Thing(text, words_of(text)) for text in said])
    assert [turn.text for turn in (await store.context(user)).turns if not turn.skipped] == []
    forgotten = await store.forgotten(user)
    assert [text for text in said.values() if not forgotten.mentioned_in(text)] == []


async def test_a_late_write_is_refused_if_more_was_forgotten_meanwhile(store: Store, user: str) -> None:
    await store.save_profile(user, "Name: Ada")
    before = await store.forgotten(user)
    await store.forget(user, [CHESS])
    late = Turn("user", "chess", NOON, "c", id="t"), Memory("Likes: chess", NOON), Summary("c", "chess", NOON)
    for known, refused in ((before, True), (await store.forgotten(user), False)):
        writes = {
            "add_turn": store.add_turn(user, late[0]),
            "add_memory": store.add_memory(user, late[1]),
            "save_summary": store.save_summary(user, late[2]),
            "save_profile": store.save_profile(user, "Likes: go"),
            "swap_profile": store.swap_profile(user, "Likes: chess", instead_of="Name: Ada", at=NOON),
        }
        for operation, write in writes.items():
            with knowing(known), pytest.raises(StoreError) if refused else nullcontext():
                await write
                assert not refused, operation
        if refused:
            assert await store.get_profile(user) == "Name: Ada"
            assert await store.export_user(user) == replace(await store.export_user(user), turns=[], memories=[])
    assert await store.get_profile(user) == "Likes: go"
    assert await store.count_memories(user) == 1
    await store.forget(user, [CHESS])
    with knowing(known), pytest.raises(StoreError):
        await store.save_profile(user, "again")
    await store.save_profile(user, "said now")


async def test_words_are_found_as_they_are_said(store: Store, user: str) -> None:
    """Short words as a whole, longer ones with any ending, and words of scripts without blanks anywhere."""
    for text in ("good", "I play go.", "two dogs", "dogma", "sisters", "私は寿司が好き", "x" * 100_000):
        await store.add_turn(user, said(text))
    for thing in ("go", "dog", "sister", "寿司", "(a) [b", "the"):
        await store.forget(user, [Thing(thing, words_of(thing))])
    skipped = [turn.text[:20] for turn in (await store.context(user)).turns if turn.skipped]
    assert skipped == ["I play go.", "two dogs", "sisters", "私は寿司が好き"]


async def test_a_turn_is_marked_by_writing_it_again(store: Store, user: str) -> None:
    turn, late = said("forget it"), said("too")
    for each in (turn, replace(turn, skipped=True), turn, replace(late, skipped=True), late):
        await store.add_turn(user, each)
    assert [(each.text, each.skipped) for each in (await store.context(user)).turns] == [
        ("forget it", True),
        ("too", True),
    ]


async def test_users_are_apart(store: Store, user: str) -> None:
    other = f"{user}-2"
    turn, memory = said("mine"), Memory("my dog", NOON)
    await store.save_profile(user, "me")
    await store.add_turn(user, turn)
    await store.add_memory(user, memory)
    # Not even by the same ids.
    await store.add_turn(other, Turn("user", "theirs", NOON, "c1", id=turn.id))
    await store.add_memory(other, Memory("their dog", NOON, id=memory.id))
    assert await store.get_profile(other) is None
    assert await store.recent_turns(user) == [turn]
    assert await store.search_memories(user, "dog") == [memory]
    assert [turn.text for turn in await store.recent_turns(other)] == ["theirs"]
    assert [memory.text for memory in await store.search_memories(other, "dog")] == ["their dog"]


@pytest.mark.parametrize("odd", ["a,b", "a.b", "eq.x", "*", "%", "a b&user_id=eq.b", '"q"', "(a)", "ünï", "x" * 500])
async def test_odd_user_ids_are_only_names(store: Store, user: str, odd: str) -> None:
    await store.save_profile(f"{user}{odd}", "odd")
    await store.add_turn(f"{odd}{user}", said("odd"))
    assert await store.get_profile(f"{user}{odd}") == "odd"
    assert await store.get_profile(user) is None
    assert len(await store.recent_turns(f"{odd}{user}")) == 1


@pytest.fixture
async def facts(store: Store, user: str) -> None:
    for minutes, text in enumerate(
        [
            "Has a dog called Rex, a dog like no other dog",
            "Favourite colour: blue",
            "Drinks café crème",
            "Plays chess with O'Neil on Sundays; the dog watches",
            "Writes from rex@example.com",
        ]
    ):
        await store.add_memory(user, Memory(text, NOON + timedelta(minutes=minutes), id=f"m{minutes}"))


@pytest.mark.usefixtures("facts")
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("dog", ["m0", "m3"]),
        ("What about my DOGS?", ["m0", "m3"]),
        ("blue chess colour", ["m1", "m3"]),
        ("cafe creme", ["m2"]),
        ("CAFÉ", ["m2"]),
        ("cafe\u0301", ["m2"]),
        ("O'Neil's", ["m3"]),
        ("neil", ["m3"]),
        ("example", ["m4"]),
        ("rex@example.com", ["m4", "m0"]),
        ("playing", ["m3"]),
        ("cat", []),
        ("dog" * 1000, ["m4", "m3", "m2", "m1", "m0"]),
        ("", ["m4", "m3", "m2", "m1", "m0"]),
        ("  ?! ", ["m4", "m3", "m2", "m1", "m0"]),
        ("what is it", ["m4", "m3", "m2", "m1", "m0"]),
    ],
)
async def test_memories_are_found_by_their_words(store: Store, user: str, query: str, found: list[str]) -> None:
    assert [memory.id for memory in await store.search_memories(user, query)] == found


@pytest.mark.usefixtures("facts")
async def test_a_search_has_a_limit(store: Store, user: str) -> None:
    assert [memory.id for memory in await store.search_memories(user, "dog", 1)] == ["m0"]
    assert [memory.id for memory in await store.search_memories(user, "", 2)] == ["m4", "m3"]
    assert await store.search_memories(user, "dog", 0) == []
    assert await store.search_memories(user, "dog", -1) == []


@pytest.mark.usefixtures("facts")
async def test_no_words_of_a_user_are_an_error(store: Store, user: str) -> None:
    hostile = ['"', "'", '" OR text:*', "NEAR(a b, 2)", "AND", "OR NOT", "^dog*", "-dog", "{text}: dog", "dog\x00cat"]
    hostile += ["a:b & c | !d <-> (e):*", "\\", "\ud800", "((((", "%_", "日本 語", "*", "__", "\u0301", "1 2 3", "²½"]
    hostile += [" ".join(f"w{n}" for n in range(5000)), "é" * 50_000, "''::tsquery", "<b>dog</b>", "a" * 99]
    for query in hostile:
        assert isinstance(await store.search_memories(user, query), list)
    assert [memory.id for memory in await store.search_memories(user, '"dog" OR* chess')] == ["m3", "m0"]


def test_a_query_without_its_stop_words() -> None:
    assert search_words("What is my dog's name, and who is the Dog?") == ["dog", "name"]
    assert search_words("what is it?!") == []
    assert len(search_words(" ".join(map(str, range(100))))) == 32


async def test_a_failure_names_the_operation_not_the_data(store: Store) -> None:
    with pytest.raises(StoreError) as caught:
        await store.get_profile("secret\ud800name")
    assert caught.value.operation == "get_profile"
    assert str(caught.value) == f"get_profile failed: {caught.value.reason}"
    assert "secret" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


async def test_many_at_once(store: Store, user: str) -> None:
    turns = [said(str(number), number) for number in range(60)]
    await asyncio.gather(*(store.add_turn(user, turn) for turn in turns))
    assert await store.recent_turns(user, 100) == turns


async def test_a_closed_store_says_so(store: Store, user: str) -> None:
    await store.save_profile(user, "me")
    await store.close()
    await store.close()
    for operation, call in {
        "get_profile": store.get_profile(user),
        "save_profile": store.save_profile(user, "x"),
        "swap_profile": store.swap_profile(user, "x", instead_of="me", at=NOON),
        "profile_for_write": store.profile_for_write(user, "1"),
        "profile_versions": store.profile_versions(user),
        "restore_profile": store.restore_profile(user, 1),
        "add_turn": store.add_turn(user, said("x")),
        "recent_turns": store.recent_turns(user),
        "add_memory": store.add_memory(user, Memory("x", NOON)),
        "search_memories": store.search_memories(user, "x"),
        "save_summary": store.save_summary(user, Summary("c1", "x", NOON)),
        "latest_summary": store.latest_summary(user),
        "save_state": store.save_state(user, {}),
        "get_state": store.get_state(user),
        "save_opening": store.save_opening(user, Opening(0, {}, None, "p", NOON)),
        "claim_openings": store.claim_openings("p", older_than=0, limit=1),
        "context": store.context(user),
        "forget": store.forget(user, [CHESS]),
        "forgotten": store.forgotten(user),
        "pending_changes": store.pending_changes(),
        "pending_changes_of": store.pending_changes_of(user, ["turn"]),
        "acknowledge": store.acknowledge([OutboxRow(user, "turn", 1)]),
    }.items():
        with pytest.raises(StoreError) as caught:
            await call
        assert (caught.value.operation, caught.value.reason) == (operation, "closed")


def test_turns_and_memories_refuse_what_they_cannot_mean() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Turn("user", "x", datetime(2026, 1, 1), "c")
    with pytest.raises(ValueError, match="time zone"):
        Memory("x", datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="role"):
        Turn("king", "x", NOON, "c")  # type: ignore[arg-type]  # the case under test
    assert said("x").id != said("x").id
