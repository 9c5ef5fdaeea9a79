"""The pictures and the file names in docs/architecture.md are those of the tree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.documentation.pages import ROOT, blocks, prose
from tests.test_floors import imports, modules, part_of

pytestmark = pytest.mark.unit
PAGE = ROOT / "docs" / "architecture.md"
PICTURES = blocks(PAGE, "mermaid")
HOMES = ("", "companion.", "cache.", "companion.conversation.")
"""Where a label of a picture names a file or a folder."""


def module_of(label: str) -> str:
    """The module that a label names: what stands before its colon, or the node's own name."""
    name = label.partition(":")[0].rstrip("/").removesuffix(".py").replace("/", ".")
    return next(home + name for home in HOMES if home + name in modules() or home + name == "tools")


def arrows(picture: str) -> set[tuple[str, str]]:
    """The arrows of one picture, as names of modules."""
    labels = dict(re.findall(r'(\w+)\["([^"]+)"\]', picture))
    found = set()
    for line in picture.splitlines():
        nodes = re.sub(r'\["[^"]+"\]', "", line).strip().split(" --> ")
        found |= {
            (module_of(labels.get(upper, upper)), module_of(labels.get(lower, lower)))
            for upper, lower in pairwise(nodes)
        }
    return found


def below(drawn: set[tuple[str, str]], upper: str) -> set[str]:
    return {further for one, lower in drawn if one == upper for further in {lower, *below(drawn, lower)}}


def imported(upper: str, lower: str) -> Iterator[str]:
    """The imports of one part from another; from another package also by its public names."""
    for one in imports():
        by_package = part_of(upper)[0] != part_of(lower)[0] and one.module == part_of(lower)[0]
        if f"{one.importer}.".startswith(f"{upper}.") and (by_package or f"{one.module}.".startswith(f"{lower}.")):
            yield str(one)


@pytest.mark.parametrize("picture", PICTURES, ids=["subsystems", "conversation"])
def test_every_arrow_is_an_import(picture: str) -> None:
    drawn = arrows(picture)
    assert len(drawn) > 20
    assert [f"{upper} -> {lower}" for upper, lower in sorted(drawn) if not any(imported(upper, lower))] == []


@pytest.mark.parametrize("picture", PICTURES, ids=["subsystems", "conversation"])
def test_every_import_is_an_arrow_or_more_than_one(picture: str) -> None:
    drawn = arrows(picture)
    parts = sorted({part for arrow in drawn for part in arrow})
    missing = [
        one
        for upper in parts
        for lower in parts
        if upper != lower and part_of(upper)[0] == part_of(lower)[0] and lower not in below(drawn, upper)
        for one in imported(upper, lower)
    ]
    assert missing == []


def test_every_file_that_it_names_is_there() -> None:
    files = {f"/{path.relative_to(ROOT).as_posix()}" for path in modules().values()}
    named = set(re.findall(r"`([\w/]+\.py)`", prose(PAGE)))
    assert len(named) > 80
    there = {name for name in named if (ROOT / name).exists() or any(file.endswith(f"/{name}") for file in files)}
    assert named == there
