"""The settings of the companion, read from the environment, ``.env.local`` and ``.env``, and checked."""

from .errors import SettingsError
from .models import OFF, ModelChoice
from .settings import CONSOLE_USER, Settings
from .worker import check_worker, holds_conversations

__all__ = [
    "CONSOLE_USER",
    "OFF",
    "ModelChoice",
    "Settings",
    "SettingsError",
    "check_worker",
    "holds_conversations",
]
