"""Tells a public Supabase key from a secret one."""

import base64
import json


def is_public_key(key: str) -> bool:
    """Whether a key is meant for browsers. Row level security would hide every user from it."""
    if key.startswith("sb_publishable_"):
        return True
    try:
        _, payload, _ = key.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return claims["role"] in ("anon", "authenticated")
    except (ValueError, TypeError, LookupError):
        return False  # not a JWT: Supabase rejects it if it is not a secret key
