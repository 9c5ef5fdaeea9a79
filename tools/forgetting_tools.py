"""The tools that forget: one thing, or everything that is kept of the caller."""

from __future__ import annotations

import logging
from typing import Any, Final

from livekit.agents import RunContext, function_tool, llm
from livekit.agents.llm import ToolFlag

from companion import use_caller
from companion.forget_request import FORGET_EVERYTHING, FORGET_FACT, forget_request
from companion.memory.erasure import erase_user
from companion.memory.forgetting import forget_fact_async
from companion.memory.read_deadline import READ_DEADLINE
from companion.store import StoreError, words_of

from .answers import MAX_TEXT, STORE_AWAY, UNKNOWN_CALLER, caller_of, failure, memory_in, success

logger = logging.getLogger("companion")
MAX_CANDIDATES: Final = 5
"""Things that a question which one is meant names."""
_FORGOTTEN: Final = "I have forgotten it."
_WHICH: Final = "More than one thing fits. Which one shall I forget?"
_THIS: Final = "I am not sure what you mean. Shall I forget this?"
_NOTHING: Final = (
    "By these words I find nothing in what I keep about you, so I have removed nothing. I will not bring it up. "
    "Other words may find it."
)
_SURE: Final = "I would erase everything I know about you, and all that we have said, for good. Shall I really do that?"
_ERASED: Final = "I have erased everything about you. I keep nothing more of this conversation."
_ERASING: Final = "I am erasing everything about you. The rest follows as soon as my memory can be reached."


class ForgettingTools(llm.Toolset):
    """forgetFact and forgetEverything."""

    @function_tool(name=FORGET_FACT, flags=ToolFlag.IGNORE_ON_ENTER)
    async def forget_fact(self, context: RunContext[Any], what: str) -> str:
        """Forget one thing about the person, for good: lines of their profile and facts, in every earlier version too.

        Use it when they ask you to forget something, or say that something you know is not true. The answer holds what
        was removed, word for word; if a line held more than they meant, put the rest back. Where it holds
        ``candidates``, ask which one they mean, and call this again with its exact words.

        Args:
            what: The thing, for example "I like chess", or the exact words of a line or a fact. Begin it with
                "everything about" if all that fits is meant.
        """
        caller = caller_of(context)
        if caller is None:
            return failure(UNKNOWN_CALLER)
        if not what.strip() or len(what) > MAX_TEXT:
            return failure(f"What I am to forget has between 1 and {MAX_TEXT} characters.")
        if not words_of(what) and (request := forget_request(f"forget {what}")) and request.scope == "everything":
            return failure(_SURE, needs_confirmation=True, use=FORGET_EVERYTHING)
        try:
            with use_caller(caller):
                done = await forget_fact_async(what.strip())
        except StoreError as problem:
            logger.warning("something could not be forgotten: %s", problem)
            return failure(STORE_AWAY)
        if done.candidates:
            some, count = list(done.candidates[:MAX_CANDIDATES]), len(done.candidates)
            more = {"shown": f"{len(some)} of {count}"} if count > len(some) else {}
            return failure(_WHICH if count > 1 else _THIS, candidates=some, **more)
        if (memory := memory_in(context)) is not None:
            await memory.known.forget(done.profile, [words_of(text) for text in (what, *done.removed)])
        if not done.removed:
            return failure(_NOTHING)
        return success(message=_FORGOTTEN, removed=list(done.removed), profile=done.profile)

    @function_tool(name=FORGET_EVERYTHING, flags=ToolFlag.IGNORE_ON_ENTER)
    async def forget_everything(self, context: RunContext[Any], confirm: bool = False) -> str:
        """Erase everything that is kept about the person: profile, facts, summaries, and all that was said.

        Use it when they ask you to forget everything, or to delete their data. Call it without ``confirm`` first, and
        ask aloud what it answers.

        Args:
            confirm: Set it to true only if the person has confirmed it, after you have asked.
        """
        caller = caller_of(context)
        if caller is None:
            return failure(UNKNOWN_CALLER)
        if not confirm:
            return failure(_SURE, needs_confirmation=True)
        try:
            complete = await erase_user(caller.user_id, caller.earlier, wait=READ_DEADLINE)
        except (StoreError, OSError) as problem:
            logger.warning("a person could not be erased (%s)", type(problem).__name__)
            return failure(STORE_AWAY)
        if (memory := memory_in(context)) is not None:
            await memory.known.forget_everything()
        return success(message=_ERASED if complete else _ERASING)
