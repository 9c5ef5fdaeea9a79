"""The store, the source of truth: profiles, turns, memories, summaries and states, kept until they are deleted.

``SqliteStore`` needs a file, ``SupabaseStore`` a Supabase project. Both keep a transactional outbox of what they write.
"""

from typing import TYPE_CHECKING, Any

from .base import PersonErased, Store, StoreError
from .erasures import Moved, PendingErasure
from .fact_key import fact_key
from .forgetting import Forgotten, Removed, Thing, knowing
from .outbox import DataKind, OutboxRow
from .person_json import person_from_json, person_to_json
from .profile_history import ProfileAuthor, ProfileVersion, StoredProfile
from .read_batching import ContextBatcher
from .records import Context, Memory, Opening, PersonData, Summary, Turn
from .search_terms import search_words, shares_word
from .sqlite.store import SqliteStore
from .supabase.api_key import is_bearer_token, key_headers, public_kind
from .supabase.diagnosis import explain_answer, explain_failure
from .word_stems import mentions, stems_of, unspaced, words_of

if TYPE_CHECKING:
    from .supabase.store import SupabaseStore

__all__ = [
    "Context",
    "ContextBatcher",
    "DataKind",
    "Forgotten",
    "Memory",
    "Moved",
    "Opening",
    "OutboxRow",
    "PendingErasure",
    "PersonData",
    "PersonErased",
    "ProfileAuthor",
    "ProfileVersion",
    "Removed",
    "SqliteStore",
    "Store",
    "StoreError",
    "StoredProfile",
    "Summary",
    "SupabaseStore",
    "Thing",
    "Turn",
    "explain_answer",
    "explain_failure",
    "fact_key",
    "is_bearer_token",
    "key_headers",
    "knowing",
    "mentions",
    "person_from_json",
    "person_to_json",
    "public_kind",
    "search_words",
    "shares_word",
    "stems_of",
    "unspaced",
    "words_of",
]


def __getattr__(name: str) -> Any:
    # Imported on first use (PEP 562): the library takes up to two seconds to import.
    if name == "SupabaseStore":
        from .supabase.store import SupabaseStore

        return SupabaseStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
