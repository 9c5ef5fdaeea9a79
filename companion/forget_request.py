"""What is a request to forget: the one place that knows its words, for the offline voice and for all that is prepared.

A turn with such a request becomes no topic, no summary and no greeting. English only; where a model talks, the call of
the tool marks the turn as well, whatever the language.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

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
    r"wait|right|alright|all right|listen|computer|companion|never mind|on second thought|by the way)\b,? )*"
)
_BEGINNING: Final = re.compile(rf"(?:^\s*|[,:–—] ?|\b(?:and|so|but|then) (?=please ))(?P<lead>{_LEAD})", re.IGNORECASE)
_SOFT: Final = r"(?:please |kindly |just |now |also |simply |completely |really |immediately )*"
_ASKED: Final = (
    rf"(?:(?:(?:can|could|would) you|you (?:can|may|should|must|have to|need to|ought to)) {_SOFT}"
    rf"|will you (?=please|kindly){_SOFT}"
    r"|(?:i|we)(?: would|'d)? (?:want|need|like|love|prefer|ask|beg|expect|order|wish|asked|told)(?: for)? you to "
    r"|(?:would|do) you mind (?=\w+ing\b)"
    r"|i(?: would|'d) appreciate it if you (?:could |would )?"
    r"|(?:make|be) sure (?:that )?(?:you |to )?|(?:is|would) it (?:be )?possible (?:for you )?to "
    r"|(?:how|where) (?:can|do|could) i (?:get you to |make you )?"
    r"|(?:can|may|could) i (?:have you |ask you to )?|go ahead and |do )?"
)
_FORGET: Final = r"forget(?:ting)?(?! to\b|-|\w| not\b| never\b)"
_DELETE: Final = (
    r"(?:(?:delet|eras|remov|wip|purg)(?:e|ing)|discard|destroy|scrub|unlearn|get rid of|throw away|dispose of)"
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
_MEMORY: Final = (
    r"(?:(?:my|your|the|our) )?(?:profile|memory|memories|notes?|records?|list|files?|data|database|history|mind|head|"
    r"conversations?|summary|summaries|brain|system|account)"
)
_FROM: Final = rf"(?: (?:from|in|off|out of|on|of) {_MEMORY}\b)"

_FORGET_AT: Final = re.compile(rf"{_ASKED}{_SOFT}{_FORGET}(?:,? please,?)?(?P<about> about)?(?!\w)(?P<of>.*)$", re.I)
_DELETE_AT: Final = re.compile(rf"{_ASKED}{_SOFT}{_DELETE} (?P<of>.+)$", re.I)
_EMPTY_AT: Final = re.compile(
    rf"{_ASKED}{_SOFT}(?:clear|reset|empty) "
    r"(?:(?:all )?my (?:\w+ )?(?:profile|data|memory|memories|account)|your memory|everything you know)\b",
    re.I,
)
_DROP_AT: Final = re.compile(rf"{_ASKED}{_SOFT}{_DROP} (?P<of>.+?){_FROM}(?P<more>.*)$", re.I)
_KEEP_AT: Final = re.compile(
    rf"{_ASKED}{_SOFT}{_NOT_KEEP} (?P<of>(?:that|this|it|what|my|the fact|anything|any|where|who|how|all)\b.*)$", re.I
)

# -- what it asks to forget ----------------------------------------------------------------------------------------

_DATA: Final = (
    r"(?:personal |private |stored |saved |whole |entire |user |own )*"
    r"(?:data|information|infos?|details|profile|account|history|records?|memor(?:y|ies)|files?|traces?|conversations?"
    r"|chats?|facts|things|notes?)"
)
_OF_ME: Final = (
    r"(?: (?:that )?(?:is |are )?(?:about|of|on|from|regarding|concerning) (?:me|myself|us)\b"
    r"| (?:that )?(?:you (?:ever |have |'ve |still )*|there is )"
    r"(?:know|knew|have|hold|keep|kept|remember|learn\w*|store\w*|save\w*|collect\w*|got|heard|gathered)?"
    r"| (?:that )?(?:i|we)(?: have|'ve)?(?: ever)?"
    r" (?:told|tell|said|say|mentioned|shared|talked about|gave)(?: to)?(?: you)?"
    r"| you've (?:learnt|learned|stored|saved|kept|got)"
    r"|(?: right)? now| forever| completely| entirely| at once|, all of it"
    rf"|{_FROM})*"
)
_EVERYTHING: Final = re.compile(
    r"(?:about )?(?:(?:absolutely )?"
    rf"(?:everything|every thing|anything|it all|all(?: of (?:it|that|this)| that)?|whatever){_OF_ME}"
    rf"|(?:all|any)(?: of)?(?: the| my| your| this| that| these| those)? {_DATA}{_OF_ME}"
    rf"|my {_DATA}{_OF_ME}|(?:the|your|every) {_DATA}(?: (?:of|about|on) me\b)(?:{_OF_ME})"
    r"|(?:this|our|the|these|all our) (?:conversation|chat|talk)s?(?: history)?"
    rf"|your (?:whole |entire )?memory|who i am|(?:me|myself)(?:{_OF_ME})"
    r"|(?:that )?(?:i (?:ever )?exist(?:ed)?|(?:we|i) (?:ever )?(?:met|talked|spoke|called)(?: you| to you)?)"
    r"|(?:that )?you (?:ever )?(?:met|knew|know) me)$",
    re.I,
)
_WANTED: Final = re.compile(
    r"(?:i|we)(?: would|'d)? (?:want|like|wish|need|demand|have a right) (?:for )?"
    rf"(?:(?:all )?(?:of )?my {_DATA} (?:to be )?(?:deleted|erased|removed|gone|wiped|forgotten|destroyed)"
    r"|to be (?:forgotten|erased|deleted)|the right to (?:be forgotten|erasure)"
    r"|to (?:delete|erase|remove|wipe) (?:all )?(?:of )?my (?:personal )?(?:data|information|profile|account)\b)",
    re.I,
)
_LAST: Final = re.compile(
    r"(?:that|this|it|that one|this one|that again"
    r"|(?:that |what |everything |all )?i (?:have |'ve )?(?:just |only |ever )*(?:said|told you|mentioned)(?: you)?"
    r"(?: (?:that|this|it|so|now|just now|before))?|what (?:you )?(?:just )?heard"
    r"|(?:my|the|that) last (?:thing|bit|part|sentence|words?|message|question|one)"
    r"(?: i (?:just )?(?:said|told you))?)$",
    re.I,
)
_ABOUT: Final = re.compile(
    r"(?:(?:everything|anything|all|whatever|what|the (?:things?|part|bit|stuff|fact|line|note|memory|entry))(?: that)?"
    r"(?: (?:i|you|we)(?: have|'ve)?(?: just| ever)?"
    r" (?:said|say|tell you|told you|know|have|remember|mentioned|talked|spoke))?(?: to you)?"
    r"(?: yesterday| today| earlier| before| just now| last \w+)? about"
    r"|(?:that |how |what )?i (?:ever |just )*(?:said|told you|mentioned)(?: that)?|the (?:fact|idea) that"
    r"|the (?:line|note|fact|entry|memory)(?: (?:that|which) says| saying)?"
    r"|any mention of|all about|that|about) (?!one\b)",
    re.I,
)
_EVERYTHING_ABOUT: Final = re.compile(r"(?:everything|anything|all|whatever)\b.*\babout\b|any mention of\b", re.I)
_TAIL: Final = re.compile(
    rf"(?:,? (?:please|thanks|thank you|for me|right now|right away|now|immediately|at once|again|ok|okay|forever"
    rf"|altogether|completely|entirely|will you|would you|could you|can you|if you (?:can|could|don't mind|please))"
    rf"|{_FROM})+[ ,]*$",
    re.I,
)
# Where the thing ends and another statement begins; "forget my birthday and you will be sorry" is a threat.
_NEXT: Final = re.compile(
    r", (?=(?:i|i'm|i'll|my|it|it's|it is|we|he|she|they|you|because|since|as|but|and (?:i|my|please)|please|instead"
    r"|remember|that(?:'s| is| was))\b)| (?=(?:because|since|but|instead|and (?:instead|please|remember|say|tell))\b)",
    re.I,
)
_THREAT: Final = re.compile(r",? (?:and|or) (?:i|you|we)(?:'ll| will| would|'d| shall)\b", re.I)
_DELETABLE: Final = re.compile(
    r"(?:my (?!emails?\b|files?\b|photos?\b|apps?\b|messages?\b)|what (?:i|you|we)\b|(?:where|how|who) i\b"
    r"|the (?:fact|line|note|memory|entry|part|bit|thing)\b|every (?:trace|bit)\b|your (?:notes?|memor|records?|data)"
    r"|(?:our|these|the) (?:conversation|chat|talk)s?\b|(?:that|this|it|whatever|everything|anything|all|me|any)\b)",
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
    if _WANTED.match(clause):
        return "everything", "", ""
    if found := _FORGET_AT.match(clause):
        nothing = not found["of"].strip() or re.match(r" (?:me )?(?:if|when)\b", found["of"], re.I)
        return None if nothing else _object(found["of"], idiom=True, about=bool(found["about"]))
    if found := _KEEP_AT.match(clause) or _DROP_AT.match(clause):
        return _object(found["of"])
    if found := _EMPTY_AT.match(clause):
        return "everything", "", ""
    found = _DELETE_AT.match(clause)
    request = _object(found["of"]) if found and _DELETABLE.match(found["of"]) else None
    if request and request[0] == "thing" and re.search(r"^(?:how|where)\b| (?:from|off) ", clause, re.I):
        return None  # "How do I remove my nail polish?", "Remove my name from the waiting list"
    return request


def _object(words: str, *, idiom: bool = False, about: bool = False) -> tuple[Scope, str, str] | None:
    if _THREAT.search(words):
        return None
    end = _NEXT.search(words)
    thing, rest = (words[: end.start()], words[end.end() :]) if end else (words, "")
    thing = _TAIL.sub("", thing.strip(" ,'\"“”")).strip(" ,'\"“”")
    if (
        idiom
        and re.fullmatch(r"it|about it|that then|i (?:ever )?(?:asked|said anything)(?: you)?(?: that)?", thing, re.I)
    ) or (about and thing.lower() in ("it", "that", "this")):
        return "idle", "", rest
    if all(map(_EVERYTHING.match, re.split(r",? and |, ", thing))):
        return "everything", "", rest
    if _LAST.match(thing):
        return "last", "", rest
    everything = _EVERYTHING_ABOUT.match(thing)
    while (shorter := _ABOUT.sub("", thing, count=1) if _ABOUT.match(thing) else thing) != thing:
        thing = shorter
    if len(thing) < 2 or re.match(r"(?:something|things)\b", thing, re.I):
        return None
    return "thing", f"everything about {thing}" if everything else thing, rest


# -- corrections ---------------------------------------------------------------------------------------------------

_WHO: Final = r"(?:i|we|my [\w' ]{1,30}?|he|she|they)"
_NOT: Final = r"(?:don't|do not|doesn't|does not|didn't|did not)"
_ANY_MORE: Final = r"(?: any ?more| any longer)"
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
    end = _NEXT.search(words["what"])
    thing, rest = (words["what"][: end.start()], words["what"][end.end() :]) if end else (words["what"], "")
    thing = re.sub(rf"{_ANY_MORE}$| now$", "", _TAIL.sub("", thing.strip(" ,")), flags=re.I)
    thing = f"{words.get('who') or ''} {thing}".strip(" ,\"'“”")
    return "thing", denied(thing) or thing, f"{rest} {words.get('rest') or ''}".strip(" ,")
