"""Between the store and the cache: reads through it, invalidations into it, and a watch over both.

``read_through`` reads a user's data, ``outbox_relay`` delivers the invalidation of every write (transactional outbox),
``change_listener`` invalidates what other clients of the database write, ``consistency`` looks for stale values. Which
keys follow from which data is one table, in ``cached_data``.
"""

from .cached_data import MAX_FACTS, PROFILE, STALE_FOR, STATE, SUMMARY, profile_to_read
from .change_listener import ChangeListener
from .consistency import ConsistencyWatch
from .invalidation import clear_speech, invalidate
from .outbox_relay import OutboxRelay
from .read_through import read_memory_count, read_memory_search, read_user_data, warm_user_data

__all__ = [
    "MAX_FACTS",
    "PROFILE",
    "STALE_FOR",
    "STATE",
    "SUMMARY",
    "ChangeListener",
    "ConsistencyWatch",
    "OutboxRelay",
    "clear_speech",
    "invalidate",
    "profile_to_read",
    "read_memory_count",
    "read_memory_search",
    "read_user_data",
    "warm_user_data",
]
