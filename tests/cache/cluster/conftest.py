"""Fixtures: caches that are connected to a cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cache import RedisCache
from tests.wait import initialised

Connect = Callable[..., Awaitable[RedisCache]]


@pytest.fixture
def connect(make_cache: Callable[..., RedisCache]) -> Connect:
    """Makes connected caches, with a generous deadline."""

    async def connect(url: str, **settings: Any) -> RedisCache:
        cache = make_cache(url, **({"deadline": 2.0, "connect_wait": 5.0} | settings))
        await initialised(cache)
        return cache

    return connect
