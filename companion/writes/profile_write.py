"""The write of a profile: what its author changed, applied to whatever is stored by compare-and-swap.

The author had read one text and wrote another. The store may hold a third by now: from another conversation, another
process, or the dashboard. So the difference is applied, not the text (``profile_lines``): no line is lost that
another author added, and none comes back that another author removed. A write is stored once: the store's history names
the writes that it holds, so a retry whose first try was stored after all changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from ..profile_lines import MAX_PROFILE, add_lines, lines_of, merge, text_of, within_limit
from ..store import Forgotten, Memory, ProfileAuthor, Store, StoreError, knowing

_MAX_SWAPS: Final = 5  # tries of a compare-and-swap, while other writers replace the profile
_MAX_VERSIONS: Final = 1000  # that a whole text which comes late is compared with
_MAX_FACTS: Final = 20  # from so many surplus lines on, several of them share a fact


@dataclass(frozen=True, slots=True)
class Profile:
    """A new text of a profile.

    Attributes:
        text: the whole new text.
        instead_of: earlier texts that this one replaces. Only a worker of an earlier version fills it: in pairs, the
            text that an author had read and the one they wrote.
        at: when its author wrote it.
        made_from: the text that its author had read, empty for none: what they changed in it is applied to the stored
            profile. None: this one replaces any stored text.
        author: by whom, for the history. The spool does not keep it.
        since: as of a turn.
        knows: as of a fact.
    """

    text: str
    instead_of: tuple[str, ...] = ()
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    made_from: str | None = None
    author: ProfileAuthor = field(default="code", compare=False)
    since: int = field(default=0, compare=False)
    knows: int = field(default=0, compare=False)

    @property
    def id(self) -> str:
        """The natural key of this write, the same in every process that reads it from the spool."""
        content = json.dumps([self.at.astimezone(UTC).isoformat(), self.made_from, self.text])
        return sha256(content.encode()).hexdigest()[:32]

    def applied_to(self, there: str) -> str:
        """The profile that results from this write, if ``there`` is stored."""
        if self.made_from is None:
            return self.text
        result = merge(there, self.made_from, self.text)
        if not self.instead_of:
            return result
        # A worker of an earlier version has folded several writes into this one: the first one's base.
        return merge(result, self.instead_of[0] if len(self.instead_of) % 2 == 0 else "", self.text)


@dataclass(frozen=True, slots=True)
class StoredText:
    """The outcome of a write of a profile.

    Attributes:
        text: the profile that is stored now.
        surplus: the number of lines that had no room in it and are facts now.
        facts_changed: whether facts were added or removed.
    """

    text: str
    surplus: int = 0
    facts_changed: bool = False


async def store_profile(write: Profile, store: Store, user_id: str, *, late: bool) -> StoredText:
    """Store a profile.

    Args:
        write: the write; it may have been stored already.
        store: where to.
        user_id: whose profile.
        late: whether the write had to wait for the store, so that others may have written since.

    Returns:
        What is stored now.

    Raises:
        StoreError: the store has not confirmed the write.
    """
    if write.made_from is None and not late:
        forgotten = await store.forgotten(user_id)
        with knowing(forgotten):
            text = _without_forgotten(write.text, "", write, forgotten, late=True)
            text, surplus, _ = await _within_limit(text, write, store, user_id)
            await store.save_profile(user_id, text, author=write.author, write_id=write.id, since=write.since)
        return StoredText(text, surplus, surplus > 0)
    removed = 0
    in_vain: list[str] = []  # facts of tries that other writers were ahead of
    there = write.made_from or None  # mostly true, and the swap verifies it: this saves a request
    for number in range(_MAX_SWAPS):
        if late or number:
            found = await store.profile_for_write(user_id, write.id)
            if found.has_write:
                return StoredText(found.text or "")
            there = found.text
        text = await _result(write, there, store, user_id)
        with ExitStack() as stack:
            if late or number:
                forgotten = await store.forgotten(user_id)
                stack.enter_context(knowing(forgotten))
                text = _without_forgotten(text, there or "", write, forgotten, late=late)
            author: ProfileAuthor = write.author if text == write.text else "merge"
            removed += await _remove_facts(write, there or "", store, user_id)
            text, surplus, facts = await _within_limit(text, write, store, user_id)
            swapped = await store.swap_profile(
                user_id, text, instead_of=there, at=write.at, author=author, write_id=write.id, since=write.since
            )
        if swapped:
            # Their lines are in the profile, or facts again, or another author has removed them.
            gone = [await store.remove_memory(user_id, fact) for fact in in_vain if fact not in facts]
            return StoredText(text, surplus, surplus + removed + sum(gone) > 0)
        in_vain += facts
    raise StoreError("swap_profile", "other writers replaced it each time")


async def _result(write: Profile, there: str | None, store: Store, user_id: str) -> str:
    if write.made_from is not None:
        return write.applied_to(there or "")
    # A whole text that comes late: it replaces an older one, and is added to a newer one.
    versions = await store.profile_versions(user_id, _MAX_VERSIONS)
    newer = max((number for number, version in enumerate(versions, 1) if version.at > write.at), default=0)
    if not newer:
        return write.text
    # A line of the version before, or of a later one, has been removed since if it is not there now. One that was
    # removed earlier is in this text because its author has said it again.
    known = (line for version in versions[: newer + 1] for line in lines_of(version.text))
    return add_lines(there or "", write.text, known)


def _without_forgotten(text: str, there: str, write: Profile, forgotten: Forgotten, *, late: bool) -> str:
    """A profile without the lines that this write would bring back after the person asked to forget them.

    Of a write that is not late, the author may have said a line again: only lines are left out that take the place of
    one that the author had read, and that was forgotten since. Of a late one, and of a whole text, which may have been
    made from anything, what the author knew to be forgotten was said again.
    """
    read = forgotten.among(lines_of(write.made_from or ""))
    forgotten = forgotten.after(write.knows)
    stored, lines = lines_of(there), lines_of(text)
    kept = [line for line in lines if line in stored or not ((late and forgotten.has(line)) or read.mentioned_in(line))]
    return text if kept == lines else text_of(kept)


async def _remove_facts(write: Profile, there: str, store: Store, user_id: str) -> int:
    """Delete the facts that were surplus lines until the author removed those; how many there were.

    The author had read the line in the profile. If it is no longer there, another write may have made it a fact.
    """
    if write.made_from is None:
        return 0
    stored, left = lines_of(there), lines_of(write.text)
    gone = [line for line in lines_of(write.made_from) if line not in left and line not in stored]
    return sum([await store.remove_memory(user_id, line) for line in gone])


async def _within_limit(text: str, write: Profile, store: Store, user_id: str) -> tuple[str, int, list[str]]:
    """Store as facts what has no room in a profile, before it is cut; the rest, the number of lines, and the facts.

    A try that is repeated stores none of them twice: the store keeps the same fact once. Each has a new id, because one
    that was removed meanwhile must not be taken for the one that is removed.
    """
    kept, surplus = within_limit(text)
    facts = list(_as_facts(surplus))
    for fact in facts:
        await store.add_memory(user_id, Memory(fact, write.at, since=write.since))
    return kept, len(surplus), facts


def _as_facts(lines: Sequence[str]) -> Iterator[str]:
    """One fact a line, or several lines a fact where there are many: a text edited by hand may have any length."""
    if len(lines) <= _MAX_FACTS:
        yield from lines
        return
    batch: list[str] = []
    for line in lines:
        if batch and len(text_of([*batch, line])) > MAX_PROFILE:
            yield text_of(batch)
            batch = []
        batch.append(line)
    yield text_of(batch)
