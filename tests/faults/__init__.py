"""The fault suite: the real worker's entrypoint over a Redis that misbehaves in every way we know."""
