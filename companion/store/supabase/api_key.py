"""The kinds of Supabase keys: which may be used here, and how each is sent."""

import base64
import json
from typing import Literal


def public_kind(key: str) -> Literal["publishable", "anon"] | None:
    """The kind of a key that is meant for browsers; None for any other.

    Row level security would hide every user from such a key.
    """
    if key.startswith("sb_publishable_"):
        return "publishable"
    try:
        _, payload, _ = key.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return "anon" if claims["role"] in ("anon", "authenticated") else None
    except (ValueError, TypeError, LookupError):
        return None  # not a JWT: Supabase rejects it if it is not a secret key


def is_bearer_token(key: str) -> bool:
    """Whether a key is a token too: a legacy key is a JWT.

    ``sb_secret_...`` is none, and Supabase rejects it as one: it goes into the header ``apikey`` alone.
    """
    return not key.startswith("sb_")


def key_headers(key: str) -> dict[str, str]:
    """The headers that send a key."""
    return {"apikey": key} | ({"Authorization": f"Bearer {key}"} if is_bearer_token(key) else {})
