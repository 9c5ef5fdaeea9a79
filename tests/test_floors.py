"""The arrows between packages, folders and modules point down, as the imports say; and every part is of readable size.

Imports inside functions and under ``TYPE_CHECKING`` count like any other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.unit
ROOT: Final = Path(__file__).parent.parent
MAX_FILES: Final = 15
"""Files of one folder, beside its ``__init__.py``."""
MAX_LINES: Final = 290
LONGER: Final = {"cache.redis_cache": 350}
"""Files that are longer, and why: the documented operations with their documentation, in one place."""
SIDE_FACES: Final = {"cache.embedded"}
"""Folders with public names for everybody, beside those of the package they are in."""

PACKAGES: Final = {"agent": {"tools"}, "tools": {"companion"}, "companion": {"cache"}, "cache": set[str]()}
FLOORS: Final[dict[str, dict[str, set[str]]]] = {
    "companion": {
        "console": {"conversation", "person", "worker"},
        "worker": {"runtime"},
        "cli": {"history", "person"},
        "person": {"memory"},
        "history": {"runtime"},
        "conversation": {"memory", "transcript", "relative_time"},
        "memory": {"runtime"},
        "runtime": {"writes", "voice"},
        "writes": {"caching", "identity", "file_lock", "waiting"},
        "voice": {"offline", "settings", "speech", "phrases"},
        "phrases": set(),
        "speech": set(),
        "caching": {"store", "waiting"},
        "offline": {"prompts", "forget_request"},
        "settings": {"store", "identity"},
        "store": {"text", "profile_lines", "file_lock"},
        "file_lock": set(),
        "profile_lines": set(),
        "identity": {"text"},
        "prompts": {"material"},
        "forget_request": {"forget_words"},
        "forget_words": set(),
        "material": {"text"},
        "text": set(),
        "waiting": set(),
        "relative_time": set(),
        "transcript": {"prompts", "forget_request", "store"},
    },
    "cache": {
        "registry": {"redis_cache"},
        "redis_cache": {"reader", "writer", "locks"},
        "writer": {"invalidation"},
        "invalidation": {"loading"},
        "reader": {"core"},
        "loading": {"reader"},
        "core": {"coherence"},
        "coherence": {"transport"},
        "transport": {"serialization", "settings", "keys"},
        "locks": {"transport"},
        "embedded": {"settings", "keys"},
        "serialization": {"exceptions"},
        "settings": {"redis_url", "variables"},
        "variables": {"url_options"},
        "redis_url": {"url_options"},
        "url_options": {"exceptions"},
        "keys": {"exceptions", "validation", "background", "slots"},
        "slots": set(),
        "exceptions": set(),
        "validation": set(),
        "background": set(),
    },
}
"""Of a package, the parts that each part may import, and through them whatever these may."""


@dataclass(frozen=True)
class Import:
    """One name that a module imports.

    Attributes:
        importer: the module that imports.
        module: the module it imports from; its own name where the module itself is imported.
        name: the name it imports from there; empty where it imports the module itself.
        line: of the import.
        relative: whether it is written with leading dots.
    """

    importer: str
    module: str
    name: str
    line: int
    relative: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.name or self.module} from {self.module}"


@cache
def modules() -> dict[str, Path]:
    """Every module of the product, by its full name; a package by the name of its folder."""
    found = {"agent": ROOT / "agent.py"}
    for package in ("tools", "companion", "cache"):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


@cache
def imports() -> tuple[Import, ...]:
    """All imports of the product's own modules, wherever they are written."""
    return tuple(one for module in modules() for one in _imports_of(module) if one.module.split(".")[0] in PACKAGES)


def _imports_of(module: str) -> Iterator[Import]:
    package = module.split(".") if modules()[module].name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name, "", node.lineno, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                target, name = (inner, "") if inner in modules() else (source, alias.name)
                yield Import(module, target, name, node.lineno, bool(node.level))


def public_names(package: str) -> set[str] | None:
    """The names in a package's ``__all__``; None where it has none, and its modules are imported one by one."""
    for node in tree(package).body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == "__all__" for to in node.targets):
            return set(ast.literal_eval(node.value))
    return None


def below(floors: dict[str, set[str]], part: str) -> set[str]:
    """Everything that ``part`` may import, directly or through others."""
    return {further for lower in floors[part] for further in {lower, *below(floors, lower)}}


def part_of(module: str) -> tuple[str, str]:
    """The package of a module, and the folder or file in it; that is empty for the package's own ``__init__.py``."""
    package, _, rest = module.partition(".")
    return package, rest.split(".")[0]


def report(wrong: Iterable[object]) -> str:
    return "\n".join(sorted(map(str, wrong)))


def test_packages_import_downwards() -> None:
    wrong = [
        one
        for one in imports()
        if (upper := part_of(one.importer)[0]) != (lower := part_of(one.module)[0])
        and lower not in below(PACKAGES, upper)
    ]
    assert not wrong, report(wrong)


@pytest.mark.parametrize("package", FLOORS)
def test_every_part_is_on_a_floor(package: str) -> None:
    parts = {part for module in modules() if (part := part_of(module)[1]) and part_of(module)[0] == package}
    assert parts == FLOORS[package].keys()


@pytest.mark.parametrize("package", FLOORS)
def test_parts_import_downwards(package: str) -> None:
    floors = FLOORS[package]
    wrong = []
    for one in imports():
        (importer, upper), (imported, lower) = part_of(one.importer), part_of(one.module)
        inner = importer == imported == package and upper not in ("", lower)  # the package's __init__.py is above all
        if inner and lower not in below(floors, upper):
            wrong.append(one)
    assert not wrong, report(wrong)


@pytest.mark.parametrize("package", FLOORS)
def test_no_circle_between_modules(package: str) -> None:
    arrows: dict[str, set[str]] = {module: set() for module in modules()}
    for one in imports():
        arrows[one.importer].add(one.module)
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, "a circle: " + " -> ".join([*path[path.index(module) :], module])
        if module not in finished and part_of(module)[0] == package:
            for lower in sorted(arrows[module]):
                visit(lower, (*path, module))
            finished.add(module)

    for module in arrows:
        visit(module, ())


def test_no_private_module_of_another_package() -> None:
    """A folder that lists its public names gives these away and nothing else; so does the cache, as a whole."""
    wrong = []
    for one in imports():
        for face in faces():
            outside = not f"{one.importer}.".startswith(f"{face}.")
            if outside and f"{one.module}.".startswith(f"{face}.") and not is_public(one, face):
                wrong.append(one)
    assert not wrong, report(wrong)


@cache
def faces() -> dict[str, set[str]]:
    """The folders with public names. The companion is none: the agent and the tools are made of its parts."""
    names = {module: public_names(module) for module, path in modules().items() if path.name == "__init__.py"}
    return {module: public for module, public in names.items() if public is not None and module != "companion"}


def is_public(one: Import, face: str) -> bool:
    """Whether what is imported is listed by ``face``, as a name or as a module, or by a face beside it."""
    if one.module == face or one.module in SIDE_FACES:
        return not one.name or one.name in faces()[one.module] or is_dunder(one.name)
    package, _, name = one.module.rpartition(".")
    return package == face and name in faces()[face]


def test_no_private_name_of_another_module() -> None:
    wrong = [str(one) for one in imports() if any(map(is_private, (one.name, *one.module.split("."))))]
    for module in modules():
        imported = {one.module.rpartition(".")[2] for one in imports() if one.importer == module and not one.name}
        wrong += [
            f"{module}:{node.lineno} uses {node.value.id}.{node.attr}"
            for node in ast.walk(tree(module))
            if isinstance(node, ast.Attribute)
            and is_private(node.attr)
            and isinstance(node.value, ast.Name)
            and node.value.id in imported
        ]
    assert not wrong, report(wrong)


def is_private(name: str) -> bool:
    return name.startswith("_") and not is_dunder(name)


def is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def test_the_cache_imports_itself_relatively() -> None:
    """So it works under any package name."""
    wrong = [one for one in imports() if part_of(one.importer)[0] == "cache" and not one.relative]
    assert not wrong, report(wrong)


@pytest.mark.parametrize("package", ["tools", *FLOORS, "tests", "benchmarks", "examples", "distribution"])
def test_folders_are_small(package: str) -> None:
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    sizes = {folder: sum(path.name != "__init__.py" for path in folder.glob("*.py")) for folder in folders}
    wrong = [f"{folder.relative_to(ROOT)}: {size} files" for folder, size in sizes.items() if size > MAX_FILES]
    assert not wrong, report(wrong)


@pytest.mark.parametrize("package", ["agent", "tools", *FLOORS])
def test_files_are_short(package: str) -> None:
    lengths = {
        module: len(path.read_text(encoding="utf-8").splitlines())
        for module, path in modules().items()
        if part_of(module)[0] == package
    }
    wrong = [
        f"{module}: {length} lines" for module, length in lengths.items() if length > LONGER.get(module, MAX_LINES)
    ]
    assert not wrong, report(wrong)
