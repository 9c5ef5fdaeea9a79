"""What begins with a slash: questions and orders to the console itself. They are neither stored nor seen by a model."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Final

from cache import get_redis_cache

from ..memory.erasure import erase_user
from ..person import described, kept
from ..runtime import get_runtime
from ..store import person_to_json
from ..transcript import to_bring_up
from .conversation import Conversation
from .value import ms, value_now

HELP: Final = """\
/who          who you are
/who USER     be another person
/stats        what the cache is worth
/trace        how the start went
/export       all that is kept of you
/export FILE  the same, into a file
/forget       erase it; asks first
/quit         leave, as Ctrl-D
Ctrl-C stops an answer, or leaves."""

_RECALLED: Final = 100
"""Turns of earlier conversations that the history of the prompt is made of."""
_COMMAND: Final = re.compile(r"/([a-z]+|\?)(?:\s+(.*))?", re.DOTALL)


def command(line: str) -> tuple[str, str] | None:
    """The command in a line, and its argument; None where the line is meant for the companion."""
    found = _COMMAND.fullmatch(line)
    return None if found is None else (found[1], (found[2] or "").strip())


async def who(conversation: Conversation) -> str:
    """Who the person is, and what is known of them. In the job."""
    memory = conversation.memory
    caller = memory.caller
    if caller is None:
        return "You are unknown here: nothing personal is read or written."
    lines = [line for line in memory.known.profile.splitlines() if line.strip()]
    facts = [fact.text for fact in await get_runtime().store.search_memories(caller.user_id, "", 5)]
    known = [f"  {line}" for line in (*lines, *facts)] or ["  nothing is known of you yet"]
    return "\n".join([f"You are {caller.user_id}.", *known])


async def said_before(conversation: Conversation) -> list[str]:
    """What the person said in earlier conversations, the oldest first, but for what is forgotten. In the job."""
    caller = conversation.memory.caller
    if caller is None:
        return []
    turns = (await get_runtime().store.context(caller.user_id, _RECALLED)).turns
    return [turn.text for turn in to_bring_up(turns) if turn.role == "user"]


async def stats(conversation: Conversation) -> str:
    """What the cache is worth now. In the job."""
    value = await value_now(conversation)
    counted: dict[str, Any] = await (await get_redis_cache()).get_stats()
    if not counted.get("connected"):
        cache = "there is no cache: each lookup asks the store"
    else:
        cache = (
            f"the cache: {counted['cache_hits']:,} hits and {counted['cache_misses']:,} misses so far "
            f"({counted['hit_rate']}), {counted['redis_keys']:,} keys, {counted['redis_memory']}"
        )
    return "\n".join([*([] if value is None else [str(value)]), cache])


async def trace(conversation: Conversation) -> str:
    """The moments of the start, and the last answer. In the job."""
    moments = conversation.memory.moments
    first = min(moments.values(), default=0.0)
    lines = [f"{ms((at - first) * 1000):>9}  {name}" for name, at in sorted(moments.items(), key=lambda one: one[1])]
    if conversation.answer_seconds:
        lines.append(f"{ms(conversation.answer_seconds * 1000):>9}  the last answer, from your line to its end")
    for name, arguments, output in conversation.calls:
        lines += [f"{name} {_indented(arguments)}", f"→ {_indented(output)}"]
    return "\n".join(lines)


async def known_things(conversation: Conversation) -> str:
    """How much is kept of the person, in a few words. In the job."""
    caller = conversation.memory.caller
    if caller is None:
        return ""
    _, data, waiting = await kept(caller.user_id)
    return described(data, len(waiting))


async def forget(conversation: Conversation) -> bool:
    """Erase the person: whether all of it is done by now. In the job."""
    caller = conversation.memory.caller
    if caller is None:
        return True
    complete = await erase_user(caller.user_id, caller.earlier)
    await conversation.memory.known.forget_everything()
    return complete


async def export(conversation: Conversation) -> str:
    """Everything that is kept of the person, as JSON text. In the job."""
    caller = conversation.memory.caller
    return "" if caller is None else person_to_json(*await kept(caller.user_id))


def write_private(file: str, text: str) -> None:
    """Write a file that only this user may read.

    Raises:
        OSError: it cannot be written.
        RuntimeError: its name begins with the home of a user who has none.
        ValueError: no file can have this name.
    """
    path = Path(file).expanduser()
    with open(path, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as output:
        output.write(f"{text}\n")


def _indented(text: str) -> str:
    try:
        return json.dumps(json.loads(text or "{}"), ensure_ascii=False, indent=2)
    except ValueError:
        return text
