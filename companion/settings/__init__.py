"""The settings of the companion, read from the environment, ``.env.local`` and ``.env``, and checked."""

from .errors import SettingsError
from .models import DEFAULTS, OFF, ModelChoice
from .settings import Settings
from .worker import check_worker, holds_conversations

__all__ = [
    "DEFAULTS",
    "OFF",
    "ModelChoice",
    "Settings",
    "SettingsError",
    "check_worker",
    "holds_conversations",
]
