"""What a request to forget is about, in patterns: everything, what was said last, or a thing, and where that ends."""

from __future__ import annotations

import re
from typing import Final

_MEMORY: Final = (
    r"(?:(?:my|your|the|our) )?(?:profile|memory|memories|notes?|records?|list|files?|data|database|history|mind|head|"
    r"conversations?|summary|summaries|brain|system|account)"
)
FROM: Final = rf"(?: (?:from|in|off|out of|on|of) {_MEMORY}\b)"

_DATA: Final = (
    r"(?:personal |private |stored |saved |whole |entire |user |own )*"
    r"(?:data|information|infos?|details|profile|account|history|records?|memor(?:y|ies)|files?|traces?|conversations?"
    r"|chats?|facts|things|stuff|notes?)"
)
_OF_ME: Final = (
    r"(?: (?:that )?(?:is |are )?(?:about|of|on|from|regarding|concerning) (?:me|myself|us)\b"
    r"| (?:that )?(?:you (?:ever |have |'ve |still )*|there is )"
    r"(?:know|knew|have|hold|keep|kept|remember|learn\w*|store\w*|save\w*|collect\w*|got|heard|gathered)?"
    r"| (?:that )?(?:i|we)(?: have|'ve)?(?: ever)?"
    r" (?:told|tell|said|say|mentioned|shared|talked about|gave)(?: to)?(?: you)?"
    r"| you've (?:learnt|learned|stored|saved|kept|got)"
    r"|(?: earlier)? (?:today|yesterday|tonight|this (?:morning|afternoon|evening|week|time))| last (?:week|time|night)"
    r"|(?: right)? now| forever| completely| entirely| at once|, all of it"
    rf"|{FROM})*"
)
EVERYTHING: Final = re.compile(
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
WANTED: Final = re.compile(
    r"(?:i|we)(?: would|'d)? (?:want|like|wish|need|demand|have a right) (?:for )?"
    rf"(?:(?:all )?(?:of )?my {_DATA} (?:to be )?(?:deleted|erased|removed|gone|wiped|forgotten|destroyed)"
    r"|to be (?:forgotten|erased|deleted)|the right to (?:be forgotten|erasure)"
    r"|to (?:delete|erase|remove|wipe) (?:all )?(?:of )?my (?:personal )?(?:data|information|profile|account)\b"
    r"(?! (?:at|with|on|from) (?!your\b|you\b|this\b)))"
    # In the words of the law, as people quote them.
    r"|(?:(?:under|pursuant to|according to|as per|by|based on) [\w .()-]{1,40}?,? )?(?:"
    r"(?:i|we)(?: (?:want|wish|would like|hereby|am|now|do)|'d like)*(?: to)?"
    r" (?:invok|exercis|claim|assert|us|demand)(?:e|ing)? (?:my|our|the) (?:legal )?right"
    r" (?:to|of) (?:be forgotten|erasure|deletion|be erased)"
    r"|(?:i|we)(?: (?:want|wish|would like|hereby|am|now|do)|'d like)*(?: to)?"
    r" (?:request|demand|require|want|ask for|insist on)(?:ing)?(?: the)?(?: \w+)?"
    rf" (?:deletion|erasure|removal|destruction) of (?:(?:all |any )?(?:of )?my {_DATA}|everything)\b)",
    re.I,
)
LAST: Final = re.compile(
    r"(?:that|this|it|that one|this one|that again|you (?:ever )?(?:heard|knew|saw) (?:that|this|it)"
    r"|(?:that |what |everything |all )?i (?:have |'ve )?(?:just |only |ever )*(?:said|told you|mentioned)(?: you)?"
    r"(?: (?:that|this|it|so|now|just now|before))?|what (?:you )?(?:just )?heard"
    r"|(?:my|the|that) last (?:thing|bit|part|sentence|words?|message|question|one)"
    r"(?: i (?:just )?(?:said|told you))?)$",
    re.I,
)
ABOUT: Final = re.compile(
    r"(?:(?:everything|anything|all|whatever|what|the (?:things?|part|bit|stuff|fact|line|note|memory|entry))(?: that)?"
    r"(?: (?:i|you|we)(?: have|'ve)?(?: just| ever)?"
    r" (?:said|say|tell you|told you|know|have|remember|mentioned|talked|spoke))?(?: to you)?"
    r"(?: yesterday| today| earlier| before| just now| last \w+)? about"
    r"|(?:that |how |what )?i (?:ever |just )*(?:said|told you|mentioned)(?: that)?|the (?:fact|idea) that"
    r"|the (?:line|note|fact|entry|memory)(?: (?:that|which) says| saying)?"
    r"|the (?:whole|entire) (?:thing|story|business|conversation|bit) about"
    r"|any mention of|all about|that|about) (?!one\b)",
    re.I,
)
EVERYTHING_ABOUT: Final = re.compile(r"(?:everything|anything|all|whatever)\b.*\babout\b|any mention of\b", re.I)
TAIL: Final = re.compile(
    rf"(?:,? (?:please|thanks|thank you|for me|right now|right away|now|immediately|at once|again|ok|okay|forever"
    rf"|altogether|completely|entirely|(?:will|would) y(?:ou|a)|could you|can you"
    rf"|if you (?:can|could|don't mind|please))"
    rf"|{FROM})+[ ,]*$",
    re.I,
)
_SUBJECT: Final = (
    r"(?:let's|let us|(?:tell|give|show|ask|help|read) (?:me|us)|(?:talk|speak|sing|play|start|go on|move on|continue)"
    r"|(?:what|when|where|how|why|who)(?:'s|'re| is| are| was| were| do| does| did| can| could| should| would| will"
    r"| about| else)|(?:can|could|shall|may) (?:we|i))"
)
# Where the thing ends and another statement begins; "forget my birthday and you will be sorry" is a threat.
NEXT: Final = re.compile(
    r", (?=(?:i|i'm|i'll|my|it|it's|it is|we|he|she|they|you|because|since|as|but|and (?:i|my|please)|please|instead"
    rf"|remember|that(?:'s| is| was)|{_SUBJECT})\b)"
    rf"| (?=(?:because|since|but|instead|and (?:instead|please|remember|say|tell|{_SUBJECT}))\b)",
    re.I,
)
CHANGED_SUBJECT: Final = re.compile(rf"(?:and |but |instead |please )*{_SUBJECT}\b", re.I)
THREAT: Final = re.compile(r",? (?:and|or) (?:i|you|we)(?:'ll| will| would|'d| shall)\b", re.I)
DELETABLE: Final = re.compile(
    r"(?:my (?!emails?\b|files?\b|photos?\b|apps?\b|messages?\b)|what (?:i|you|we)\b|(?:where|how|who) i\b"
    r"|the (?:fact|line|note|memory|entry|part|bit|thing)\b|every (?:trace|bit)\b|your (?:notes?|memor|records?|data)"
    r"|(?:our|these|the) (?:conversation|chat|talk)s?\b|(?:that|this|it|whatever|everything|anything|all|me|any)\b)",
    re.I,
)
