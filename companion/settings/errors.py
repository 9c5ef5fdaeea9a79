"""What is raised where a setting cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cache import CacheConfigError


class SettingsError(ValueError):
    """A setting is missing or unusable. The text names the variable and what to do, never its value."""


@contextmanager
def settings_errors() -> Iterator[None]:
    """Raise what the cache, and the readers of variables, raise as a ``SettingsError``."""
    try:
        yield
    except CacheConfigError as problem:
        raise SettingsError(str(problem)) from None
