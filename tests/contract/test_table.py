"""The table of docs/upgrading.md names every contract test, with the modules that its docstring names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
Row = tuple[str, frozenset[str]]
MODULE = re.compile(r"(?:agent|cache|companion|tools)(?:\.\w+)*")


def documented() -> list[Row]:
    """The tests of the table, and the modules beside them."""
    text = (ROOT / "docs" / "upgrading.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| `(test_\w+)` \|$", text, re.MULTILINE)
    return [(test, frozenset(re.findall(r"`([\w.]+)`", modules))) for modules, test in rows]


def written() -> list[Row]:
    """The tests below this folder, and the modules that their docstrings name."""
    rows: list[Row] = []
    for path in sorted(HERE.rglob("test_*.py")):
        for node in ast.parse(path.read_text()).body if path != Path(__file__) else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                quoted = re.findall(r"``([^`]+)``", ast.get_docstring(node) or "")
                rows.append((node.name, frozenset(filter(MODULE.fullmatch, quoted))))
    return rows


def test_the_table_and_the_tests_agree() -> None:
    """What is tested is in the table, what is in the table is tested, and no name appears twice."""
    assert sorted(documented(), key=str) == sorted(written(), key=str)
    assert len({test for test, _ in written()}) == len(written())


def test_every_test_names_a_module_that_exists() -> None:
    """A behaviour that no module depends on needs no test."""
    for test, modules in written():
        assert modules, f"the docstring of {test} names no module"
        for module in modules:
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), f"{test}: {module}"
