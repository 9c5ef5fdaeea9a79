"""Companion as a LiveKit plugin: the public names of ``livekit_companion``, under the framework's namespace.

::

    from livekit.plugins import companion

    agent = Agent(instructions="Be kind.", tools=[companion.CacheTools()])

Importing it registers it, so that the framework's worker lists it and ``python -m livekit.agents download-files``
reaches it.
"""

import logging
import threading
from typing import TYPE_CHECKING

import livekit_companion
from livekit.agents import Plugin
from livekit_companion import __all__ as __all__
from livekit_companion import __version__ as __version__

if TYPE_CHECKING:
    from livekit_companion import *  # noqa: F403 - the names, for type checkers
else:

    def __getattr__(name: str) -> object:
        return getattr(livekit_companion, name)


class CompanionPlugin(Plugin):
    """What the framework's list of plugins shows."""

    def __init__(self) -> None:
        super().__init__(__name__, __version__, __name__, logging.getLogger("companion"))


# The framework refuses to register off the main thread, where a lazy import may well happen: that must not fail, and
# nothing but the entry in the list is lost.
if threading.current_thread() is threading.main_thread():
    Plugin.register_plugin(CompanionPlugin())
