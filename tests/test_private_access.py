"""Tests look at the product from outside: what they reach into of its private names is counted, and explained."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parents[1]
PACKAGES = ("agent", "cache", "companion", "tools")
AT_MOST = 20
REASON = re.compile(r"# private: \S+")
PRIVATE = re.compile(r"_(?!_)\w*")
PUBLIC = ("_", "_replace")  # the second is a named tuple's own
Nodes = list[ast.AST]


def nodes(path: Path) -> Nodes:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def private_names_of(tree: Nodes) -> Iterator[str]:
    """The private names that a module gives to something: functions, classes, attributes of self, variables."""
    for node in tree:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                yield name


def accesses(tree: Nodes, private: set[str]) -> Iterator[int]:
    """The lines that reach into something for one of the ``private`` names."""
    for node in tree:
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name) if name in private:
                yield node.end_lineno or node.lineno
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] in PACKAGES:
                yield from (name.lineno for name in names if PRIVATE.fullmatch(name.name))
            # setattr(thing, "_name", ...), patch.object(thing, "_name"), patch("package.module._name", ...) and so on
            case ast.Call(func=ast.Attribute(attr=called) | ast.Name(id=called), args=arguments) if called in (
                "setattr",
                "getattr",
                "delattr",
                "object",
                "patch",
            ):
                for argument in arguments[:2]:
                    match argument:
                        case ast.Constant(value=str(text)) if text.rpartition(".")[2] in private:
                            yield argument.lineno


def found() -> dict[str, str]:
    """place -> the line, of every access in the tests."""
    product = [path for package in PACKAGES[1:] for path in (ROOT / package).rglob("*.py")]
    private = {
        name
        for path in (ROOT / "agent.py", *product)
        for name in private_names_of(nodes(path))
        if PRIVATE.fullmatch(name) and name not in PUBLIC
    }
    places = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        tree, lines = nodes(path), path.read_text(encoding="utf-8").splitlines()
        own = set(private_names_of(tree))  # of the test module itself
        for number in accesses(tree, private - own):
            places[f"{path.relative_to(ROOT)}:{number}"] = lines[number - 1].strip()
    return places


def test_few_and_each_with_a_reason() -> None:
    places = found()
    listed = "\n".join(f"{place}: {line}" for place, line in places.items())
    assert len(places) <= AT_MOST, f"{len(places)} lines reach into private names:\n{listed}"
    unexplained = [place for place, line in places.items() if not REASON.search(line)]
    assert not unexplained, f"without '# private: why' at the end of the line: {unexplained}"


@pytest.mark.parametrize(
    "line",
    [
        "cache._engine.x",
        "a().b[0]._engine",
        "monkeypatch.setattr(thing, '_engine', 1)",
        "monkeypatch.setattr('cache.thing._engine', 1)",
        "patch.object(Thing, '_engine')",
        "patch('cache.thing._engine', 1)",
        "from cache.thing import _other",
        "(x\n  ._engine)",
    ],
)
def test_it_notices(line: str) -> None:
    tree = list(ast.walk(ast.parse(line)))
    assert len(list(accesses(tree, {"_engine"}))) == 1


@pytest.mark.parametrize(
    "line", ["self._engine", "world._replace(x=1)", "x.engine", "from tests.x import _y", "_engine = 1"]
)
def test_it_does_not_mind(line: str) -> None:
    assert list(accesses(list(ast.walk(ast.parse(line))), {"_engine"})) == []
