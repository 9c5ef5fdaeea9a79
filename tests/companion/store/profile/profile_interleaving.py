"""Many writers of one profile: two processes with two conversations each, and a store that goes away at random.

A simulation executes steps. It knows every line that was added, and every line that was removed by a conversation that
knew it. In the end the store must hold exactly the lines that were added and not removed, and what each call answered
must have been true.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from companion.caching import OutboxRelay
from companion.memory.profile_change import ProfileChange, patched, rewritten
from companion.profile_lines import lines_of
from companion.store import DataKind, Store, StoreError
from companion.writes import Profile, Spool, WriteBehind

Mode = Literal["up", "away", "deaf", "slow"]
Kind = Literal["add", "remove", "replace", "rewrite"]
USER = "ada"


@dataclass(frozen=True)
class Save:
    """One conversation changes the profile; ``wait``: whether it continues only once the outcome is known."""

    process: int
    conversation: int
    kind: Kind
    choice: int
    wait: bool


@dataclass(frozen=True)
class Switch:
    """The store of one process changes: ``away`` fails, ``deaf`` stores and fails, ``slow`` takes its time."""

    process: int
    mode: Mode


@dataclass(frozen=True)
class Look:
    """A conversation reads the profile."""

    process: int
    conversation: int


@dataclass(frozen=True)
class Restart:
    """A process ends: what waits is spooled, and replayed by the next one."""

    process: int


@dataclass(frozen=True)
class Pause:
    """Time passes."""


Step = Save | Switch | Look | Restart | Pause


class _Connection:
    """One process's view of the store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.mode: Mode = "up"

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.mode == "away":
                raise StoreError(name, "timeout")
            if self.mode == "slow":
                await asyncio.sleep(0.003)
            result = await method(*args, **kwargs)
            if self.mode == "deaf" and "swap" in name:
                raise StoreError(name, "timeout")
            return result

        return call


class _Relay(OutboxRelay):
    """A relay without a cache."""

    def __init__(self) -> None:
        self.writes: set[asyncio.Task[None]] = set()

    def start_write(self, work: Coroutine[Any, Any, DataKind], user_id: str) -> asyncio.Task[None]:
        async def write() -> None:
            await work

        task = asyncio.create_task(write())
        self.writes.add(task)
        return task

    async def invalidate_written(self, user_id: str, *kinds: DataKind) -> None:
        pass


@dataclass
class _Process:
    connection: _Connection
    home: Path
    known: list[str] = field(default_factory=lambda: ["", ""])
    relay: _Relay = field(default_factory=_Relay)
    saves: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.write_behind = WriteBehind(lambda: self.connection, self.relay, Spool(self.home))  # type: ignore[arg-type,return-value]  # a part of a store

    async def look(self, conversation: int) -> None:
        if (pending := self.write_behind.pending_profile(USER)) is not None:
            self.known[conversation] = pending
        elif self.connection.mode in ("up", "slow"):
            self.known[conversation] = await self.connection.store.get_profile(USER) or ""

    async def end(self) -> None:
        await self.write_behind.close()
        await asyncio.gather(*self.relay.writes, return_exceptions=True)
        await self.write_behind.finish_spool_updates()
        await asyncio.gather(*self.saves)


class Simulation:
    """Executes steps over two connections to one store.

    Args:
        open_store: opens a connection to the store.
        home: the spool's folder, which the processes share.
    """

    def __init__(self, open_store: Callable[[], Store], home: Path) -> None:
        self._home = home
        self._stores = [open_store() for _ in range(2)]
        self._processes = [_Process(_Connection(store), home) for store in self._stores]
        self._count = 0
        self.added: set[str] = set()
        self.removed: set[str] = set()
        self.answered: list[str] = []

    async def run(self, steps: list[Step]) -> None:
        """Execute the steps, then let every write reach the store."""
        for step in steps:
            match step:
                case Save():
                    await self._save(step)
                case Switch(process, mode):
                    self._processes[process].connection.mode = mode
                case Look(process, conversation):
                    await self._processes[process].look(conversation)
                case Restart(process):
                    await self._restart(process)
                case Pause():
                    await asyncio.sleep(0.004)
        for process in self._processes:
            process.connection.mode = "up"
        for number in range(2):
            await self._processes[number].end()
        last = _Process(_Connection(self._stores[0]), self._home)
        while Spool(self._home).files():
            await last.write_behind.spool_replay.replay()
        await last.end()

    async def check(self) -> None:
        """Compare the store with what was said, and the answers of the calls with what the store has held."""
        text = await self._stores[0].get_profile(USER) or ""
        assert set(lines_of(text)) == self.added - self.removed
        assert len(lines_of(text)) == len(text.splitlines())
        held = {version.text for version in await self._stores[0].profile_versions(USER, 10_000)}
        assert set(self.answered) <= held

    async def close(self) -> None:
        for store in self._stores:
            await store.close()

    async def _save(self, step: Save) -> None:
        process = self._processes[step.process]
        known = process.known[step.conversation]
        lines = lines_of(known)
        chosen = lines[step.choice % len(lines)] if lines else ""
        self._count += 1
        new = f"{('Likes', 'Lives in', 'Work')[self._count % 3]}: {self._count}"
        match step.kind if chosen else "add":
            case "remove":
                change = patched(known, [], [chosen], [])
            case "replace":
                change = patched(known, [], [], [(chosen, new)])
            case "rewrite":
                change = rewritten(known, "\n".join([*(line for line in lines if line != chosen), new]))
            case _:
                change = patched(known, [new], [], [])
        gone = {chosen} - set(lines_of(change.text)) - {""}
        self.added |= set(change.added)
        self.removed |= gone
        task = asyncio.create_task(self._write(process, step.conversation, change, gone))
        process.saves.add(task)
        if step.wait:
            await task
        else:
            await asyncio.sleep(0)

    async def _write(self, process: _Process, conversation: int, change: ProfileChange, gone: set[str]) -> None:
        write = Profile(change.text, made_from=change.base, author="tool")
        outcome = await process.write_behind.write(USER, write)
        if outcome is None or outcome.profile is None:
            process.known[conversation] = process.write_behind.pending_profile(USER) or change.text
            return
        text = outcome.profile.text
        assert set(lines_of(text)) >= set(change.added) - self.removed
        assert not set(lines_of(text)) & gone
        self.answered.append(text)
        process.known[conversation] = text

    async def _restart(self, number: int) -> None:
        old = self._processes[number]
        await old.end()
        new = self._processes[number] = _Process(old.connection, self._home)
        await new.look(0)
        new.saves.add(asyncio.create_task(self._replay(new)))

    @staticmethod
    async def _replay(process: _Process) -> None:
        await process.write_behind.spool_replay.replay()
