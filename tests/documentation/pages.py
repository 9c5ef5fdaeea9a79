"""The pages of the documentation, and what tests read from them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = sorted((ROOT / "docs").glob("*.md"))
PAGES: Final = [ROOT / "README.md", *DOCS]
OTHERS: Final = [ROOT / name for name in ("AGENTS.md", "CONTRIBUTING.md", "examples/README.md", "tests/README.md")]
_FENCE: Final = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")


def text_of(page: Path) -> str:
    """A page as it is written."""
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The code of the page's blocks of one language."""
    return [code for kind, code in _FENCE.findall(text_of(page)) if kind == language]


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", text_of(page))


PYTHON: Final = [
    (f"{page.stem.replace('-', '_').lower()}_{number}", code)
    for page in PAGES
    for number, code in enumerate(blocks(page, "python"))
]
"""Name and code of each block of Python."""


def block_with(words: str) -> str:
    """The first block of Python that holds ``words``."""
    return next(code for _, code in PYTHON if words in code)
