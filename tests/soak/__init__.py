"""The soak: minutes of conversations through the worker's real entrypoint, while Redis and the store misbehave."""
