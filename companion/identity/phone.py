"""Callers on the phone, known by their number (``COMPANION_PHONE_IDENTITY``).

LiveKit names a participant on the phone ``sip_`` and the number as the trunk delivered it, which differs between
trunks. Here the number is read as E.164, so that one person is one user whichever way they call. With a key
(``COMPANION_ID_KEY``) no number is kept, but its HMAC.

A caller id can be forged: this identifies whom a phone claims to belong to. It is no authentication.
"""

from __future__ import annotations

import hmac
import importlib
import re
from hashlib import sha256
from typing import Final
from unicodedata import normalize

from .caller import person
from .placeholders import is_placeholder
from .user_id import ENCODED, KnownAs, user_id_of

NUMBER: Final = "sip.phoneNumber"
"""Attribute of a participant on the phone: their number, as the trunk delivers it."""
DIALLED: Final = "sip.trunkPhoneNumber"
"""Attribute of a participant on the phone: the number on our side."""
PREFIX: Final = "sip_"
KEYED: Final = f"{ENCODED}=phone="
"""What the id of a caller whose number is not kept begins with; no other identity becomes such an id."""
_AROUND = re.compile(r"^(?:sips?|tel):|@.*$", re.IGNORECASE | re.DOTALL)
_NOT_A_NUMBER = re.compile(r"[^\d+().\-\s/]")
_MIN_DIGITS: Final = 7  # fewer are an extension, or a number of a network's own


def phone_caller(identity: str, number: str, dialled: str = "", key: bytes | None = None) -> KnownAs:
    """The caller with this number.

    Args:
        identity: the participant's identity. It identifies a caller whose number is missing or is none (an extension).
        number: as the trunk delivers it.
        dialled: the number on our side; says in which country a number without country code is.
        key: of the hash; None keeps the number.

    Raises:
        UnusableIdentity: the number was withheld, or the identity cannot be one.
    """
    international = None if is_placeholder(number) else e164(number, dialled)
    if international is None or is_placeholder(international):
        plain = person(identity)
        known_as = [plain]
        if not identity.startswith(PREFIX):  # chosen by the app: no number, and perhaps not of the phone alone
            return KnownAs(plain)
    else:
        plain = f"{PREFIX}{international}"
        delivered = [number, identity.removeprefix(PREFIX), international.removeprefix("+")]
        known_as = [plain, *(f"{PREFIX}{form}" for form in delivered if e164(form, dialled) == international)]
        # LiveKit's identity where the trunk hides numbers.
        known_as.append(f"{PREFIX}{sha256(number.encode()).hexdigest()[:16]}")
    user_id = plain if key is None else KEYED + hmac.digest(key, plain.encode(), "sha256").hex()
    return KnownAs(user_id, tuple({user_id_of(one): None for one in known_as if user_id_of(one) != user_id}))


def e164(number: str, dialled: str = "") -> str | None:
    """A number in the form ``+`` country code, number; None if it is none, or may be that of several countries.

    A number without country code is taken for one of the country that was called. Where it could be one with its
    country code as well, and of another country, nothing is guessed: two callers must not become one.
    """
    text = _AROUND.sub("", normalize("NFKC", number).strip())
    if _NOT_A_NUMBER.search(text) or sum(map(str.isdigit, text)) < _MIN_DIGITS:
        return None
    if text.startswith("+"):
        return _read(text)
    readings = {_read(f"+{text}", sure=True)}
    if text.startswith("00"):
        readings.add(_read(f"+{text[2:]}"))
    if (country := _country(dialled)) is not None:
        readings.add(_read(text, country))
    readings.discard(None)
    return readings.pop() if len(readings) == 1 else None


def load_library() -> None:
    """Import what reads numbers. It takes a tenth of a second and more: to be called off the event loop."""
    importlib.import_module("phonenumbers")


def _read(text: str, country: str | None = None, *, sure: bool = False) -> str | None:
    """The number in E.164, if it has a possible length, and is ``sure`` to be in use where that is asked."""
    import phonenumbers as library  # here, because only those need it who are called by phone

    try:
        number = library.parse(text, country)
    except library.NumberParseException:
        return None
    possible = library.is_possible_number_with_reason(number) == library.ValidationResult.IS_POSSIBLE
    if not possible or (sure and not library.is_valid_number(number)):
        return None
    found = library.format_number(number, library.PhoneNumberFormat.E164)
    # With more zeros than one before it, a number changes each time it is read: the forms of others would be its own.
    stable = library.format_number(library.parse(found), library.PhoneNumberFormat.E164) == found
    return found if stable else None


def _country(dialled: str) -> str | None:
    import phonenumbers as library

    ours = _read(dialled if dialled.startswith("+") else f"+{dialled}", sure=not dialled.startswith("+"))
    if ours is None:
        return None
    number = library.parse(ours)
    code = number.country_code or 0
    return library.region_code_for_number(number) or library.region_code_for_country_code(code)
