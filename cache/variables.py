"""Variables of the environment: their names, what each may be, and how its text is read.

A settings class has one in the metadata of each field that comes from the environment. ``docs/configuration.md`` and
``.env.example`` are written from them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from .exceptions import CacheConfigError
from .url_options import FLAG, TEXT, Kind, number

__all__ = ["FLAG", "TEXT", "Kind", "Variable", "number", "variable", "variables_of"]
_KEY: Final = "variable"
_QUOTES: Final = frozenset("\"'`\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb")
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})  # what Unicode calls control, format, separator


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of the environment.

    Attributes:
        name: its name.
        meaning: what it means, for the documentation.
        kind: what its value may be.
        shown: the default as it would be written; empty where there is none.
        secret: whether it is a credential, of which error messages quote nothing. It is printable ASCII.
        exact: whether any text is meant as it is, also with quotation marks and characters that cannot be seen.
        section: the heading under which it is documented.
    """

    name: str
    meaning: str
    kind: Kind = TEXT
    shown: str = ""
    secret: bool = False
    exact: bool = False
    section: str = ""

    def text(self, environ: Mapping[str, str]) -> str:
        """The variable's text without surrounding whitespace; empty where it is unset.

        Raises:
            CacheConfigError: it is in quotation marks, which the program that set it did not remove, or it holds
                characters that cannot be seen.
        """
        text = environ.get(self.name, "").strip()
        if not text or self.exact:
            return text
        if text[0] in _QUOTES or text[-1] in _QUOTES:
            raise CacheConfigError(
                f"{self.name} begins or ends with a quotation mark, which is part of its value: remove it where the "
                "variable is set."
            )
        for position, char in enumerate(text, 1):
            if self._is_wrong(char):
                raise CacheConfigError(
                    f"{self.name} contains {_named(char)} at position {position}: type the value anew, or copy it from "
                    "where it was made."
                )
        return text

    def read(self, text: str) -> Any:
        """The value of a text that is not empty.

        Raises:
            CacheConfigError: it is none of this kind.
        """
        try:
            return self.kind.read(text)
        except CacheConfigError:  # it says more than this could
            raise
        except (ValueError, LookupError, OSError):
            quoted = "" if self.secret else f", not {text[:20]!r}"
            raise CacheConfigError(f"{self.name} must be {self.kind.must_be}{quoted}.") from None

    def _is_wrong(self, char: str) -> bool:
        if self.secret:
            return not "!" <= char <= "~"
        return char != " " and unicodedata.category(char) in _INVISIBLE


def variable(name: str, meaning: str, kind: Kind = TEXT, **more: Any) -> dict[str, Variable]:
    """The metadata of a field that comes from a variable; the arguments are those of :class:`Variable`."""
    return {_KEY: Variable(name, meaning, kind, **more)}


def variables_of(settings: type) -> Iterator[tuple[str, Variable]]:
    """The fields of a settings class that come from the environment, each with its variable."""
    for field in fields(settings):
        if (found := field.metadata.get(_KEY)) is not None:
            yield field.name, found


def _named(char: str) -> str:
    """How a character is called that cannot be seen, or is not expected."""
    code = f"U+{ord(char):04X}"
    if char == " ":
        return "a space"
    if unicodedata.category(char) == "Cs":
        return "a byte that is not UTF-8"
    return f"the character {code} ({unicodedata.name(char, 'a control character')})"
