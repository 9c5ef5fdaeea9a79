"""Obeys the commands of the console."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from ..identity import UnusableIdentity, user_id_of
from ..person import user_id
from . import commands
from .jobs import Jobs
from .screen import Screen

_ASKED: Final = {"who": commands.who, "stats": commands.stats, "trace": commands.trace}


class Orders:
    """Obeys commands.

    Args:
        jobs: the conversations.
        screen: shows the answers.
        next_line: the person's answer to a question: empty where they refuse one, None where they leave.
        forget: forgets what was typed, which was another person's, or is erased.
    """

    def __init__(
        self, jobs: Jobs, screen: Screen, next_line: Callable[[], Awaitable[str | None]], forget: Callable[[], None]
    ) -> None:
        self._jobs, self._screen = jobs, screen
        self._next_line, self._forget_typed = next_line, forget

    async def obey(self, name: str, argument: str) -> None:
        """Obey one command.

        Raises:
            Ended: the conversation ended meanwhile.
            StoreError: the store failed.
        """
        if name in ("help", "?"):
            self._screen.note(commands.HELP)
        elif name == "who" and argument:
            await self._become(argument)
        elif name == "forget":
            await self._forget()
        elif name == "export":
            await self._export(argument)
        elif (ask := _ASKED.get(name)) is not None:
            self._screen.note(await self._jobs.do(ask))
        else:
            self._screen.warning(f"There is no /{name}. /help lists what there is.")

    async def _become(self, identity: str) -> None:
        try:
            user_id_of(identity)
        except UnusableIdentity as problem:
            self._screen.warning(f"You cannot be {identity}: {problem}.")
            return
        await self._jobs.end(farewell=True)
        self._jobs.user = user_id(identity)
        self._forget_typed()
        self._screen.note(f"You are {identity} now.")
        await self._jobs.begin()

    async def _forget(self) -> None:
        if not (things := await self._jobs.do(commands.known_things)):
            self._screen.note("Nothing is kept of you.")
            return
        self._screen.note(f"Erase all that is kept of you ({things})? It cannot be undone. Type yes to erase it.")
        if (answer := await self._next_line()) is None:
            return
        if answer:
            self._screen.person(answer)
        if answer.lower() not in ("y", "yes"):
            self._screen.note("Nothing was erased.")
            return
        complete = await self._jobs.do(commands.forget)
        self._forget_typed()
        await self._jobs.end(farewell=False)
        self._screen.note(
            "Everything that was kept of you is erased."
            if complete
            else "It is not erased everywhere yet: the database or Redis did not answer. The next start completes it."
        )
        await self._jobs.begin()

    async def _export(self, file: str) -> None:
        text = await self._jobs.do(commands.export)
        if not file:
            self._screen.raw(text)
            return
        try:
            await asyncio.to_thread(commands.write_private, file, text)
        except (OSError, RuntimeError, ValueError) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else None
            self._screen.warning(f"Nothing was written to {file}: {reason or problem}.")
            return
        self._screen.note(f"Written to {file}.")
