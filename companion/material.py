"""Quotes remembered text in a prompt, so that the model reads it as material and never as a part of the prompt itself.

What a person said once stands in the prompts of all later conversations. A text that holds a heading, a delimiter or
the template of a model ("## Language", "</remembered>", "<|im_start|>") must not look like the prompt's own: such
characters are replaced by look-alikes, the words stay.
"""

from __future__ import annotations

import re
from typing import Final

from .text import storable

# "##" anywhere; a single "#" where a line begins, also after marks of quotes and lists and invisible characters.
_HEADING: Final = re.compile(r"(?m:^(?:\d+[.)])?[^\w\n#]*#+)|#{2,}")
_FENCE: Final = re.compile(r"`{3,}|~{3,}")
# Whatever stands between the bracket and the first letter: it may be invisible.
_TAG: Final = re.compile(r"<(?=[^\w<]*[^\W\d]|\|)|\[(?=[^\w\[]*INST[^\w\[]*\])")
_LOOK_ALIKE: Final = str.maketrans("#<[-=_*~`", "＃＜［‐＝＿＊～‘")


def quoted(text: str) -> str:
    """``text`` without what could pass for a heading, a delimiter or a part of a model's template. Lines stay lines."""
    text = "\n".join(map(_without_rule, storable(text).strip().splitlines()))
    for pattern in (_HEADING, _FENCE, _TAG):
        text = pattern.sub(lambda found: found.group().translate(_LOOK_ALIKE), text)
    return text


def _without_rule(line: str) -> str:
    """A line of dashes or equals signs makes a heading of the one above it; rules and fences end a part of a prompt."""
    return line if any(map(str.isalnum, line)) else line.translate(_LOOK_ALIKE)


def quoted_line(text: str) -> str:
    """``quoted``, in one line."""
    return quoted(" ".join(text.split()))


def block(name: str, text: str) -> str:
    """The lines ``text`` between the delimiters of ``name``."""
    return f"<{name}>\n{text}\n</{name}>"
