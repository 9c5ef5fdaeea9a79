"""What the offline companion says: rules over the instructions, the profile and the history it was given.

Everything it knows comes out of the chat context, as it would for a model: the profile from the system message behind
the instructions, the way to greet from the greeting's instructions, results from the tools.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from typing import Final

from livekit.agents import llm

from ..forget_request import FORGET_FACT, forget_request
from ..prompts import FOLLOW_UP_PROMPT, SUMMARY_PROMPT, date_in_words, offset_in, profile_in, remembered_line_in
from . import tool_replies
from .forgetting import another, asked_to_forget, chosen
from .intent import READING, REMEMBER, Call, command, profile_with
from .profile_facts import answer_from, clauses, known, mentioning
from .statements import all_stated, facts_in, secret_in, stated_facts
from .tables import pattern
from .turns import bare, role_of, said_in, small_talk, text_of

NOTICE: Final = (
    "(Offline voice: set OPENAI_API_KEY, or LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET of LiveKit Cloud, "
    "and a real model talks instead.)"
)
HELP: Final = (
    "Tell me your name, or something you like. Then try: remember that my sister visits on Friday; "
    "what do you know about me; cache stats; clear my cache."
)
_SELF: Final = "I am the offline voice of your companion: I answer from rules, and remember what you say of yourself."
_CANNOT_ANSWER: Final = (
    "I am the offline voice and cannot answer that without a real model: set OPENAI_API_KEY to get one."
)
_NOT_KEPT: Final = (
    "I see. I am the offline voice: I answer from rules, and learn nothing from that; set OPENAI_API_KEY for more.",
    "I see. I am the offline voice: I keep plain facts such as “I live in Oslo”; for all else set OPENAI_API_KEY.",
    "I see. I am the offline voice: say “remember that ...” and I keep it, or set OPENAI_API_KEY for a real model.",
)
"""In turn, so that no answer is the one before it."""
NO_SECRETS: Final = (
    "I keep no passwords, codes or card numbers, and will not bring that up: it is only in the record of what we said."
)
"""Where an answer begins so, what it answers is no topic, summary or greeting; see ``TurnLog``."""
_FAREWELL: Final = re.compile(r"(?:bye|goodbye|good night|see you)\b", re.IGNORECASE)


def answer(context: llm.ChatContext, tools: set[str]) -> str | Call:
    """What to say next, or which of ``tools`` to call."""
    items = [item for item in context.items if isinstance(item, llm.ChatMessage | llm.FunctionCallOutput)]
    if not items:
        return HELP
    last = items[-1]
    said = said_in(items)
    system = "\n\n".join(text_of(item) for item in items if role_of(item) == "system")
    if isinstance(last, llm.FunctionCallOutput):
        return _keeping_no_secret(said, another(items, said) or _next(last, said, profile_in(system), tools))
    if system.startswith(FOLLOW_UP_PROMPT[:60]):
        return _follow_up(text_of(last))
    if system.startswith(SUMMARY_PROMPT[:60]):
        return _summary(text_of(last))
    profile = profile_in(system)
    if last.role == "system":
        return greeting(text_of(last), profile)
    return _keeping_no_secret(said, chosen(items, tools) or _reply(said, profile, tools, system))


def _keeping_no_secret(said: list[str], reply: str | Call) -> str | Call:
    """The reply, which says of a secret beside something else too that it is not kept."""
    words = said[-1] if said else ""
    if isinstance(reply, Call) or reply == NO_SECRETS or not secret_in(words) or forget_request(words):
        return reply
    return f"{NO_SECRETS} {reply}"


def name_in(profile: str) -> str:
    """The name that a profile tells; empty when it does not."""
    found = re.search(r"(?im)^\s*name:\s*([^\n.,;]{1,40})|\bname is ([A-Z][\w'-]{1,30})", profile)
    return (found.group(1) or found.group(2)).strip() if found else ""


# -- greeting --------------------------------------------------------------------------------------------------


def greeting(how: str, profile: str) -> str:
    name = name_in(profile)
    back = f"Welcome back{f', {name}' if name else ''}!"
    said = remembered_line_in(how)
    if "## Back after a dropped call" in how:
        if _FAREWELL.match(said):
            return f"{NOTICE}\n{back} What is on your mind?"
        words = f" You had just said: “{said}”." if said and not secret_in(said) else ""
        return f"{NOTICE}\nThere you are again{f', {name}' if name else ''}! We were cut off.{words} Shall we go on?"
    if "## Follow-up" in how and not secret_in(said):
        when = re.search(r"You last talked (.+?)\.", how)
        words = f"{back} Last time{f', {when.group(1)},' if when else ''} you said: “{said}”."
        return f"{NOTICE}\n{words} Shall we pick that up?"
    if "## Follow-up" in how or "## Fresh start" in how:
        return f"{NOTICE}\n{back} It is good to hear you. What is on your mind?"
    hello = f"Hello{f' {name}' if name else ''}, I am your companion, and I remember the people I talk to."
    return f"{NOTICE}\n{hello} {'What is on your mind?' if name else 'What is your name?'}"


def _follow_up(question: str) -> str:
    """The answer to the follow-up prompt: the user's last statement, or else what they last asked for."""
    said = re.findall(r"(?m)^user: (.+)$", question.rpartition("<transcript>")[2])
    talk, said = _talk(said)
    topic = (talk or said or [""])[-1].strip()[:120]
    return json.dumps({"follow_up": bool(topic), "confidence": 0.9, "topic": topic})


def _talk(said: list[str]) -> tuple[list[str], list[str]]:
    """The statements among the lines, and all that may be quoted: no small talk, secrets, requests to forget."""
    said = [line for line in said if not (forget_request(line) or secret_in(line) or small_talk(line))]
    return [line for line in said if len(line.split()) >= 3 and command(line) is None and not line.endswith("?")], said


def _summary(transcript: str) -> str:
    """The answer to the summary prompt: the user's statements, in their own words; else what they asked for."""
    said = re.findall(r"(?m)^user: (.+)$", transcript)
    talk, said = _talk(said)
    quotes = ", ".join(f"“{line.strip()[:120]}”" for line in (talk or said)[-3:])
    return f"They said: {quotes}." if quotes else ""


# -- talking ---------------------------------------------------------------------------------------------------


def _reply(said: list[str], profile: str, tools: set[str], system: str) -> str | Call:
    words = said[-1].strip() if said else ""
    lines = profile.splitlines()
    call = asked_to_forget(said, profile) or command(words)
    facts = [fact for fact in facts_in(words) if fact.so]
    if call is not None and call.tool == REMEMBER:
        if secret_in(words):
            return NO_SECRETS
        call = None if facts and all_stated(call.arguments["fact"]) else call
    answered = answer_from(words, lines)
    if call is not None and not (facts and call.tool in READING):
        if answered and call.tool in ("recallFacts", "getUserProfile"):
            return answered
        return call if call.tool in tools else "I would need a tool for that, and I do not have it here."
    changed = profile_with(words, profile, said[-2] if len(said) > 1 else "")
    if changed is not None and "updateUserProfile" in tools:
        return Call("updateUserProfile", {"profile": changed})
    if facts and "updateUserProfile" in tools:
        if other := next((fact.value for fact in facts if fact.label == "Name" and not known(fact, lines)), ""):
            return f"I know you as {name_in(profile)}: say “call me {other}” if that has changed."
        return call or f"I know that {clauses([fact for fact in facts if known(fact, lines)] or facts)}."
    if secret_in(words):
        return NO_SECRETS
    if answered is not None:
        return answered or (Call("recallFacts", {"query": words}) if "recallFacts" in tools else _CANNOT_ANSWER)
    if (
        "recallFacts" in tools
        and re.match("(?:where|when|who) (?:is|are|was|do|does|did|will) ", bare(words))
        and not small_talk(words)
    ):
        return Call("recallFacts", {"query": words})  # it may be among the facts: "Where is the key?"
    return _talk_back(said, profile, system)


def _next(last: llm.FunctionCallOutput, said: list[str], profile: str, tools: set[str]) -> str | Call:
    """What follows the answer of a tool: what else was said, or the answer in words."""
    words = said[-1] if said else ""
    done = tool_replies.fields_of(last.output).get("success")
    if done and last.name == FORGET_FACT and "updateUserProfile" in tools and forget_request(words):
        changed = profile_with(words, profile)
        old, new = profile.splitlines(), (changed or profile).splitlines()
        if changed is not None:
            add, remove = [line for line in new if line not in old], [line for line in old if line not in new]
            return Call("updateUserProfile", {"add": add} | ({"remove": remove} if remove else {}))
    call = command(words) if last.name == "updateUserProfile" else None
    if call is not None and call.tool in READING and call.tool in tools:
        return call
    if last.name == "recallFacts" and done and not tool_replies.fields_of(last.output).get("facts"):
        if about := mentioning(words, profile.splitlines()):
            return f"All I know of that is that {clauses(about)}."
        if command(words) is None and answer_from(words, []) is None:
            return _CANNOT_ANSWER
    return tool_replies.tell(last.name, last.output, stated_facts(words))


def _talk_back(said: list[str], profile: str, system: str) -> str:
    words = said[-1].strip() if said else ""
    name = name_in(profile)
    if re.search(r"\bwhat did (?:we|i) (?:talk|speak|say)\b", bare(words)):
        if not (before := said[:-1]):
            return "This is the first thing you have said today."
        earlier = [f"“{line}”" for line in before if not secret_in(line)]
        return f"You said {', then '.join(earlier[-3:])}." if earlier else NO_SECRETS
    if reply := small_talk(words):
        offset = offset_in(system)
        now = datetime.now(timezone(offset)) if offset is not None else datetime.now().astimezone()
        return reply.format(
            time=f"{now:%H:%M}",
            date=date_in_words(now),
            name=f" {name}" if name else "",
            comma_name=f", {name}" if name else "",
            help=HELP,
            self=_SELF,
            next="What shall we talk about?" if profile else HELP,
        )
    if forget_request(words):
        return "All right."
    if words.endswith("?") or pattern("<request>").match(bare(words)):
        return _CANNOT_ANSWER
    return _NOT_KEPT[len(said) % len(_NOT_KEPT)]
