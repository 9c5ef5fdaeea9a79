"""Who the caller is: from an identity or the job's metadata to the user whose data one conversation may touch."""

from .beginning import Beginning
from .caller import Caller, caller_from_identity, current_caller, person, use_caller
from .language import language_code, language_in
from .metadata import caller_from_metadata, language_from_metadata
from .phone import DIALLED, NUMBER, e164, load_library, phone_caller
from .user_id import ENCODED, KnownAs, UnusableIdentity, identity_of, user_id_of

__all__ = [
    "DIALLED",
    "ENCODED",
    "NUMBER",
    "Beginning",
    "Caller",
    "KnownAs",
    "UnusableIdentity",
    "caller_from_identity",
    "caller_from_metadata",
    "current_caller",
    "e164",
    "identity_of",
    "language_code",
    "language_from_metadata",
    "language_in",
    "load_library",
    "person",
    "phone_caller",
    "use_caller",
    "user_id_of",
]
