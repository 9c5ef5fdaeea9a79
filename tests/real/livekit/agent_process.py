"""Runs an agent in a process of its own: captures its log, stops it, and checks that no process remains."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


class AgentProcess:
    """Made by `await AgentProcess.start([...], cwd=...)`; `end` it, or `kill` it. Timeouts are seconds."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines: list[str] = []
        self._changed = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())
        self.running = True  # ends with the output

    @classmethod
    async def start(
        cls,
        arguments: Sequence[str],
        *,
        cwd: str | Path,
        env: Mapping[str, str] | None = None,
        program: str | Path = sys.executable,
    ) -> AgentProcess:
        """Run Python with `arguments` in `cwd`; `env` is the whole environment, by default this process's."""
        # With setpriv the agent is killed when the test run ends, even by SIGKILL.
        wrapper = [setpriv, "--pdeathsig", "KILL"] if (setpriv := shutil.which("setpriv")) else []
        process = await asyncio.create_subprocess_exec(
            *wrapper,
            *(program, *arguments),
            cwd=cwd,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # a second signal makes LiveKit kill its whole process group
            limit=1 << 20,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        """The output so far, standard output and error combined."""
        return "".join(self._lines)

    @property
    def tail(self) -> str:
        """The end of the log, for the message of a failed assertion."""
        return "the end of the agent's log:\n" + "".join(self._lines[-40:])

    @contextmanager
    def explaining(self) -> Generator[None]:
        """Add the end of the log to what fails inside: the agent may have said why."""
        try:
            yield
        except AssertionError as problem:
            problem.add_note(self.tail)
            raise

    async def wait_for_log(self, text: str, timeout: float = 30.0) -> None:
        """Wait until `text` is in the log.

        Raises:
            AssertionError: it did not appear in time.
        """
        await self.wait_until(lambda: text in self.log, f"{text!r} in the log", timeout)

    async def wait_until(self, ready: Callable[[], bool], what: str, timeout: float) -> None:
        """Wait until `ready` is true; it is evaluated after every line and every `nudge`.

        Raises:
            AssertionError: with the end of the log, on a timeout or if the process ended first.
        """
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: ready() or not self.running)
        except TimeoutError:
            raise AssertionError(f"waited {timeout} s for {what}\n{self.tail}") from None
        assert ready(), f"the agent went away before {what}\n{self.tail}"

    async def nudge(self) -> None:
        """Make every `wait_until` evaluate its condition again."""
        async with self._changed:
            self._changed.notify_all()

    async def end(self, by: signal.Signals = signal.SIGINT, timeout: float = 20.0) -> None:
        """Send `by` and assert that the agent ends by itself, with code 0, and leaves no process behind."""
        if self._process.returncode is None:
            self._process.send_signal(by)
        try:
            async with asyncio.timeout(timeout):
                code = await self._process.wait()
                await self._reading
                while self.processes():  # noqa: ASYNC110 - no event when another process's child ends
                    await asyncio.sleep(0.02)
        except TimeoutError:
            left = self.processes()
            await self.kill()
            raise AssertionError(f"after {timeout} s still running: {left}\n{self.tail}") from None
        assert code == 0, f"the agent ended with code {code}\n{self.tail}"

    async def kill(self) -> None:
        """Kill the process group, all at once: a job that sees its worker end would still tell the room so.

        No effect if it has ended.
        """
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()
        self._reading.cancel()
        await asyncio.wait([self._reading])

    def processes(self) -> dict[int, str]:
        """pid -> name of the living processes of the agent's process group."""
        living = {}
        for process in psutil.process_iter(["name", "status"]):
            try:
                if os.getpgid(process.pid) == self.pid and process.info["status"] != psutil.STATUS_ZOMBIE:
                    living[process.pid] = process.info["name"]
            except ProcessLookupError:
                continue
        return living

    async def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            async for line in self._process.stdout:
                self._lines.append(line.decode(errors="replace"))
                await self.nudge()
        finally:
            self.running = False
            await self.nudge()
