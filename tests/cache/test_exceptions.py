"""The tree drawn in ``cache/exceptions.py`` is the tree of its classes."""

from __future__ import annotations

import inspect
import re

import pytest

from cache import exceptions
from cache.exceptions import CacheError, CommandRejected, rejected_with

pytestmark = pytest.mark.unit


def drawn() -> dict[str, str]:
    """Each class that the docstring draws, with the class above it."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in (exceptions.__doc__ or "").splitlines():
        if match := re.match(r"(    (?:[│ ]   |[├└]── )*)([A-Z]\w+)", line):
            depth = len(match[1]) // 4 - 1
            del above[depth:]
            found[match[2]] = above[-1] if above else "Exception"
            above.append(match[2])
    return found


def test_the_drawn_tree_is_the_tree_of_the_classes() -> None:
    classes = [value for _, value in inspect.getmembers(exceptions, inspect.isclass) if issubclass(value, CacheError)]
    assert drawn() == {each.__name__: each.__bases__[0].__name__ for each in classes}


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("CacheConfigError", ValueError),
        ("InvalidKeyPart", ValueError),
        ("UnserialisableValue", TypeError),
        ("UnserialisableValue", ValueError),
        ("ValueTooLarge", ValueError),
    ],
)
def test_an_exception_keeps_its_built_in_base(name: str, base: type[Exception]) -> None:
    assert issubclass(getattr(exceptions, name), base)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("WRONGTYPE Operation against a key", "WRONGTYPE"),
        ("NOPERM", "NOPERM"),
        ("ERR Error running script (call to f_1): @user_script: 2: -OOM command not allowed", "OOM"),
    ],
)
def test_a_rejection_knows_its_code(text: str, code: str) -> None:
    assert CommandRejected(text).code == code
    assert rejected_with(CommandRejected(text), "X", code)
    assert not rejected_with(CommandRejected(text), "X")
    assert not rejected_with(ValueError(text), code)
