"""Writes docs/configuration.md and .env.example from the fields of the settings classes: make configuration."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from cache import CacheSettings  # noqa: E402 - found by the path above
from cache.variables import Variable, variables_of  # noqa: E402 - as above
from companion.settings import Settings  # noqa: E402 - as above

_WIDTH = 120
_INTRODUCTION = """\
# Configuration

Which variables are there, and what happens without them? Nothing has to be set: without any, the companion runs
offline, with SQLite and a private Redis in `COMPANION_HOME`.

This page and `.env.example` are written from the settings' own classes (`make configuration`); a test holds them equal.

## Where variables are read

1. The environment.
2. `.env.local`, the nearest from the working directory upwards.
3. `.env`, likewise.

The first that says something counts: a variable that is set to nothing hides no other. The files are UTF-8, or UTF-16
with a byte order mark, with the line ends of any system. A value may be in quotation marks in a file; in the
environment they would be a part of it, and are refused, as are characters that cannot be seen. What cannot be used ends
the start with one line that names the variable.
"""
_MODELS = """
A name that the server does not know, a key that it refuses, an exhausted quota or an address without a server ends the
start of a console or a worker with one line: the variable, what the provider answered, and the models that the server
lists, where it lists any. A provider that is only slow or overloaded at that moment is a warning; so is, in production
(`start`), an address without a server, which may be there before the first call. Once a conversation has begun, a model
that fails is apologised for, and the job ends.

A local server needs one variable beside its address:

```console
$ OPENAI_BASE_URL=http://localhost:11434/v1 COMPANION_LLM=llama3.2 companion console
```

In a room it has to listen and speak too. Where it does not, `COMPANION_STT=off` and `COMPANION_TTS=off` hold
conversations in text.
"""
_LIVEKIT = """
The worker needs the first three; the console needs none.
"""
_EXAMPLE = """\
# Copy to .env.local or .env, remove the "# " before what you want to set. Nothing is required: with nothing set the
# companion runs offline, with SQLite and a private Redis in COMPANION_HOME. The values shown are the defaults.
# What is set in the environment wins over .env.local, and that over .env. docs/configuration.md says more.
"""


def sections() -> Iterator[tuple[str, list[Variable]]]:
    """The variables by the heading under which they are documented."""
    variables = [its for settings in (CacheSettings, Settings) for _, its in variables_of(settings)]
    order = list(dict.fromkeys(its.section for its in variables if its.section != "Companion"))
    order = [*order, "Companion"]
    for title, group in groupby(sorted(variables, key=lambda its: order.index(its.section)), lambda its: its.section):
        yield title, list(group)


def page() -> str:
    """The text of docs/configuration.md."""
    parts = [_INTRODUCTION]
    for title, variables in sections():
        rows = [f"| `{its.name}` | {f'`{its.shown}`' if its.shown else ''} | {its.meaning} |" for its in variables]
        parts.append("\n".join([f"\n## {title}\n", "| variable | default | meaning |", "|---|---|---|", *rows, ""]))
        parts.append({"Models": _MODELS, "LiveKit": _LIVEKIT}.get(title, ""))
    return "".join(parts)


def example() -> str:
    """The text of .env.example."""
    parts = [_EXAMPLE]
    for title, variables in sections():
        parts.append(f"\n{f'# --- {title} '.ljust(_WIDTH - 20, '-')}\n")
        for its in variables:
            meaning = its.meaning.replace("`", "")
            meaning = meaning if meaning.startswith(("true:", "false:")) else meaning[0].upper() + meaning[1:]
            parts.append(
                textwrap.fill(meaning, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
                + "\n"
            )
            parts.append(f"# {its.name}={its.shown}\n")
    return "".join(parts)


if __name__ == "__main__":
    (ROOT / "docs" / "configuration.md").write_text(page(), encoding="utf-8")
    (ROOT / ".env.example").write_text(example(), encoding="utf-8")
