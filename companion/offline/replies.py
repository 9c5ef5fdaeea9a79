"""What the offline companion says: rules over the instructions, the profile and the history it was given.

Everything it knows comes out of the chat context, as it would for a model: the profile from the system message behind
the instructions, the way to greet from the greeting's instructions, results from the tools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from livekit.agents import llm

from ..forget_request import FORGET_EVERYTHING, FORGET_FACT, denied, forget_request
from ..prompts import FOLLOW_UP_PROMPT, SUMMARY_PROMPT, profile_in, remembered_line_in
from . import tool_replies
from .intent import Call, command, profile_with, stated_facts

NOTICE: Final = (
    "(Offline voice: set OPENAI_API_KEY, or LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET of LiveKit Cloud, "
    "and a real model talks instead.)"
)
HELP: Final = (
    "Tell me your name, or something you like. Then try: remember that my sister visits on Friday; "
    "what do you know about me; cache stats; clear my cache."
)

_FAREWELL: Final = re.compile(r"(?:bye|goodbye|good night|see you)\b", re.IGNORECASE)


def answer(context: llm.ChatContext, tools: set[str]) -> str | Call:
    """What to say next, or which of ``tools`` to call."""
    items = [item for item in context.items if isinstance(item, llm.ChatMessage | llm.FunctionCallOutput)]
    if not items:
        return HELP
    last = items[-1]
    said = [_text(item) for item in items if _role(item) == "user"]
    if isinstance(last, llm.FunctionCallOutput):
        new = stated_facts(said[-1] if said else "")
        if another := _another(items, said):
            return another
        done = last.name == FORGET_FACT and tool_replies.fields_of(last.output).get("success")
        if done and new and "updateUserProfile" in tools:
            return Call("updateUserProfile", {"add": [f"{label}: {value}" for label, value in new]})
        return tool_replies.tell(last.name, last.output, new)
    system = "\n\n".join(_text(item) for item in items if _role(item) == "system")
    if system.startswith(FOLLOW_UP_PROMPT[:60]):
        return _follow_up(_text(last))
    if system.startswith(SUMMARY_PROMPT[:60]):
        return _summary(_text(last))
    profile = profile_in(system)
    if last.role == "system":
        return greeting(_text(last), profile)
    return _chosen(items, tools) or _reply(said, profile, tools)


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
    """The statements among the lines, and all lines but requests to forget."""
    said = [line for line in said if forget_request(line) is None]
    return [line for line in said if len(line.split()) >= 3 and command(line) is None], said


def _summary(transcript: str) -> str:
    """The answer to the summary prompt: the user's statements, in their own words; else what they asked for."""
    said = re.findall(r"(?m)^user: (.+)$", transcript)
    talk, said = _talk(said)
    quotes = ", ".join(f"“{line.strip()[:120]}”" for line in (talk or said)[-3:])
    return f"They said: {quotes}." if quotes else ""


# -- talking ---------------------------------------------------------------------------------------------------


def _reply(said: list[str], profile: str, tools: set[str]) -> str | Call:
    words = said[-1].strip() if said else ""
    call = _forgetting(said, profile) or command(words)
    if call is not None:
        return call if call.tool in tools else "I would need a tool for that, and I do not have it here."
    changed = profile_with(words, profile)
    if changed is not None and "updateUserProfile" in tools:
        return Call("updateUserProfile", {"profile": changed})
    name = name_in(profile)
    plain = re.sub(r"[^\w\s']", "", words.lower()).strip()
    if re.match(r"(hi|hello|hey|good (morning|evening|afternoon))\b", plain):
        return f"Hello{f' {name}' if name else ''}! {'What shall we talk about?' if profile else HELP}"
    if re.search(r"\b(help|what can you do|how does this work)\b", plain):
        return HELP
    if _FAREWELL.match(plain):
        return f"Goodbye{f', {name}' if name else ''}. I will remember what you told me."
    if re.search(r"\b(thanks|thank you)\b", plain):
        return "You are welcome."
    if re.search(r"\bwhat did (we|i) (talk|speak|say)\b", plain):
        earlier = [f"“{line}”" for line in said[:-1][-3:]]
        return f"You said {', then '.join(earlier)}." if earlier else "This is the first thing you have said today."
    if forget_request(words):
        return "All right."
    if words.endswith("?"):
        return "I cannot look that up without a real model. What I can do is remember: tell me about yourself."
    return f"I see. {_follow(words, len(said))}"


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
        fact = kept.arguments["fact"] if kept is not None and kept.tool == "rememberFact" else before[-1].strip()
        return Call(FORGET_FACT, {"what": learnt[-1] if learnt else fact})
    if request is None and said and (statement := denied(said[-1])):
        # "I don't like chess" corrects a profile that says otherwise; else it is just talk.
        lines = profile.splitlines()
        facts = (f"{label}: {value}" for label, value in stated_facts(statement))
        line = next((fact for fact in facts if fact in lines), "")
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
        return "All right, I keep it." if _NO.search(words) else None
    candidates = [str(one) for one in question.get("candidates") or []]
    if candidates and _REFUSED.search(words):
        return "All right, I keep it." if _NO.search(words) else None
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


def _follow(words: str, turn: int) -> str:
    """A question that goes with what was said, not the same one each time."""
    questions = (
        "What matters most to you about that?",
        "How did that come about?",
        "Tell me a little more.",
        "And how do you feel about it?",
    )
    if re.search(r"\b(sad|tired|stressed|worried|afraid|angry)\b", words, re.IGNORECASE):
        return "That sounds hard. Do you want to tell me more about it?"
    if re.search(r"\b(happy|glad|excited|great|wonderful)\b", words, re.IGNORECASE):
        return "I am glad to hear it. What made it so good?"
    return questions[turn % len(questions)]
