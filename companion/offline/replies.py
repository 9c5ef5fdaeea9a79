"""What the offline companion says: rules over the instructions, the profile and the history it was given.

Everything it knows comes out of the chat context, as it would for a model: the profile from the system message behind
the instructions, the way to greet from the greeting's instructions, results from the tools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import takewhile
from typing import Final

from livekit.agents import llm

from ..forget_request import FORGET_EVERYTHING, FORGET_FACT, denied, forget_request
from ..prompts import FOLLOW_UP_PROMPT, SUMMARY_PROMPT, date_in_words, offset_in, profile_in, remembered_line_in
from . import tool_replies
from .intent import READING, REMEMBER, Call, answer_from, command, profile_with, says
from .statements import Fact, all_stated, expanded, facts_in, secret_in, stated_facts
from .tables import asked, talk

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
    "I see. I am the offline voice: I answer from rules and have kept nothing of that; set OPENAI_API_KEY for more.",
    "I see. I am the offline voice: I keep plain facts such as “I live in Oslo”; for all else set OPENAI_API_KEY.",
    "I see. I am the offline voice: say “remember that ...” and I keep it, or set OPENAI_API_KEY for a real model.",
)
"""In turn, so that no answer is the one before it."""
_NO_SECRETS: Final = "I keep no passwords, codes or card numbers, so I have not stored that."
_KEPT: Final = "All right, I keep it."
_FAREWELL: Final = re.compile(r"(?:bye|goodbye|good night|see you)\b", re.IGNORECASE)


def answer(context: llm.ChatContext, tools: set[str]) -> str | Call:
    """What to say next, or which of ``tools`` to call."""
    items = [item for item in context.items if isinstance(item, llm.ChatMessage | llm.FunctionCallOutput)]
    if not items:
        return HELP
    last = items[-1]
    said = [_text(item) for item in items if _role(item) == "user"]
    system = "\n\n".join(_text(item) for item in items if _role(item) == "system")
    if isinstance(last, llm.FunctionCallOutput):
        return _another(items, said) or _next(last, said, profile_in(system), tools)
    if system.startswith(FOLLOW_UP_PROMPT[:60]):
        return _follow_up(_text(last))
    if system.startswith(SUMMARY_PROMPT[:60]):
        return _summary(_text(last))
    profile = profile_in(system)
    if last.role == "system":
        return greeting(_text(last), profile)
    return _chosen(items, tools) or _reply(said, profile, tools, system)


def name_in(profile: str) -> str:
    """The name that a profile tells; empty when it does not."""
    found = re.search(r"(?im)^\s*name:\s*([^\n.,;]{1,40})|\bname is ([A-Z][\w'-]{1,30})", profile)
    return (found.group(1) or found.group(2)).strip() if found else ""


def _text(item: llm.ChatMessage | llm.FunctionCallOutput) -> str:
    return (item.text_content or "") if isinstance(item, llm.ChatMessage) else item.output


def _role(item: llm.ChatMessage | llm.FunctionCallOutput) -> str:
    return item.role if isinstance(item, llm.ChatMessage) else "tool"


# -- greeting --------------------------------------------------------------------------------------------------


def greeting(how: str, profile: str) -> str:
    name = name_in(profile)
    back = f"Welcome back{f', {name}' if name else ''}!"
    if "## Back after a dropped call" in how:
        said = remembered_line_in(how)
        if _FAREWELL.match(said):
            return f"{NOTICE}\n{back} What is on your mind?"
        words = f"You had just said: “{said}”." if said else "You had only just arrived."
        return f"{NOTICE}\nThere you are again{f', {name}' if name else ''}! We were cut off. {words} Shall we go on?"
    if "## Follow-up" in how:
        when = re.search(r"You last talked (.+?)\.", how)
        words = f"{back} Last time{f', {when.group(1)},' if when else ''} you said: “{remembered_line_in(how)}”."
        return f"{NOTICE}\n{words} Shall we pick that up?"
    if "## Fresh start" in how:
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
    """The statements among the lines, and all lines but requests to forget and secrets."""
    said = [line for line in said if forget_request(line) is None and not secret_in(line)]
    return [line for line in said if len(line.split()) >= 3 and command(line) is None], said


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
    call = _forgetting(said, profile) or command(words)
    facts = stated_facts(words)
    if call is not None and call.tool == REMEMBER:
        if secret_in(words):
            return _NO_SECRETS
        call = None if facts and all_stated(call.arguments["fact"]) else call
    if call is not None and not (facts and call.tool in READING):
        answered = answer_from(words, lines) if call.tool in ("recallFacts", "getUserProfile") else ""
        return answered or (call if call.tool in tools else "I would need a tool for that, and I do not have it here.")
    changed = profile_with(words, profile, said[-2] if len(said) > 1 else "")
    if changed is not None and "updateUserProfile" in tools:
        return Call("updateUserProfile", {"profile": changed})
    if facts and "updateUserProfile" in tools:
        return call or f"I know that {tool_replies.clauses(facts)}."
    if secret_in(words):
        return _NO_SECRETS
    if answered := answer_from(words, lines):
        return answered
    return _talk_back(said, profile, tools, system)


def _next(last: llm.FunctionCallOutput, said: list[str], profile: str, tools: set[str]) -> str | Call:
    """What follows the answer of a tool: what else was said, or the answer in words."""
    words = said[-1] if said else ""
    done = tool_replies.fields_of(last.output).get("success")
    if done and last.name == FORGET_FACT and "updateUserProfile" in tools and not denied(words):
        changed = profile_with(words, profile)
        old, new = profile.splitlines(), (changed or profile).splitlines()
        if changed is not None:
            add, remove = [line for line in new if line not in old], [line for line in old if line not in new]
            return Call("updateUserProfile", {"add": add} | ({"remove": remove} if remove else {}))
    call = command(words) if last.name == "updateUserProfile" else None
    if call is not None and call.tool in READING and call.tool in tools:
        return call
    return tool_replies.tell(last.name, last.output, stated_facts(words))


def _talk_back(said: list[str], profile: str, tools: set[str], system: str) -> str:
    words = said[-1].strip() if said else ""
    name = name_in(profile)
    plain = re.sub(r"[^\w\s']", "", expanded(words).lower()).strip()
    if re.search(r"\bwhat did (?:we|i) (?:talk|speak|say)\b", plain):
        earlier = [f"“{line}”" for line in said[:-1][-3:]]
        return f"You said {', then '.join(earlier)}." if earlier else "This is the first thing you have said today."
    if reply := next((reply for said_so, reply in talk() if said_so.match(plain)), ""):
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
    if words.endswith("?") or asked().match(plain):
        return _CANNOT_ANSWER
    return _NOT_KEPT[len(said) % len(_NOT_KEPT)]


def _forgetting(said: list[str], profile: str) -> Call | None:
    """The call for what only the profile, or what was said before, shows to be a request to forget."""
    request = forget_request(said[-1]) if said else None
    if request is not None and request.scope == "last":
        earlier = [words for words in said[:-1] if forget_request(words) is None]
        before = [*earlier, *([request.before] if request.before else [])]
        if not before:
            return None
        learnt = [f"{label}: {value}" for label, value in stated_facts(before[-1])]
        kept = command(before[-1])
        fact = kept.arguments["fact"] if kept is not None and kept.tool == REMEMBER else before[-1].strip()
        return Call(FORGET_FACT, {"what": learnt[-1] if learnt else fact})
    if request is None and said:
        # "I don't like chess" corrects a profile that says otherwise; else it is just talk, or a dislike.
        facts = facts_in(said[-1])
        so = [Fact(label, value) for label, value in stated_facts(denied(said[-1]))]
        if not any(fact.so and fact.label != "Dislikes" for fact in facts):
            so += [fact._replace(so=True) for fact in facts if not fact.so]
        line = next((line for line in profile.splitlines() for fact in so if says(line, fact)), "")
        return Call(FORGET_FACT, {"what": line}) if line else None
    return None


def _another(items: Sequence[llm.ChatMessage | llm.FunctionCallOutput], said: list[str]) -> Call | None:
    """The next request to forget in what was said, after the answers to those before it."""
    answered = list(takewhile(lambda item: isinstance(item, llm.FunctionCallOutput), reversed(items)))
    if not said or any(_role(item) != "tool" or not _forgot(item) for item in answered):
        return None
    rest = said[-1]
    for _ in answered:
        request = forget_request(rest)
        rest = request.rest if request is not None else ""
    request = forget_request(rest)
    return Call(FORGET_FACT, {"what": request.what}) if request is not None and request.scope == "thing" else None


def _forgot(item: llm.ChatMessage | llm.FunctionCallOutput) -> bool:
    return (
        isinstance(item, llm.FunctionCallOutput)
        and item.name == FORGET_FACT
        and not tool_replies.fields_of(item.output).get("candidates")
    )


_YES: Final = re.compile(
    r"\b(?:yes|yeah|yep|sure|certain|absolutely|definitely|do it|go ahead|confirm\w*|really|please do|of course)\b",
    re.IGNORECASE,
)
_BUT: Final = re.compile(
    r"\b(?:no|nope|nah|not|never|maybe|perhaps|don't|but|except|wait|stop|keep|only|just)\b|n't\b|\?", re.IGNORECASE
)
# No choice of what is to go, whatever else is said: "keep both", "not the first".
_REFUSED: Final = re.compile(
    r"\b(?:no|nope|nah|not|never|none|neither|keep|stop|wait|cancel|but|except)\b|n't\b|\?", re.IGNORECASE
)
_NO: Final = re.compile(r"(?:no|nope|don't|do not|none|neither|never ?mind|keep|stop|wait|cancel)\b", re.IGNORECASE)
_ORDER: Final = ("first", "second", "third", "fourth", "fifth")


def _chosen(items: Sequence[llm.ChatMessage | llm.FunctionCallOutput], tools: set[str]) -> str | Call | None:
    """What follows from an answer to a question of a forgetting tool, straight after the question."""
    users = [index for index, item in enumerate(items) if _role(item) == "user"]
    if len(users) < 2:
        return None
    asked = [item for item in items[users[-2] : users[-1]] if isinstance(item, llm.FunctionCallOutput)]
    if not asked or asked[-1].name not in tools:
        return None
    words, question = _text(items[users[-1]]), tool_replies.fields_of(asked[-1].output)
    if question.get("needs_confirmation") and asked[-1].name == FORGET_EVERYTHING:
        request = forget_request(words)
        again = request is not None and request.scope == "everything"
        sure = again or (_YES.search(words) and not _BUT.search(words))
        if sure:
            return Call(FORGET_EVERYTHING, {"confirm": True})
        return _KEPT if _NO.search(words) else None
    candidates = [str(one) for one in question.get("candidates") or []]
    if candidates and _REFUSED.search(words):
        return _KEPT if _NO.search(words) else None
    other = command(words)
    if stated_facts(words) or (other is not None and other.tool != FORGET_FACT):
        return None  # something else: "I like tea" does not choose "Likes: tea"
    if candidates and re.search(r"\b(?:both|all|everything)\b", words, re.IGNORECASE):
        return Call(asked[-1].name, {"what": " and ".join(candidates)})
    if len(candidates) == 1 and _YES.search(words):
        return Call(asked[-1].name, {"what": candidates[0]})
    for number, name in enumerate(_ORDER[: len(candidates)]):
        if re.search(rf"\b{name}\b", words, re.IGNORECASE):
            return Call(asked[-1].name, {"what": candidates[number]})
    named = set(re.findall(r"\w+", words.lower()))
    scores = [len(named & set(re.findall(r"\w+", one.lower()))) for one in candidates]
    if any(scores) and scores.count(max(scores)) == 1:
        return Call(asked[-1].name, {"what": candidates[scores.index(max(scores))]})
    return None
