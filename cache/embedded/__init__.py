"""A private redis-server for machines that have none."""

from ..exceptions import EmbeddedRedisError
from .discovery import find_redis_server, redis_answers
from .server import EmbeddedRedis

__all__ = ["EmbeddedRedis", "EmbeddedRedisError", "find_redis_server", "redis_answers"]
