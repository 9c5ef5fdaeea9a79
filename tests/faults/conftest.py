"""Fixtures of the fault suite."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cache import RedisCache
from tests.real.redis.redis_server import RedisServer
from tests.wait import initialised


@pytest.fixture
async def own_cache(own_redis: RedisServer, make_cache: Callable[..., RedisCache]) -> RedisCache:
    """A connected cache with the default deadline, on a server of its own."""
    cache = make_cache(own_redis.url, connect_wait=5.0)
    await initialised(cache)
    return cache
