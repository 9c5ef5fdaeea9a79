"""Forgets one thing of the current caller: a line of the profile or a fact, wherever a copy of it is."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from unicodedata import category

from cache import get_redis_cache

from ..caching import clear_speech
from ..identity import current_caller
from ..profile_lines import lines_of
from ..runtime import get_runtime
from ..store import DataKind, Removed, Thing, fact_key, mentions, shares_word, stems_of, unspaced, words_of
from .read_deadline import within_deadline

logger = logging.getLogger("companion")
_SEARCHED: Final = 1000
"""Facts that are looked at: all that a person can have."""
_DEADLINE: Final = 4.0
"""Seconds for forgetting; the store may have forgotten after that, but what was removed is not known."""
_ALL: Final = re.compile(r"(?:absolutely )?(?:everything|anything|all|whatever)\b", re.IGNORECASE)
_SIGNS: Final = re.compile(r"(?<=\w)[+#*]+")
_DENIAL: Final = re.compile(r"\b(?:not|never|no longer)\b|n['’]t\b", re.IGNORECASE)
_TELLING: Final = 4  # letters of a word by which a similar thing is recognised
_MAX_SIMILAR: Final = 5
_SAME: Final = {"job": "work", "profession": "work", "occupation": "work", "home": "live", "hometown": "live"}
"""Words for what a label of the profile says."""


@dataclass(frozen=True, slots=True)
class ForgottenFact:
    """What has become of a wish to forget something.

    Attributes:
        removed: the lines and facts that were removed, word for word.
        candidates: instead, those that the wish may mean, if it is not clear which or whether: then nothing was
            removed.
        profile: the profile that is stored now.
    """

    removed: Sequence[str] = ()
    candidates: Sequence[str] = ()
    profile: str = ""


async def forget_fact_async(what: str) -> ForgottenFact:
    """Forget a line of the current caller's profile, or a fact.

    It is removed from every version of the profile, summaries that mention it become empty, and what was said of it is
    not brought up again. A write of it that is still on its way, in whatever process, is dropped.

    Args:
        what: the thing in the caller's words, or the exact words of a line or a fact.

    Raises:
        LookupError: there is no current caller.
        StoreError: the store failed or did not answer in time.
    """
    caller = current_caller()
    if caller is None:
        raise LookupError("no current caller")
    known = await within_deadline(_known(caller.user_id, what), "forget")
    meant = matching(what, known)
    if len({(*sorted(words_of(text)), *sorted(signs_of(text))) for text in meant}) > 1 and not _all_named(what, meant):
        return ForgottenFact(candidates=meant)
    if not meant and (similar := await within_deadline(_similar_of_all(caller.user_id, what, known), "forget")):
        return ForgottenFact(candidates=similar)
    texts = dict.fromkeys([*meant, what])
    removed = await within_deadline(
        _forget(caller.user_id, [Thing(text, words_of(text)) for text in texts]), "forget", seconds=_DEADLINE
    )
    runtime = get_runtime()
    forgotten = await within_deadline(runtime.store.forgotten(caller.user_id), "forget")
    # What the caller says again from here on is kept, even if the store is away by then.
    caller.beginning.forgotten = forgotten.among(texts).number
    note = runtime.write_behind.reading_profile(caller.user_id)
    profile = await within_deadline(runtime.store.get_profile(caller.user_id), "get_profile") or ""
    note(profile)
    return ForgottenFact(list(dict.fromkeys([*removed.lines, *removed.facts])), profile=profile)


def matching(what: str, known: Sequence[str]) -> list[str]:
    """Those of the known lines and facts that a wish to forget may mean.

    The same words; else several whose text it has; else all that have the words that it is about; else those that it
    names as a whole.
    """
    keys = [text for text in known if fact_key(text) == fact_key(what)]
    known = [text for text in known if signs_of(what) <= signs_of(text)]
    tells = words_of(what) or signs_of(what)
    same = [text for text in known if tells and _words(text) == _words(what) and _denies(text) == _denies(what)]
    if keys or same:
        return list(dict.fromkeys([*keys, *same]))
    quoted = [text for text in known if re.search(rf"(?<!\w){re.escape(fact_key(text))}(?!\w)", fact_key(what))]
    if len(quoted) > 1:  # "Likes: chess and My sister plays chess"
        return quoted
    about = set(words_of(what))
    if not about and signs_of(what):
        return known
    for words in (about, {_SAME.get(word, word) for word in about}):
        if words and (having := [text for text in known if words <= _words(text) | _within(what, text)]):
            return having
    return [text for text in known if set(words_of(text)) <= about] if about else []


def signs_of(text: str) -> set[str]:
    """What tells things apart that have the same words: the signs of "C++" and "C#", and emoji."""
    return {*_SIGNS.findall(text), *(char for char in text if category(char) == "So")}


def _denies(text: str) -> bool:
    return _DENIAL.search(text) is not None


def _all_named(what: str, meant: Sequence[str]) -> bool:
    """Whether the wish names each of them: "everything about chess", or "I like chess and I live in Oslo"."""
    if _ALL.match(what):
        return True
    return all({*words_of(text), *signs_of(text)} <= {*words_of(what), *signs_of(what)} for text in meant)


async def _similar_of_all(user_id: str, what: str, known: Sequence[str]) -> list[str]:
    """Those that the wish may mean in other words, also of facts that the store's search does not find by it."""
    facts = await get_runtime().store.search_memories(user_id, "", _SEARCHED)
    texts = dict.fromkeys([*known, *(line for fact in facts for line in lines_of(fact.text))])
    return await asyncio.to_thread(_similar, what, list(texts))  # a thousand take a quarter of a second


def _similar(what: str, known: Sequence[str]) -> list[str]:
    """Those that share a word with the wish that says something, whatever its ending, or hold it in a longer one."""
    about = [word for word in words_of(what) if len(word) >= _TELLING or not word.isascii()]
    return [text for text in known if shares_word(about, text) or any(mentions(text, [word]) for word in about)][
        :_MAX_SIMILAR
    ]


def _words(text: str) -> set[str]:
    return set(stems_of(text))


def _within(what: str, text: str) -> set[str]:
    """Words within sentences without blanks: another word may hold them, so only if everything about them is meant."""
    return {word for word in words_of(what) if unspaced(word) and mentions(text, [word])} if _ALL.match(what) else set()


async def _known(user_id: str, what: str) -> list[str]:
    """The caller's lines, and those of facts that share a word with the wish, also those that wait for the store."""
    runtime = get_runtime()
    waiting = runtime.write_behind.waiting_facts(user_id)
    pending = runtime.write_behind.pending_profile(user_id) or ""
    # A search finds no word within a sentence without blanks: all facts are looked at.
    query = (
        ""
        if unspaced(what) and _ALL.match(what)
        else " ".join([what, *(_SAME.get(word, "") for word in words_of(what))])
    )
    stored, facts = await asyncio.gather(
        runtime.store.get_profile(user_id), runtime.store.search_memories(user_id, query, _SEARCHED)
    )
    texts = [stored or "", pending, *(fact.text for fact in facts), *waiting]
    return list(dict.fromkeys(line for text in texts for line in lines_of(text)))


async def _forget(user_id: str, things: Sequence[Thing]) -> Removed:
    runtime = get_runtime()
    lines: list[str] = []
    facts: list[str] = []

    async def work() -> DataKind:
        while True:  # again, if a write was in flight: it may have been stored after that
            removed = await runtime.store.forget(user_id, things)
            lines.extend(removed.lines)
            facts.extend(removed.facts)
            await runtime.outbox_relay.invalidate_written(user_id, "profile", "memory", "summary")
            await clear_speech(await get_redis_cache(), user_id)
            if not await runtime.write_behind.settle(user_id):
                return "turn"

    await runtime.write_behind.settle(user_id)
    await runtime.outbox_relay.write(work(), user_id)
    return Removed(lines, facts)
