"""The soak test: minutes of sessions through the worker's real entrypoint while faults are injected."""
