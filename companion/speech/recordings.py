"""Where recordings are kept: in Redis, and what everybody hears in the process as well."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterable, Callable
from typing import Final

import av
from livekit import rtc

from cache import RedisCache, get_redis_cache, keys

from .recording import Recording, UnusableRecording

logger = logging.getLogger("companion")
LOAD_TIMEOUT: Final = 60.0
"""Seconds that a voice may take for a whole recording."""
MEMORY_BYTES: Final = 4 << 20
"""Bytes of the recordings that a process keeps: about four hundred phrases."""

Speak = Callable[[], AsyncIterable[rtc.AudioFrame]]


class PhraseMemory:
    """Keeps recordings that everybody hears; the one that was not played for longest is dropped first.

    Args:
        max_bytes: of all recordings together.
    """

    def __init__(self, max_bytes: int = MEMORY_BYTES) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._kept: OrderedDict[str, Recording] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> Recording | None:
        """The recording with this key."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: str, recording: Recording) -> None:
        """Keep a recording, unless it is a person's."""
        if key.startswith(keys.USERS) or key in self._kept:
            return
        self._kept[key] = recording
        self._bytes += len(recording.opus)
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._kept.popitem(last=False)[1].opus)


memory: Final = PhraseMemory()
"""Of this process."""


async def find(key: keys.Key) -> Recording | None:
    """The recording with this key; None where there is none that can be played."""
    if (known := memory.get(key)) is not None:
        return known
    cache = await get_redis_cache()
    if not await cache.exists(key):  # which counts as no miss: nothing can be loaded that was not spoken
        return None
    raw = await cache.get(key)
    return None if raw is None else await _verified(cache, key, raw)  # it may have been deleted meanwhile


async def record(key: keys.Key, speak: Speak, *, ahead: bool = False) -> Recording | None:
    """The recording with this key; if there is none, ``speak`` is recorded, once across tasks and processes.

    Args:
        key: names text and voice.
        speak: speaks it.
        ahead: whether this prepares what may be played later, and is no lookup.

    Returns:
        None where what is kept cannot be played; it is deleted.

    Raises:
        UnusableRecording: what was spoken cannot be kept.
        cache.LoadTimeout: the voice took too long.
        Exception: what the voice raises.
    """
    if (known := memory.get(key)) is not None:
        return known

    async def load() -> bytes:
        return (await Recording.of(speak())).pack()

    cache = await get_redis_cache()
    for _ in range(2):  # what cannot be played is deleted, and spoken anew
        read = cache.warm if ahead else cache.get_or_load
        raw = await read(key, load, key.ttl, load_timeout=LOAD_TIMEOUT)
        if (recording := await _verified(cache, key, raw)) is not None:
            return recording
    return None


async def _verified(cache: RedisCache, key: keys.Key, raw: object) -> Recording | None:
    """The recording in a cached value, if its digest holds and its first frame can be decoded; else it is deleted."""
    try:
        recording = Recording.unpack(raw)
        next(recording.decode())
    except (UnusableRecording, ValueError, StopIteration, av.FFmpegError) as problem:
        kind = keys.shape(key.rpartition(":")[0])
        logger.warning("a recording cannot be played (%s): %s", type(problem).__name__, kind)
        await cache.delete(key)
        return None
    memory.put(key, recording)
    return recording
