"""The tools for the caller's profile, earlier conversations, and facts to remember, recall and forget.

The user id is never an argument: the caller comes from the memory that is attached to the session, else from its
userdata.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Final

from livekit.agents import RunContext, function_tool
from livekit.agents.llm import ToolFlag

from companion import get_user_profile_async, use_caller
from companion.memory.context import get_conversation_context_async
from companion.memory.facts import MAX_KEPT_FACTS, FoundFacts, find_facts_async, remember_fact_async
from companion.memory.profile import SavedProfile, change_user_profile_async
from companion.memory.profile_change import ProfileChange, patched, rewritten
from companion.memory.read_deadline import outcome, within_deadline
from companion.profile_lines import lines_of
from companion.runtime import get_runtime
from companion.store import StoreError
from companion.text import storable

from .answers import MAX_TEXT, STORE_AWAY, UNKNOWN_CALLER, caller_of, failure, memory_in, success, tell
from .forgetting_tools import ForgettingTools

logger = logging.getLogger("companion")
CONFIRM_FROM: Final = 4
"""Lines from which on their removal must be confirmed."""
_QUEUED = "I cannot reach my memory right now. I keep it in mind, and write it down as soon as I can."
_CONFIRM = "That would make me forget {count} things about you. Tell me again if I really should."
_NOT_FOUND = "I do not find that in what I know about you, so nothing has changed."
_FULL = "I will remember that. My notes about you are full, so I keep {count} of them as separate facts."
_LEFT_OUT = "You have asked me elsewhere to forget what this is about, so I have not kept it. Say it again if I should."
ERASED: Final = "Everything about you was erased since this conversation began, so I keep nothing more of it."
_NOT_KEPT = {
    "erased": ERASED,
    "waiting": _QUEUED,
    "full": f"I keep {MAX_KEPT_FACTS} facts for you, and that is as many as I can. Tell me which one may go.",
    "not found": "I do not find the fact that this one is to replace. Tell me its exact words.",
}
_OTHERS_AWAY = "This is what I have not written down yet. I cannot reach the other facts right now."
_REST_AWAY = "This is what I have not written down yet. I cannot reach the rest of what I know about you right now."
_FACTS_AWAY = "I cannot reach the facts you asked me to remember right now."


@dataclass(frozen=True, slots=True)
class LineChange:
    """A line as it stands in the profile, and the line that takes its place."""

    old: str
    new: str


class MemoryTools(ForgettingTools):
    """getUserProfile, updateUserProfile, getConversationContext, rememberFact, recallFacts; and those that forget."""

    def __init__(self) -> None:
        super().__init__(id="profile_tools")

    @function_tool(name="getUserProfile")
    async def get_user_profile(self, context: RunContext[Any]) -> str:
        """Look up what is known about the person: their profile and the facts they asked you to remember.

        Use it when they ask what you know about them. Their profile is already in your instructions; for anything
        else you need not look it up. Where ``shown`` says that there are more facts, say so.
        """
        caller = caller_of(context)
        if caller is None:
            return failure(UNKNOWN_CALLER)
        with use_caller(caller):
            profile, facts = await asyncio.gather(
                outcome(get_user_profile_async(), "get_profile"), outcome(find_facts_async(""), "search_memories")
            )
        if isinstance(profile, StoreError):
            logger.warning("the profile could not be read: %s", profile)
            return failure(STORE_AWAY)
        unseen = caller.user_id in get_runtime().write_behind.unseen_profiles
        if profile:
            await tell(context, profile)
        elif unseen:
            return failure(STORE_AWAY)  # an empty profile would claim that nothing is known
        if isinstance(facts, StoreError):
            logger.warning("facts could not be read: %s", facts)
            # The profile may have come from the cache; but an empty one would claim that nothing is known.
            message = _REST_AWAY if unseen else _FACTS_AWAY
            return success(profile=profile, facts=[], message=message) if profile else failure(STORE_AWAY)
        return success(**{"profile": profile} | _listing(facts) | ({"message": _REST_AWAY} if unseen else {}))

    @function_tool(name="getConversationContext")
    async def get_conversation_context(self, context: RunContext[Any]) -> str:
        """Look up what earlier conversations were about and how well you know the person.

        Use it when they ask what you talked about before, or refer to an earlier conversation you cannot place.
        """
        caller = caller_of(context)
        if caller is None:
            return failure(UNKNOWN_CALLER)
        try:
            with use_caller(caller):
                summary, state = await within_deadline(get_conversation_context_async(), "context")
        except StoreError as problem:
            logger.warning("earlier conversations could not be read: %s", problem)
            return failure(STORE_AWAY)
        return success(summary=summary, conversations=state.get("conversations", 0), stage=state.get("stage", "new"))

    @function_tool(name="updateUserProfile", flags=ToolFlag.IGNORE_ON_ENTER)
    async def update_user_profile(
        self,
        context: RunContext[Any],
        add: list[str] | None = None,
        remove: list[str] | None = None,
        replace: list[LineChange] | None = None,
        profile: str | None = None,
        confirm: bool = False,
    ) -> str:
        """Change what you know about the person, line by line. Lines that you do not name stay as they are.

        Use it when they tell you something lasting about themselves: their name, work, family, tastes, health.
        Do not use it for passing remarks or moods, nor for what they ask you to forget. The answer says what is stored
        now.

        Args:
            add: New lines, one line for each thing, for example "Likes: chess".
            remove: Lines that are no longer true, word for word as they stand in the profile.
            replace: Lines that have changed, each with the line that takes its place.
            profile: Instead of the others: the complete new profile. Prefer add, remove and replace.
            confirm: Set it to true only if the person has confirmed that four or more lines are to be removed.
        """
        caller = caller_of(context)
        if caller is None:
            return failure(UNKNOWN_CALLER)
        texts = [*(add or []), *(remove or []), *(line.old + line.new for line in replace or []), profile or ""]
        if not any(text.strip() for text in texts) or sum(map(len, texts)) > MAX_TEXT:
            return failure(f"A change of a profile has between 1 and {MAX_TEXT} characters.")
        with use_caller(caller):
            change = await _change(context, add or [], remove or [], replace or [], profile or "")
            going = [*change.forgotten, *change.perhaps_forgotten]
            if len(going) >= CONFIRM_FROM and not confirm:
                return failure(_CONFIRM.format(count=len(going)), would_remove=going)
            saved = await change_user_profile_async(change)
            await tell(context, saved.text)
        return _outcome(change, saved)

    @function_tool(name="rememberFact", flags=ToolFlag.IGNORE_ON_ENTER)
    async def remember_fact(self, context: RunContext[Any], fact: str, instead_of: str = "") -> str:
        """Remember one thing the person asks you to remember.

        Args:
            fact: The thing, as one sentence that makes sense by itself.
            instead_of: A fact that this one corrects, or that may go because there are too many: its exact words, as
                recallFacts finds it. Leave it empty otherwise.
        """
        caller = caller_of(context)
        if caller is None:
            return failure(UNKNOWN_CALLER)
        if not fact.strip() or len(fact) > MAX_TEXT:
            return failure(f"A fact has between 1 and {MAX_TEXT} characters.")
        try:
            with use_caller(caller):
                kept = await remember_fact_async(fact.strip(), instead_of=instead_of.strip())
        except StoreError as problem:
            logger.warning("a fact could not be replaced: %s", problem)
            return failure(STORE_AWAY)
        return success(message="I will remember that.") if kept == "stored" else failure(_NOT_KEPT[kept])

    @function_tool(name="recallFacts")
    async def recall_facts(self, context: RunContext[Any], query: str) -> str:
        """Search the facts the person asked you to remember.

        Use it when they ask about something they may have told you before and it is not in this conversation. Where
        ``shown`` says that more facts match, say so.

        Args:
            query: Words to look for.
        """
        caller = caller_of(context)
        if caller is None:
            return failure(UNKNOWN_CALLER)
        try:
            with use_caller(caller):
                facts = await within_deadline(find_facts_async(query[:MAX_TEXT]), "search_memories")
        except StoreError as problem:
            logger.warning("facts could not be searched: %s", problem)
            return failure(STORE_AWAY)
        return success(**_listing(facts))


ProfileTools = MemoryTools
"""The name until version 0.1."""


async def _change(
    context: RunContext[Any], add: list[str], remove: list[str], replace: list[LineChange], profile: str
) -> ProfileChange:
    """What the model asks to change, in the profile that it has read."""
    memory = memory_in(context)
    if profile.strip():
        # What another tool has found since the model began its answer is not what this text was made from.
        read = memory.known.profile_at_answer if memory is not None else await get_user_profile_async()
        # A model may fill in the other arguments as well: what it wants to add is not lost.
        return rewritten(
            read, "\n".join(dict.fromkeys([profile.strip(), *add, *(line.new for line in replace)])).strip()
        )
    known = memory.known.profile if memory is not None else await get_user_profile_async()
    return patched(known, add, remove, [(line.old, line.new) for line in replace])


def _outcome(change: ProfileChange, saved: SavedProfile) -> str:
    """What to say of a change of the profile: what is stored now, never more."""
    if not saved.stored:
        return failure(ERASED if saved.erased else _QUEUED)
    more: dict[str, Any] = {"not_found": list(change.not_found)} if change.not_found else {}
    if change.not_found and not (change.added or change.forgotten or saved.facts_changed):
        return failure(_NOT_FOUND, profile=saved.text, **more)
    added = lines_of(storable("\n".join(change.added)))
    if len([line for line in added if line not in lines_of(saved.text)]) > saved.surplus:
        return failure(_LEFT_OUT, profile=saved.text, **more)
    if saved.surplus:
        return success(message=_FULL.format(count=saved.surplus), profile=saved.text, **more)
    return success(message="I will remember that about you.", profile=saved.text, **more)


def _listing(found: FoundFacts) -> dict[str, Any]:
    """The fields of an answer that list facts."""
    listing: dict[str, Any] = {"facts": found.texts}
    if found.total is not None and found.total > len(found.texts):
        listing["shown"] = f"{len(found.texts)} of {found.total}"
    if not found.complete:
        listing["message"] = _OTHERS_AWAY
    return listing
