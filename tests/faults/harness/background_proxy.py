"""A proxy on a thread of its own, so that a stall of the loop under test does not stall the network."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tests.real.loop_thread import LoopThread
from tests.real.proxy import Proxy


class BackgroundProxy:
    """A :class:`Proxy` in front of ``target_port``. Use it with ``with``; clients connect to ``port``."""

    def __init__(self, target_port: int, **options: Any) -> None:
        self._proxy = Proxy(target_port, **options)

    @property
    def port(self) -> int:
        return self._proxy.port

    def __enter__(self) -> Self:
        self._thread = LoopThread("proxy")
        self._thread.submit(self._proxy.__aenter__()).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._thread.submit(self._proxy.__aexit__(kind, error, trace)).result()
        finally:
            self._thread.close()

    async def apply(self, action: Callable[[Proxy], Any]) -> Any:
        """Run ``action`` (plain or async) on the proxy in the proxy's loop and return its result."""

        async def run() -> Any:
            result = action(self._proxy)
            return await result if inspect.isawaitable(result) else result

        return await asyncio.wrap_future(self._thread.submit(run()))
