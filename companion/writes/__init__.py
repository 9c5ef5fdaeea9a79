"""Writes on their way to the store: queued per user, retried, and spooled to disk when the store stays away."""

from .erasure import Eraser
from .profile_write import Profile
from .records import Write
from .relationship import ConversationEnded
from .retention import expire_turns
from .spool import Spool
from .write_behind import WriteBehind

__all__ = ["ConversationEnded", "Eraser", "Profile", "Spool", "Write", "WriteBehind", "expire_turns"]
