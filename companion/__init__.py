"""A LiveKit voice agent that knows its caller before its first word.

``attach`` gives any LiveKit session a memory of its caller (``conversation.attach``). Outside of a session, name the
caller::

    with use_caller(Caller("123")):
        profile = await get_user_profile_async()
        await save_user_profile_async(profile + " Likes chess.")
    instructions = await get_intelligent_first_message_instructions("123", "Greet the user.")

The names are loaded at first use (PEP 562): LiveKit alone takes a second to import, and the ``companion`` command does
not need it for its help or its migrations.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conversation.attach import attach
    from .conversation.opening.greeting import get_intelligent_first_message_instructions
    from .identity import Caller, current_caller, use_caller
    from .memory.profile import get_user_profile_async, save_user_profile_async
    from .speech import CachedTTS

__all__ = [
    "CachedTTS",
    "Caller",
    "attach",
    "current_caller",
    "get_intelligent_first_message_instructions",
    "get_user_profile_async",
    "save_user_profile_async",
    "use_caller",
]

_MODULES = {
    "CachedTTS": "speech",
    "Caller": "identity",
    "attach": "conversation.attach",
    "current_caller": "identity",
    "get_intelligent_first_message_instructions": "conversation.opening.greeting",
    "get_user_profile_async": "memory.profile",
    "save_user_profile_async": "memory.profile",
    "use_caller": "identity",
}

if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value
