"""What the conversations of one event loop share, and which of these runtimes is the running loop's."""

from .registry import acquire_runtime, close_runtime, get_runtime, release_runtime, runtime_of_command, set_runtime
from .runtime import Runtime, open_store

__all__ = [
    "Runtime",
    "acquire_runtime",
    "close_runtime",
    "get_runtime",
    "open_store",
    "release_runtime",
    "runtime_of_command",
    "set_runtime",
]
