"""A private redis-server for machines that have none."""

from .discovery import redis_answers
from .server import EmbeddedRedis, EmbeddedRedisError, find_redis_server

__all__ = ["EmbeddedRedis", "EmbeddedRedisError", "find_redis_server", "redis_answers"]
