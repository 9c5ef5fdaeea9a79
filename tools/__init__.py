"""The tools that the model may call in a conversation."""

from .cache_tools import CacheTools
from .profile_tools import MemoryTools, ProfileTools

__all__ = ["CacheTools", "MemoryTools", "ProfileTools"]
