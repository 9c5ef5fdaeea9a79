"""What is a request to forget: the one place that knows its words, for the offline voice and for all that is prepared.

A turn with such a request becomes no topic, no summary and no greeting. English only; where a model talks, the call of
the tool marks the turn as well, whatever the language.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from .forget_words import (
    ABOUT,
    CHANGED_SUBJECT,
    DELETABLE,
    EVERYTHING,
    EVERYTHING_ABOUT,
    FROM,
    LAST,
    NEXT,
    TAIL,
    THREAT,
    WANTED,
)

FORGET_FACT: Final = "forgetFact"
FORGET_EVERYTHING: Final = "forgetEverything"
"""Names of the tools: a call marks the turn that asked for it, whatever its language."""
Scope = Literal["thing", "everything", "last", "idle"]
_LONGEST: Final = 2000
"""Characters that are looked at."""


@dataclass(frozen=True, slots=True)
class ForgetRequest:
    """A request to forget.

    Attributes:
        scope: ``thing`` for what is named; ``everything``; ``last`` for what was said just before; ``idle`` for a way
            of speaking ("forget it"), which asks for nothing.
        what: the thing, as a statement where it was one: "I like chess".
        rest: the words beside the request; with ``last`` and ``idle``, those after it.
        before: the words before the request.
    """

    scope: Scope
    what: str = ""
    rest: str = ""
    before: str = ""


def forget_request(said: str) -> ForgetRequest | None:
    """The request to forget in what was said; None if there is none, as in "don't forget", "did you forget?"."""
    text = plain(said)
    for sentence in re.finditer(r"[^.!?;\n]+", text):
        for found in _BEGINNING.finditer(sentence.group()):
            request = _request_at(sentence.group(), found.end(), found.start("lead"))
            if request is not None:
                before, after = text[: sentence.start() + found.start("lead")], text[sentence.end() :]
                scope, what, rest = request
                beside = f"{rest}{after}" if scope in ("last", "idle") else f"{before} {rest}{after}"
                return ForgetRequest(
                    scope, what, *(" ".join(text.split()).strip(" ,.;!?") for text in (beside, before))
                )
    return None


def denied(said: str) -> str:
    """What a sentence says is not so, as a statement: "I like chess" of "I don't like chess"; empty if nothing."""
    for sentence in re.split(r"[.!?;\n]+", plain(said)):
        clause = re.sub(rf"^{_LEAD}", "", sentence.strip(), flags=re.IGNORECASE)
        if found := next(filter(None, (pattern.match(clause) for pattern in _DENIALS)), None):
            words = found.groupdict()
            statement = f"{words.get('who') or ''} {words['what']}".strip()
            return re.sub(r"\b(like|love|enjoy|live|work)e?d\b", r"\1", statement)
    return ""


def plain(said: str) -> str:
    """Not endless, with the apostrophe that keyboards have, and single spaces."""
    return " ".join(said[:_LONGEST].replace("’", "'").split())


# -- how a request begins ------------------------------------------------------------------------------------------

_LEAD: Final = (
    r"(?:(?:please|kindly|now|ok|okay|oh|well|and|so|but|then|just|actually|sorry|no(?! need)|yes|hey|hi|hello|also|"
    r"wait|right|alright|all right|listen|computer|companion|never mind|on second thought|by the way|u[hm]+"
    r"|er+m?|h+mm*|yo|look|hang on|hold on|sure|fine|great|thanks|thank you|my dear|dear)\b,? )*"
)
_BEGINNING: Final = re.compile(rf"(?:^\s*|[,:–—] ?|\b(?:and|so|but|then) (?=please ))(?P<lead>{_LEAD})", re.IGNORECASE)
_SOFT: Final = (
    r"(?:please |kindly |just |now |also |simply |completely |really |immediately |maybe |perhaps |possibly )*"
)
_ASKED: Final = (
    rf"(?:(?:(?:can|can't|could|would|couldn't|wouldn't) you|why don't you|why not|how about(?: you)?"
    rf"|you (?:can|may|should|must|have to|need to|ought to)) {_SOFT}"
    rf"|(?:can|could|would|will) you (?:please )?be so (?:kind|good|nice)(?: as)? (?:to|and) {_SOFT}"
    rf"|will you (?=please|kindly){_SOFT}"
    r"|(?:i|we)(?: would|'d)? (?:want|need|like|love|prefer|ask|beg|expect|order|wish|asked|told)(?: for)? you to "
    r"|i(?: (?:must|have to|want to|need to)|'m| am)?"
    r" (?:ask|beg|tell|request|instruct|order|urge|implore)(?:g?ing)?(?: you)? (?:to |(?:that )?you )(?:please )?"
    r"|(?:i|we)(?: would| must| hereby|'d)* (?:ask|request|demand|insist|wish)(?: that)? you (?:would )?(?:please )?"
    r"|(?:it(?: would|'d) be (?:great|nice|good|best|better|kind|lovely|wonderful|helpful)(?: of you)?"
    r"|i(?: would|'d) (?:be (?:glad|happy|grateful|thankful|obliged|relieved)|(?:appreciate|like|love|prefer)(?: it)?))"
    r" if you (?:could |would )?|try to |make yourself "
    r"|(?:would|do) you mind (?=\w+ing\b)"
    r"|(?:make|be) sure (?:that )?(?:you |to )?|(?:is|would) it (?:be )?possible (?:for you )?to "
    r"|(?:how|where) (?:can|do|could) i (?:get you to |make you )?"
    r"|(?:can|may|could) i (?:have you |ask you to )?|go ahead and |do )?"
)
_FORGET: Final = r"(?:forget(?:ting)?|unremember|(?<=if you )forgot)(?! to\b|-|\w| not\b| never\b)"
_DELETE: Final = (
    r"(?:(?:delet|eras|remov|wip|purg)(?:e|ing)|(?<=if you )(?:delet|eras|remov|wip)ed|discard|destroy|scrub|unlearn"
    r"|get rid of|throw away|dispose of)"
)
_DROP: Final = rf"(?:{_DELETE}|clear|drop|strike|cross out|take|cut)"
_KEPT: Final = r"(?:remember|keep|store|save|memori[sz]e|record|note|write down|hold on to|retain|log)"
_KEEPING: Final = r"(?:remembering|keeping|storing|saving|memori[sz]ing|recording|noting|writing down|logging)"
_NOT_KEEP: Final = (
    rf"(?:(?:don't|do not|never|you (?:don't|do not) (?:need|have) to|(?:there is )?no need to|you should(?: not|n't)"
    rf"|you must(?: not|n't)|you (?:may|can) not|(?:can|could|would) you (?:please )?not|i (?:don't|do not) want you to"
    rf"|i(?: would|'d) rather you (?:don't|did not|didn't))(?: please| ever)* {_KEPT}"
    rf"|(?:please )?not {_KEPT}|stop {_KEEPING})"
)
_FORGET_AT: Final = re.compile(rf"{_ASKED}{_SOFT}{_FORGET}(?:,? please,?)?(?P<about> about)?(?!\w)(?P<of>.*)$", re.I)
_DELETE_AT: Final = re.compile(rf"{_ASKED}{_SOFT}{_DELETE} (?P<of>.+)$", re.I)
_EMPTY_AT: Final = re.compile(
    rf"{_ASKED}{_SOFT}(?:clear|reset|empty) "
    r"(?:(?:all )?my (?:\w+ )?(?:profile|data|memory|memories|account|history|records?|info|information)|your memory"
    r"|everything you know)\b",
    re.I,
)
_DROP_AT: Final = re.compile(rf"{_ASKED}{_SOFT}{_DROP} (?P<of>.+?){FROM}(?P<more>.*)$", re.I)
_KEEP_AT: Final = re.compile(
    rf"{_ASKED}{_SOFT}{_NOT_KEEP} (?P<of>(?:that|this|it|what|my|the fact|anything|any|where|who|how|all)\b.*)$", re.I
)

_TAKE_BACK_AT: Final = re.compile(
    rf"{_ASKED}{_SOFT}(?:scratch|disregard|ignore|strike|(?:i )?take back)"
    r" (?P<of>(?:(?:that|this)(?: one)?(?=\s*(?:,|please|$))|what i|(?:everything|anything|all) i"
    r"|(?:the|my) last)\b.*)$"
    r"|i take (?P<back>that|it|this) back\b",
    re.I,
)
_UNMENTIONED_AT: Final = re.compile(
    rf"{_ASKED}{_SOFT}(?:(?:never|don't|do not)(?: ever| please)* (?:mention|bring up|talk (?:to me )?about"
    r"|ask (?:me )?about|remind me (?:of|about)|speak (?:of|about))"
    r"|stop (?:mentioning|bringing up|talking about|asking (?:me )?about|reminding me (?:of|about))) .+$",
    re.I,
)


def _request_at(sentence: str, start: int, lead: int) -> tuple[Scope, str, str] | None:
    """The scope, the thing and the words after it, of a request that begins at ``start``."""
    negated = re.search(r"\b(?:don't|do not|never|not)[, ]*$", sentence[:lead], re.I)
    if negated or re.search(r"\bcache\b", sentence, re.I):
        return None
    clause = sentence[start:].strip()
    if correction := _correction(clause):
        return correction
    if WANTED.match(clause):
        return "everything", "", ""
    if found := _FORGET_AT.match(clause):
        nothing = not found["of"].strip() or re.match(r" (?:me )?(?:if|when)\b", found["of"], re.I)
        return None if nothing else _object(found["of"], idiom=True, about=bool(found["about"]))
    if found := _KEEP_AT.match(clause) or _DROP_AT.match(clause):
        return _object(found["of"])
    if found := _EMPTY_AT.match(clause):
        return "everything", "", ""
    if found := _TAKE_BACK_AT.match(clause):
        return _object(found["of"] or found["back"])
    if _UNMENTIONED_AT.match(clause):
        return "idle", "", ""
    found = _DELETE_AT.match(clause)
    request = _object(found["of"]) if found and DELETABLE.match(found["of"]) else None
    if request and request[0] == "thing" and re.search(r"^(?:how|where)\b| (?:from|off) ", clause, re.I):
        return None  # "How do I remove my nail polish?", "Remove my name from the waiting list"
    return request


def _object(words: str, *, idiom: bool = False, about: bool = False) -> tuple[Scope, str, str] | None:
    if THREAT.search(words):
        return None
    end = NEXT.search(words)
    thing, rest = (words[: end.start()], words[end.end() :]) if end else (words, "")
    thing = TAIL.sub("", thing.strip(" ,'\"“”")).strip(" ,'\"“”")
    if (
        idiom
        and re.fullmatch(r"it|about it|that then|i (?:ever )?(?:asked|said anything)(?: you)?(?: that)?", thing, re.I)
    ) or (about and thing.lower() in ("it", "that", "this")):
        return "idle", "", rest
    if all(map(EVERYTHING.match, re.split(r",? and |, ", thing))):
        return "everything", "", rest
    if LAST.match(thing):
        return "last", "", rest
    if about and CHANGED_SUBJECT.match(rest):
        return "idle", "", rest  # "Forget about work, let's talk about chess"
    everything = EVERYTHING_ABOUT.match(thing)
    while (shorter := ABOUT.sub("", thing, count=1) if ABOUT.match(thing) else thing) != thing:
        thing = shorter
    if thing.lower() in ("me", "myself", "us"):
        return "everything", "", rest  # "what you know about me"
    if len(thing) < 2 or re.match(r"(?:something|things)\b", thing, re.I):
        return None
    return "thing", f"everything about {thing}" if everything else thing, rest


# -- corrections ---------------------------------------------------------------------------------------------------

_WHO: Final = r"(?:i|we|my [\w' ]{1,30}?|he|she|they)"
_NOT: Final = r"(?:don't|do not|doesn't|does not|didn't|did not)"
_ANY_MORE: Final = r"(?: any ?more(?! than)| any longer(?! than))"
_TASTE: Final = (
    r"(?:like|love|enjoy|adore|prefer|live|work|play|own|have|eat|drink|smoke|study|drive|collect|speak|keep|go|visit)"
    r"s?"
)
_TRUE: Final = r"(?:true|right|correct|the case|accurate|a fact)"
_FALSE: Final = r"(?:wrong|false|untrue|incorrect|a lie|a mistake|outdated|made up|nonsense)"
_CORRECTIONS: Final = tuple(
    re.compile(pattern, re.I)
    for pattern in (
        rf"(?:it|that)(?:'s| is| was)?(?: \w+ly| just)?(?: not|n't| isn't| wasn't| no longer)(?: \w+ly| even)? {_TRUE}"
        rf"{_ANY_MORE}?(?:.*?\bthat|,) (?P<what>.+)",
        rf"(?:it|that)(?:'s| is| was)(?: \w+ly| just)? {_FALSE}\b(?:.*?\bthat|,) (?P<what>.+)",
        rf"(?:the fact )?that (?P<what>.+?) (?:is|was)(?:(?: not|n't| no longer) {_TRUE}| {_FALSE}){_ANY_MORE}?$",
        r"you(?:'re| are) (?:wrong|mistaken)\b.*?\bthat (?P<what>.+)",
        rf"(?P<who>{_WHO}) (?:no longer|not any ?more) (?P<what>{_TASTE} .+)",
        rf"(?P<who>{_WHO}) {_NOT}(?: \w+ly)? (?P<what>{_TASTE} .+?){_ANY_MORE}(?P<rest>\b.*)$",
        rf"{_WHO}(?: have|'ve|'s| has)? (?:stopped|quit|given up|gave up) \w+ing (?P<what>.+)",
        rf"{_WHO}(?: am|'m| is| are|'re|'s) no longer (?P<what>.+)",
        rf"{_WHO}(?:(?: am|'m| is| are|'re|'s) not| isn't| aren't) (?P<what>.+?){_ANY_MORE}(?P<rest>\b.*)$",
    )
)
_DENIALS: Final = tuple(
    re.compile(pattern, re.I)
    for pattern in (
        rf"(?P<who>{_WHO})(?: {_NOT}|(?: have|'ve)? never| used to)(?: \w+ly)? (?P<what>{_TASTE} [^,]+)$",
        r"(?:my name is not|my name isn't|i'm not called|i am not called) (?P<what>[^,]+)$",
    )
)


def _correction(clause: str) -> tuple[Scope, str, str] | None:
    found = next(filter(None, (pattern.match(clause) for pattern in _CORRECTIONS)), None)
    if found is None or re.search(r"\b(?:you|him|her|them|it|this|that|me|us|anyone|anything)$", found["what"], re.I):
        return None
    words = found.groupdict()
    end = NEXT.search(words["what"])
    thing, rest = (words["what"][: end.start()], words["what"][end.end() :]) if end else (words["what"], "")
    thing = re.sub(rf"{_ANY_MORE}$| now$", "", TAIL.sub("", thing.strip(" ,")), flags=re.I)
    thing = f"{words.get('who') or ''} {thing}".strip(" ,\"'“”")
    return "thing", denied(thing) or thing, f"{rest} {words.get('rest') or ''}".strip(" ,")
