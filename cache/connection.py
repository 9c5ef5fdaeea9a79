"""From settings to a redis-py client that holds no trap: the documented pool, bounded and polite.

What is set here and why:

- ``BlockingConnectionPool``: caller 51 waits its turn. The plain pool raises instead, and a layer that
  answers neutrally would turn that into a silent miss.
- one retry without back-off: redis-py's default of ten with back-off turns a refused port into seconds.
- RESP2 and no maintenance notifications: with them redis-py skips the check that a pooled connection has no
  unread reply, which is how one caller can be given another's answer.
- replies stay bytes: decoding is the codec's work.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from .settings import CacheConfigError, CacheSettings


def open_client(settings: CacheSettings) -> Redis:
    """Return a client with the documented connection settings. Nothing is sent yet.

    Raises:
        CacheConfigError: the URL's query holds an option redis-py does not know.
    """
    options: dict[str, Any] = {
        "max_connections": settings.max_connections,
        "timeout": settings.socket_timeout,
        "socket_connect_timeout": settings.socket_connect_timeout,
        "socket_timeout": settings.socket_timeout,
        "retry": Retry(NoBackoff(), 1),
        "retry_on_timeout": True,
        "health_check_interval": settings.health_check_interval,
        "protocol": 2,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "client_name": "companion-cache",
    }
    if settings.url.startswith("rediss://"):
        # redis-py checks certificates by default; said here so that it stays so.
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    try:
        pool: Any = BlockingConnectionPool.from_url(settings.url, **options)
        pool.make_connection()  # an unknown option in the URL's query shows itself only here
    except (TypeError, ValueError):
        raise CacheConfigError(
            "REDIS_URL has an option after '?' that redis-py does not know, or with a value it cannot use."
        ) from None
    return Redis.from_pool(pool)  # the client owns its pool: closing one closes the other
