"""Takes what tasks, futures and callbacks hold out of asyncio's log lines.

asyncio names a task or future with its result or exception, and a callback with its arguments: of each slow step in
debug mode (``PYTHONASYNCIODEBUG``), and of an exception that is never retrieved in any mode. What stays is which
coroutine or callback it was, in which state, where it was made, and how long it took.
"""

from __future__ import annotations

import re
from typing import Final

# Where values begin: arguments, or a field with another object in it. "()" ends the name of a coroutine.
_VALUES: Final = re.compile(r"\((?!\))| (?:result|exception|wait_for|cb)=")
# The end of a line after the values: at which place, and after how many seconds.
_END: Final = re.compile(r"(?: at [^\s<>'\"()]+:\d+)?(?: created at [^\s<>'\"()]+:\d+)?>?(?: took \d+\.\d+ seconds)?$")
_TRACEBACK: Final = re.compile(r"(?:source|handle)_traceback: (?:Object|Handle) created at \(most recent call last\):")
_FRAME: Final = re.compile(r'  File "[^"]*", line \d+, in \S+')
_FIELD: Final = re.compile(r"(\w+: )(.*)")


def without_values(text: str) -> str:
    """``text``, a message of asyncio's, without the values in it.

    Args:
        text: one line, and then a line for each field; a field that is a traceback has more.
    """
    first, *rest = text.split("\n")
    kept = [_cut(first)]
    source_follows = False
    for line in rest:
        field = _FIELD.fullmatch(line)
        if _TRACEBACK.fullmatch(line) or _FRAME.fullmatch(line) or (source_follows and line.startswith("    ")):
            kept.append(line)
        elif field is not None:
            kept.append(field[1] + (_cut(field[2]) if field[2].startswith("<") else "..."))
        source_follows = _FRAME.fullmatch(line) is not None
    return "\n".join(kept)


def _cut(line: str) -> str:
    values = _VALUES.search(line)
    if values is None:
        return line
    end = _END.search(line, values.end())
    return f"{line[: values.start()]} ...{end[0] if end else ''}"
