"""Overlapping changes of profiles in the soak: no line is lost, and none that was removed returns."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from companion import Caller, get_user_profile_async, use_caller
from companion.memory.profile import change_user_profile_async
from companion.memory.profile_change import ProfileChange, patched, rewritten
from companion.profile_lines import lines_of
from companion.runtime import acquire_runtime, release_runtime

_MAX_LINES: Final = 20  # of one profile, so that the oldest is removed before the limit is reached
_FLUSH_TIMEOUT: Final = 0.5


@dataclass
class _User:
    user_id: str
    count: int = 0
    added: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)


class ProfileWriters:
    """Users, each with two conversations at a time that change the profile from the same base.

    Args:
        rng: of all random choices.
        texts_of: returns a user's profile and facts, as the store holds them.
    """

    def __init__(self, rng: random.Random, texts_of: Callable[[str], list[str]]) -> None:
        self._rng = rng
        self._texts_of = texts_of
        self._users = [_User(f"writer-{number}") for number in range(3)]

    @property
    def lines(self) -> int:
        """The number of lines that were added."""
        return sum(len(user.added) for user in self._users)

    async def run(self, until: Callable[[], bool]) -> None:
        """Change profiles until ``until`` says so."""
        await asyncio.gather(*(self._write(user, until) for user in self._users))

    def lost(self) -> int:
        """The number of lines that were added, not removed, and are not in the store."""
        return sum(len(user.added - user.removed - self._stored(user)) for user in self._users)

    def resurrected(self) -> int:
        """The number of lines that were removed and are in the store."""
        return sum(len(user.removed & self._stored(user)) for user in self._users)

    def _stored(self, user: _User) -> set[str]:
        return {line for text in self._texts_of(user.user_id) for line in lines_of(text)}

    async def _write(self, user: _User, until: Callable[[], bool]) -> None:
        while not until():
            runtime = acquire_runtime()
            runtime.write_behind.begin_conversation(user.user_id)
            try:
                with use_caller(Caller(user.user_id)):
                    base = await get_user_profile_async()
                    await asyncio.gather(*(self._change(user, base) for _ in range(2)))
            finally:
                await runtime.write_behind.end_conversation(user.user_id, _FLUSH_TIMEOUT)
                await release_runtime(runtime)
            await asyncio.sleep(self._rng.uniform(0.05, 0.5))

    async def _change(self, user: _User, base: str) -> None:
        """As a model does that has read ``base``: each change adds a line, and may remove or replace one."""
        await asyncio.sleep(self._rng.choice((0.0, 0.0, 0.01, 0.06)))
        user.count += 1
        lines, new = lines_of(base), f"{self._rng.choice(('Likes', 'Lives in', 'Work'))}: {user.user_id} {user.count}"
        gone = self._rng.choice(lines) if len(lines) > _MAX_LINES or (lines and self._rng.random() < 0.4) else ""
        change: ProfileChange = patched(base, [new], [gone] if gone else [], [])
        if self._rng.random() < 0.5:
            change = rewritten(base, "\n".join([*(line for line in lines if line != gone), new]))
        user.added.add(new)
        user.removed |= {gone} - {""}
        await change_user_profile_async(change)
