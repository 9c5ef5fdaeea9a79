"""Which kind of key a Supabase key is."""

import base64
import json


def is_public_key(key: str) -> bool:
    """Whether `key` is meant for browsers. With it, every user would seem unknown."""
    if key.startswith("sb_publishable_"):
        return True
    try:
        _, payload, _ = key.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return claims["role"] in ("anon", "authenticated")
    except (ValueError, TypeError, LookupError):
        return False  # not a JWT: Supabase will say what it thinks of it
