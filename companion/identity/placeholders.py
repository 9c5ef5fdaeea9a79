"""Identities that name no particular person: what telephony and web stacks put where a user's id is missing.

A withheld number arrives as ``sip_anonymous``, a variable that was not set as ``user-undefined``. Every stranger has
the same one, so a memory under it would be everybody's. An identity is a placeholder if nothing but a placeholder is
left of it without case, accents, separators, quotes, the prefix of its kind (``sip_``, ``tel:``, ``user-``) and its
domain. One that merely contains such a word (``guest-4711``, ``annie-anonymous``, ``privateer``) is a person.
"""

from __future__ import annotations

import re
from hashlib import sha256
from itertools import product
from typing import Final
from unicodedata import category, normalize
from urllib.parse import unquote

_PREFIX = re.compile(
    r"(sips?|tel|phone|whatsapp|mailto|xmpp|im|user|caller|client|identity|participant|uid|account|customer|member|patient|contact)"
    r"(?:[\s:._/=-]+|$)"
)
_NUMBERED: Final = frozenset(
    ("user", "caller", "identity", "participant", "uid", "account", "customer", "member", "patient", "contact")
)
_PHONE: Final = frozenset(("sip", "sips", "tel", "phone", "whatsapp"))
_ZEROES = re.compile(r"\+?\d{0,3}0{8,}")  # with the country code that a gateway puts before every number
_COUNTRY_CODE = re.compile(r"^\+\d{1,3}(?=[^\W\d])|^1(?=[^\W\d])")  # and before a word as well
_FIELDS: Final = frozenset(("id", "name", "number"))  # of an identity: a variable's name in place of its value
_PARAMETERS = re.compile(r";.*|:\d+$", re.DOTALL)
_SEPARATORS = re.compile(r"[\W_]+")
_QUOTES: Final = " \"'`<>()[]{}“”‘’«»"
_ZERO = re.compile(r"-?0+|-1")
_ZERO_UUID = re.compile(r"0{32}|f{32}")  # RFC 9562's Nil and Max


def _plain(text: str) -> str:
    """The text without case, width and accents."""
    return "".join(char for char in normalize("NFKD", text) if not category(char).startswith("M")).casefold()


# As they are said of a caller or their number, in RFC 3323 and 3325, by networks, PBXs and providers.
_UNNAMED: Final = """
    anonymous anonymized anonymised anon blocked confidential hidden masked private restricted secret suppressed
    unavailable undisclosed unidentified unknown unlisted withheld
    guest visitor default unauthenticated unregistered unspecified unnamed
"""
_THINGS: Final = """
    caller callerid calleridname cid cli call id identity name number participant phone phonenumber user userid username
"""
_NOT: Final = "no not missing without empty invalid"
_MISSED: Final = "available provided set given found applicable disclosed body"
# Of programs and switches, and of the other languages that the companion speaks. The numbers are what carriers send for
# ANONYMOUS, BLOCKED, RESTRICTED, UNAVAILABLE and UNKNOWN: the keys of a telephone with these letters.
_OTHERS: Final = """
    null nil none nan zero nobody noone undefined void true false n/a unset optionalnil
    notloggedin loggedout object objectobject objectpromise infinity tbd invalid error missing empty unassigned
    userid username callerid calleridname phonenumber
    outofarea payphone coinphone cellphone wirelesscaller tollfree tollfreecall asterisk freeswitch sip tel
    anonym unbekannt unterdruckt privat gast anonyme inconnu masque prive invite anonimo desconocido oculto privado
    sconosciuto privato nascosto desconhecido onbekend anoniem verborgen
    nummer numero anrufer rufnummer appelant chiamante unbekannter unbekannte anonymer privater privenummer
    okand hemligt ukendt hemmeligt ukjent skjult tuntematon nieznany zastrzezony prywatny neznamy nezname
    unterdrueckt appel restringido dold okant nummer numara bilinmeyen bilinmiyor gizli
    неизвестный неизвестно неизвестен аноним анонимный скрыт скрытый приватный номер αγνωστος مجهول محجوب חסוי
    非通知 非通知設定 プライベート 公衆電話 表示圏外 通知不可能 不明 匿名 未知 未知号码 私人号码
    발신번호표시제한 발신번호제한 알수없음 비공개 익명
    266696687 2562533 7378742833 86282452253 8656696 1266696687 12562533 186282452253 18656696
"""
_WORDS: Final = frozenset(
    _plain(known)
    for known in {
        *(word for one, two in product(_UNNAMED.split(), ["", *_THINGS.split()]) for word in (one + two, two + one)),
        *("".join(pair) for pair in product(_NOT.split(), [*_THINGS.split(), *_MISSED.split()])),
        *_OTHERS.split(),
        "",
    }
)
# Where a trunk hides numbers, LiveKit names a caller by the first 16 digits of a hash: of "anonymous", as everybody's.
_HIDDEN: Final = frozenset(
    sha256(spelling.encode()).hexdigest()[:16]
    for word in (*_UNNAMED.split(), *_OTHERS.split(), "")
    for spelling in (word, word.capitalize(), word.upper(), f"+{word}")
)


def is_placeholder(identity: str) -> bool:
    """Whether an identity is a placeholder, so that the caller is unknown."""
    text = _plain(unquote(identity)).rpartition("|")[2].strip(_QUOTES)  # auth0|undefined
    kinds: list[str] = []
    while prefix := _PREFIX.match(text):
        kinds.append(prefix[1])
        text = text[prefix.end() :].strip(_QUOTES)
    if not kinds:
        text = text.removeprefix("@")  # a handle, such as @ada:example.org; after a prefix it begins a domain
    local = _PARAMETERS.sub("", text.partition("@")[0]).strip(_QUOTES + "+_.")
    number = text.partition("@")[0].strip(_QUOTES)
    words = _SEPARATORS.split(local)
    letters = "".join(words)
    if local in _WORDS or letters in _WORDS or letters in _HIDDEN or _ZERO_UUID.fullmatch(letters):
        return True
    if _COUNTRY_CODE.sub("", number) in _WORDS or (kinds and letters in _FIELDS):
        return True
    if _ZEROES.fullmatch(number) and (number.startswith("+") or not _PHONE.isdisjoint(kinds)):
        return True
    if all(word in _WORDS for word in words):  # undefined-undefined: a first and a last name that were not set
        return True
    # Users may be numbered from zero: user-0, caller-000.
    return _NUMBERED.isdisjoint(kinds) and any(map(_ZERO.fullmatch, (local, letters)))
