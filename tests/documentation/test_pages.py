"""Each page begins with its problem, and what it names exists: pages, anchors, tests, files, commands."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from typer.main import get_command

from companion.cli import make_app
from tests.documentation.pages import DOCS, OTHERS, PAGES, PYTHON, ROOT, blocks, prose, text_of

pytestmark = pytest.mark.unit
FEATURES = [
    "agents",
    "cache",
    "console",
    "deployments",
    "encryption",
    "first-word",
    "forgetting",
    "invalidation",
    "memory",
]
FEATURES += ["near-cache", "redis", "security", "speech", "supabase", "telephony"]
NAMED = sorted(
    {(path, name) for page in PAGES for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text_of(page))}
)
FILE = re.compile(r"`((?:benchmarks|companion|distribution|docs|examples|supabase|tests|tools)/[\w./-]+)`")
NOT_COUNTED = re.compile(r"[^\w\- ]")


def ids(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def names_in(path: str) -> frozenset[str]:
    return frozenset(re.findall(r"(?m)^(?:async )?def (test_\w+)", text_of(ROOT / path)))


@cache
def anchors_of(page: Path) -> frozenset[str]:
    """The anchors that GitHub and the site make of the headings."""
    headings = re.findall(r"(?m)^#+ (.*)$", prose(page))
    return frozenset(NOT_COUNTED.sub("", heading.strip().lower()).replace(" ", "-") for heading in headings)


def test_every_test_that_a_page_names_exists() -> None:
    assert len(NAMED) > 200
    missing = [f"{path}::{name}" for path, name in NAMED if not name.startswith("test_") or name not in names_in(path)]
    assert missing == []


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=ids)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = {path for path in FILE.findall(prose(page)) if not path.startswith("docs/pictures/")}
    missing = [path for path in named if not (ROOT / path).exists() and not list((ROOT / "cache").glob(path))]
    assert missing == []


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=ids)
def test_every_link_has_its_page_and_its_anchor(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        to = (page.parent / name).resolve() if name else page
        if not to.exists() or (anchor and anchor not in anchors_of(to)):
            wrong.append(target)
    assert wrong == []


@pytest.mark.parametrize("page", [page for page in DOCS if page.stem != "index"], ids=ids)
def test_a_page_begins_with_its_problem(page: Path) -> None:
    title, first, *_ = text_of(page).split("\n\n")
    assert title.startswith("# ")
    assert "?" in first, "the first paragraph asks what the page answers"


@pytest.mark.parametrize("name", FEATURES)
def test_every_claim_of_a_feature_names_the_tests_that_show_it(name: str) -> None:
    claims, inside = [], False
    for line in text_of(ROOT / "docs" / f"{name}.md").splitlines():
        inside = line.endswith("| shown by |") or (inside and line.startswith("|"))
        if inside and not line.endswith("| shown by |") and not line.startswith("|---"):
            claims.append(line)
    assert len(claims) >= 5
    assert [claim for claim in claims if not re.search(r"\| (`tests/[\w/]+\.py::test_\w+` ?)+\|$", claim)] == []


def test_the_readme_leads_to_every_page() -> None:
    readme = text_of(ROOT / "README.md")
    assert [page.name for page in DOCS if f"(docs/{page.name})" not in readme] == []


@pytest.mark.parametrize(("name", "code"), PYTHON, ids=[name for name, _ in PYTHON])
def test_every_block_of_python_is_a_module(name: str, code: str) -> None:
    compile(code, name, "exec")  # and no `await` outside of a function; tests/packaging/test_types.py checks its types


def test_every_command_that_is_shown_exists() -> None:
    makefile = text_of(ROOT / "Makefile")
    targets = set(re.findall(r"(?m)^([a-z-]+):", makefile))
    commands = set(get_command(make_app("0", lambda: None)).commands)  # type: ignore[attr-defined]  # a group has them
    for page in [*PAGES, *OTHERS]:
        shown = "\n".join(blocks(page, "console"))
        named = re.findall(r"`make ([a-z-]+)[^`]*`", prose(page)) + re.findall(r"(?m)^\$ make ([a-z-]+)", shown)
        assert set(named) <= targets, page.name
        called = re.findall(r"`companion ([a-z]+)[^`]*`", prose(page)) + re.findall(
            r"(?m)^\$ companion ([a-z]+)", shown
        )
        assert set(called) <= commands, page.name


def test_every_line_that_troubleshooting_quotes_is_in_the_code() -> None:
    """The constant parts of each line; what varies in it (numbers, variables, kinds, ``...``) is not compared."""
    code = "\n".join(text_of(path) for folder in ("cache", "companion") for path in (ROOT / folder).rglob("*.py"))
    varying = re.compile(r"\.\.\.|\d+|[()]|[A-Z]+_[A-Z_]+|^companion: |^an? \w+ |'s \w+ ")
    quoted = re.findall(r"(?m)^\| ([^|]+) \|", text_of(ROOT / "docs" / "troubleshooting.md"))
    lines = [line for cell in quoted for line in re.findall(r"`([^`]+)`", cell) if " " in line]
    parts = [part.strip(" :,.;") for line in lines for part in varying.split(line)]
    assert len(lines) > 15
    assert [part for part in parts if len(part) > 5 and part not in code] == []
