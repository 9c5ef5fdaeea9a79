"""Editable installs only: ``livekit_companion.cache`` is the repository's ``cache``, the same object.

A wheel has the four packages below ``livekit_companion``; an editable install has the repository itself, where they
are at the top. A finder makes them importable under the wheel's names too. It never loads a second copy of a module:
two copies would be two cache registries, two sets of context variables, and exceptions that no ``except`` catches.

``build_hook.py`` installs this file beside a ``.pth`` file that calls :func:`install` when an interpreter starts.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import cast

PREFIX = "livekit_companion."
OURS = frozenset({"agent", "cache", "companion", "tools"})


class AliasFinder(MetaPathFinder):
    """Finds ``livekit_companion.X`` for each of the four packages ``X`` and for everything below.

    Args:
        root: the repository.
    """

    def __init__(self, root: str) -> None:
        self._root = root

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of the alias; None for any other name, or where the repository has no such module.

        Raises:
            ImportError: another project's module has the name: it comes first on ``sys.path``.
        """
        real = fullname.removeprefix(PREFIX)
        if real == fullname or real.partition(".")[0] not in OURS:
            return None
        found = importlib.util.find_spec(real)
        if found is None:
            return None
        if found.origin is None or not Path(found.origin).is_relative_to(self._root):
            raise ImportError(
                f"{fullname} is {real} of {self._root}, but the name {real} belongs to {found.origin} here. An "
                "editable install needs the names agent, cache, companion and tools; a wheel does not: pip install .",
                name=fullname,
            )
        spec = ModuleSpec(fullname, AliasLoader(real, found), is_package=found.submodule_search_locations is not None)
        spec.origin = found.origin
        return spec


class AliasLoader(InspectLoader):
    """Loads an alias by importing the module that it stands for."""

    def __init__(self, real: str, spec: ModuleSpec) -> None:
        self._real = real
        self._spec = spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The real module."""
        return importlib.import_module(self._real)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to execute; the import system has set the alias's spec on the module: put its own back."""
        module.__spec__ = self._spec

    def is_package(self, fullname: str) -> bool:
        """Whether the real module is a package."""
        return self._spec.submodule_search_locations is not None

    def get_code(self, fullname: str) -> CodeType | None:
        """The real module's code, which ``python -m livekit_companion.agent`` runs."""
        return cast(InspectLoader, self._spec.loader).get_code(self._real)

    def get_source(self, fullname: str) -> str | None:
        """The real module's source."""
        return cast(InspectLoader, self._spec.loader).get_source(self._real)


def install(root: str) -> None:
    """Put the finder in place.

    Args:
        root: the repository, which another line of a ``.pth`` file has put on ``sys.path``.
    """
    # Before the finder of sys.path: below an alias it would find the real package's files and load them a second time.
    sys.meta_path.insert(0, AliasFinder(root))
