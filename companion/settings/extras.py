"""The packages of the extras, which some settings need."""

from __future__ import annotations

from importlib.util import find_spec

from cache import CacheConfigError


def require(module: str, extra: str, reason: str) -> None:
    """Check that a package of an extra is installed.

    To an import, a folder with the name of a missing package (``supabase/`` with its migrations) is an empty namespace
    package: it is found, but it has no file.

    Raises:
        CacheConfigError: it is not installed.
    """
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # nor is the package that it is a part of
        spec = None
    if spec is None or spec.origin is None:
        raise CacheConfigError(
            f"{reason}, but the package {module} is not installed: pip install 'livekit-companion[{extra}]'"
        )
