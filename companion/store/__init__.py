"""The source of truth: where profiles, turns, memories, summaries and states are kept for good.

The cache above may forget; this may not. `SqliteStore` needs nothing but a file,
`SupabaseStore` a hosted project.
"""

from typing import TYPE_CHECKING, Any

from .base import Context, Memory, Store, StoreError, Summary, Turn
from .outbox import DataKind, OutboxRow
from .read_batching import ContextBatcher
from .search_terms import search_words
from .sqlite.store import SqliteStore
from .supabase.api_key import is_public_key

if TYPE_CHECKING:
    from .supabase.store import SupabaseStore

__all__ = [
    "Context",
    "ContextBatcher",
    "DataKind",
    "Memory",
    "OutboxRow",
    "SqliteStore",
    "Store",
    "StoreError",
    "Summary",
    "SupabaseStore",
    "Turn",
    "is_public_key",
    "search_words",
]


def __getattr__(name: str) -> Any:
    # Its library takes up to two seconds to import: only those who use it wait for it.
    if name == "SupabaseStore":
        from .supabase.store import SupabaseStore

        return SupabaseStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
