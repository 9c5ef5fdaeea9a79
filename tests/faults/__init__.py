"""The fault suite: the worker's real entrypoint while a fault is injected into Redis or the store."""
