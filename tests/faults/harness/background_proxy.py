"""A proxy on a thread of its own, so that a stall of the loop under test does not stall the network."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tests.real.proxy import Proxy


class BackgroundProxy:
    """A :class:`Proxy` in front of ``target_port``. Use it with ``with``; clients connect to ``port``."""

    def __init__(self, target_port: int, **options: Any) -> None:
        self._proxy = Proxy(target_port, **options)
        self._loop = asyncio.new_event_loop()
        # asyncio.start_server reports connections that are cancelled at shutdown.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    @property
    def port(self) -> int:
        return self._proxy.port

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._proxy.__aenter__(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._proxy.__aexit__(kind, error, trace), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def apply(self, action: Callable[[Proxy], Any]) -> Any:
        """Run ``action`` (plain or async) on the proxy in the proxy's loop and return its result."""

        async def run() -> Any:
            result = action(self._proxy)
            return await result if inspect.isawaitable(result) else result

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), self._loop))
