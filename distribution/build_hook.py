"""Build hook of the wheel: puts the repository's four packages below one import name, ``livekit_companion``.

In the repository the packages are ``agent``, ``companion``, ``cache`` and ``tools``. Nearly every LiveKit project has
an ``agent.py`` of its own, and many a ``tools/`` or a ``cache.py``, so a wheel must not install those names. The hook
copies the sources and rewrites ``from cache import ...`` into ``from livekit_companion.cache import ...``, line by
line, so that line numbers in a traceback stay those of the repository. Every other way to import one of the four fails
the build with file and line: on a user's machine it would import another project's module, or nothing.

An editable install has no copies: the repository is put on ``sys.path``, and ``aliases.py`` lets
``livekit_companion.cache`` be the module ``cache`` itself.

The standard library and hatchling's interface are all this file needs; a source distribution contains it.
"""

from __future__ import annotations

import ast
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "livekit_companion"
OURS = ("agent", "cache", "companion", "tools")

_FROM = re.compile(rf"from(\s+)({'|'.join(OURS)})\b")
_DOCUMENTED = re.compile(rf"^(\s*)from ({'|'.join(OURS)})(?=[.\s][\w.\s]*\bimport\b)")
_NAME = re.compile(rf"(?:{'|'.join(OURS)})(?:\.\w+)*")
_IMPORTERS = frozenset({"__import__", "find_spec", "import_module", "resolve_name", "run_module"})


class UnmappedImport(ValueError):
    """A source imports one of the four packages in a form that the hook does not rewrite."""


class CompanionBuildHook(BuildHookInterface[Any]):
    """Chooses what a wheel contains; ``bypass-selection`` in pyproject.toml keeps hatchling from choosing too."""

    PLUGIN_NAME = "custom"
    _copies: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fill the build's inclusion map.

        Args:
            version: ``standard`` or ``editable``.
            build_data: hatchling's own; ``force_include`` maps sources to places in the wheel.
        """
        root = Path(self.root)
        self._copies = copies = Path(tempfile.mkdtemp(prefix="livekit-companion-wheel-"))
        if version == "editable":
            pth = copies / "aliases.pth"
            line = f"import _livekit_companion_aliases; _livekit_companion_aliases.install({str(root)!r})\n"
            pth.write_text(line, encoding="utf-8")
            build_data["force_include_editable"] = {
                str(root / "distribution" / "aliases.py"): "_livekit_companion_aliases.py",
                str(pth): "_livekit_companion_aliases.pth",
            }
            return
        try:
            write_packages(root, copies)
        except BaseException:
            shutil.rmtree(copies, ignore_errors=True)  # a failed build is not finalized
            raise
        build_data["force_include"] |= {str(copies / name): name for name in (PACKAGE, "livekit")}

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the copies."""
        if self._copies is not None:
            shutil.rmtree(self._copies, ignore_errors=True)


def write_packages(root: Path, target: Path) -> None:
    """Write what a wheel contains, the rewritten packages and the files that only a wheel has, into ``target``.

    Raises:
        UnmappedImport: a source imports one of the four packages in another form than ``from X import``.
    """
    package = target / PACKAGE
    for name in OURS:
        source = root / name
        for path in _files(source) if source.is_dir() else [source.with_suffix(".py")]:
            copy = package / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".py":
                text = mapped(path.read_text(encoding="utf-8"), path.relative_to(root).as_posix(), root)
                copy.write_text(text, encoding="utf-8")
            else:
                shutil.copyfile(path, copy)
    for name in (PACKAGE, "livekit"):
        for path in _files(root / "distribution" / "src" / name):
            copy = target / path.relative_to(root / "distribution" / "src")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    migrations = package / "companion" / "migrations"  # where companion/cli.py looks for them
    shutil.copytree(root / "supabase" / "migrations", migrations, ignore=shutil.ignore_patterns(".*"))


def mapped(text: str, name: str, root: Path) -> str:
    """A module's source with the four packages' imports below ``livekit_companion``.

    Args:
        text: the module's source.
        name: its path, for messages.
        root: the repository, to tell a module's name in a string from any other text.

    Raises:
        UnmappedImport: see :func:`write_packages`.
    """
    tree = ast.parse(text, name)
    lines = text.splitlines(keepends=True)
    docstrings = set(_docstrings(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and _first(node.module) in OURS:
            line = lines[node.lineno - 1]
            statement = line.lstrip()
            if node.col_offset != len(line) - len(statement) or not _FROM.match(statement):
                raise UnmappedImport(f"{name}:{node.lineno}: an import of {node.module} must begin its own line")
            indent = line[: node.col_offset]
            lines[node.lineno - 1] = indent + _FROM.sub(rf"from\1{PACKAGE}.\2", statement, count=1)
        elif isinstance(node, ast.Import) and (bad := [one.name for one in node.names if _first(one.name) in OURS]):
            raise UnmappedImport(f"{name}:{node.lineno}: write 'from {bad[0]} import ...', not 'import {bad[0]}'")
        elif isinstance(node, ast.Call | ast.Constant) and node not in docstrings:
            module = _named(node, root)
            if module is not None:
                where = f"{name}:{node.lineno}"
                raise UnmappedImport(f"{where}: {module!r} is no module's name in a wheel: derive it from __package__")
    for node in docstrings:  # examples, for readers of help()
        for number in range(node.lineno - 1, node.end_lineno or node.lineno):
            lines[number] = _DOCUMENTED.sub(rf"\1from {PACKAGE}.\2", lines[number])
    return "".join(lines)


def _named(node: ast.expr, root: Path) -> str | None:
    """The module of ours that a string names: dotted, or the argument of an import function or ``preload_modules``."""
    if isinstance(node, ast.Constant):
        text = node.value
        if isinstance(text, str) and "." in text and _NAME.fullmatch(text):
            path = root.joinpath(*text.split("."))
            return text if path.is_dir() or path.with_suffix(".py").is_file() else None
        return None
    if not isinstance(node, ast.Call):
        return None
    function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    strings: list[ast.expr] = node.args[:1] if function in _IMPORTERS else []
    for keyword in node.keywords:
        if keyword.arg == "preload_modules" and isinstance(keyword.value, ast.List | ast.Tuple):
            strings += keyword.value.elts
        elif function in _IMPORTERS:
            strings.append(keyword.value)
    for string in strings:
        if isinstance(string, ast.JoinedStr) and string.values:
            string = string.values[0]
        if isinstance(string, ast.Constant) and _first(string.value) in OURS:
            return str(string.value)
    return None


def _first(module: object) -> str:
    return module.partition(".")[0] if isinstance(module, str) else ""


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield first.value


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
        if path.is_file() and not hidden and path.suffix != ".pyc":
            yield path
