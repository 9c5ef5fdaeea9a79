"""A LiveKit voice agent that knows its caller before its first word.

::

    with use_caller(Caller("123")):
        profile = await get_user_profile_async()
        await save_user_profile_async(profile + " Likes chess.")
    instructions = await get_intelligent_first_message_instructions("123", "Greet the user.")
"""

from .conversation.greeting import get_intelligent_first_message_instructions
from .identity import Caller, current_caller, use_caller
from .memory.profile import get_user_profile_async, save_user_profile_async

__all__ = [
    "Caller",
    "current_caller",
    "get_intelligent_first_message_instructions",
    "get_user_profile_async",
    "save_user_profile_async",
    "use_caller",
]
