"""Placeholder identities, and people's identities that resemble them."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.identity import caller_from_identity, caller_from_metadata

pytestmark = pytest.mark.unit
NO_OPERATORS = frozenset[str]()

WORDS = (
    *("anonymous", "withheld", "unavailable", "restricted", "private", "blocked", "unknown", "guest", "null", "none"),
    *("undefined", "NaN", "nil", "0", "000", "no caller id", "no-caller-id", "NoCallerID", "private number", "zero"),
    *("unknown caller", "number withheld", "anonymousUser", "visitor", "nobody", "not available", "N/A", "hidden"),
    *("out of area", "object Object", "caller unknown", "unauthenticated", "anonym", "unterdrückt", "desconocido"),
)
FORMS = (
    "{}",
    "sip_{}",
    "sip:{}@anonymous.invalid",
    "{}@unknown.invalid",
    "+{}",
    "sip_+{}",
    "tel:{}",
    "sips:{}@10.0.0.1",
)
FORMS += ("sip_{}@10.0.0.1:5060", "sip:{};user=phone", "_{}_", "sip_sip:{}@host", "phone_{}", "client:{}", "({})")


@pytest.mark.parametrize("word", WORDS)
def test_a_placeholder_is_an_unknown_caller_in_any_form(word: str) -> None:
    for form in FORMS:
        for spelling in (word, word.upper(), word.capitalize(), word.replace(" ", "_"), word.replace(" ", "+")):
            identity = form.format(spelling)
            assert caller_from_identity(identity, NO_OPERATORS) is None, identity


@pytest.mark.parametrize(
    "identity",
    [
        *("sip_", "sip:", "tel:", "sip_+", "sip", "user-", "user_", "user", "+", "---", "...", "sip_@10.0.0.1", "-1"),
        *(
            "user-undefined",
            "user_null",
            "user-anonymous",
            "identity-none",
            "participant_unknown",
            "undefined-undefined",
        ),
        *('"anonymous"', "<unknown>", "'guest'", "[object Object]", "<nil>", "{undefined}", " anonymous", "anonymous "),
        *("Ａｎｏｎｙｍｏｕｓ", "anonymous%40anonymous.invalid", "no+caller+id", "@anonymous", "guest."),
        *("00000000-0000-0000-0000-000000000000", "user-00000000-0000-0000-0000-000000000000"),
        *("ffffffff-ffff-ffff-ffff-ffffffffffff", "sip_0000000000", "+000", "-0", "0.0"),
        # On a phone's keys: ANONYMOUS, BLOCKED, RESTRICTED, UNAVAILABLE, UNKNOWN.
        *("sip_+266696687", "+2562533", "7378742833", "tel:+86282452253", "sip_8656696", "+12562533", "+18656696"),
        *('"Anonymous" <sip:anonymous@anonymous.invalid>', "unavailable;phone-context=example.com", "+00000"),
        *("mailto:anonymous@example.com", "xmpp:guest@example.com"),
        # Behind a country code, that a gateway puts before whatever it has.
        *("sip_+10000000000", "+10000000000", "sip_10000000000", "sip_+1anonymous", "+1Restricted", "sip_1unknown"),
        # A variable's name in place of its value, and other kinds before a value that was not set.
        *("user_id", "userid", "USER_ID", "caller-id", "sip_callerid", "sip_Caller ID", "username", "phone_number"),
        *("uid-null", "account-undefined", "customer_null", "user.undefined", "user=undefined", "auth0|undefined"),
        *("whatsapp:+anonymous", "patient-none", "contact:unknown", "anonymous.invalid", "-Infinity", "ukendt"),
        # As networks and telephones of other countries have it.
        *(
            "Unbekannter Anrufer",
            "Private Nummer",
            "Numéro masqué",
            "Número oculto",
            "numero privato",
            "okänd",
            "ukendt",
        ),
        *(
            "Неизвестный номер",
            "非通知",
            "公衆電話",
            "未知号码",
            "발신번호표시제한",
            "sip_Wireless Caller",
            "Toll Free",
            "Appel masqué",
            "unterdrueckt",
            "Número restringido",
            "gizli numara",
            "dold nummer",
            "приватный номер",
            "プライベート",
            "비공개",
            "חסוי",
        ),
        # As LiveKit names a caller where the trunk hides numbers, and there is none.
        *(f"sip_{sha256(word.encode()).hexdigest()[:16]}" for word in ("anonymous", "Anonymous", "unknown", "")),
    ],
)
def test_these_are_placeholders_too(identity: str) -> None:
    assert caller_from_identity(identity, NO_OPERATORS) is None
    assert caller_from_metadata(f'{{"user_id": "{identity}"}}', NO_OPERATORS)[1] is None


PEOPLE = (
    *(
        "ada",
        "Guestrin",
        "annie-anonymous",
        "privateer",
        "unknown-soldier",
        "guest-4711",
        "guest_123",
        "guest_ab12",
        "anonymous1",
    ),
    *(
        "anonymously",
        "private.ryan",
        "the-unknown",
        "no-one-else",
        "blocked-arteries",
        "Nan Goldin",
        "nanette",
        "Null Ada",
    ),
    *("O'Null", "null.island", "undefined7", "unknown.person", "nullius", "zero-cool", "Noneman", "restrictedarea"),
    *("sip_+15551234567", "sip_15551234567", "sip_1001", "sip_100", "tel:+4930123456", "+4930123456", "10", "1", "100"),
    *("user-ada", "user-1", "user-0", "caller-000", "userland", "telly", "sipho", "phoneme", "tel_aviv", "Sip Ho"),
    *("@ada:example.org", "ada@anonymous.invalid", "ada@example.org", "sip_ada", "sip:ada@10.0.0.1:5060", "client:ada"),
    *("auth0|anonymous-ada", "did:key:unknown", "José", "id", "name", "Cid", "ffffffff", "sip_f00dfeedf00dfeed"),
    *(
        "customer-0",
        "account-1",
        "1000000000",
        "1anna",
        "+1ada",
        "sip_+15550000000",
        "Member Guestrin",
        "uid-7",
        "Beller",
    ),
    *("auth0|5f7c8ec7c33c6c004bbafe82", "google-oauth2|108", "Empty Ada", "Adán Anónimo", "Privat Müller"),
    *("anonymous-0b8e0d5c-8d0e-4c3e-9b0e-2f5a5f0f7a11", "im-a-person", "Cache Money", "Dolda"),
    *("00000000-0000-0000-0000-000000000001", "名無し", "Anon Ymous"[:4] + "ie"),
)


@pytest.mark.parametrize("identity", PEOPLE)
def test_who_merely_has_such_a_word_in_their_name_is_a_person(identity: str) -> None:
    assert caller_from_identity(identity, NO_OPERATORS) is not None


@given(
    st.sampled_from(["", "sip_", "tel:", "user-"]),
    st.sampled_from([word for word in WORDS if word.isalpha()]),
    st.sampled_from(["-", "_", ".", ""]),
    st.from_regex(r"[0-9]{1,2}[b-z]{2,5}", fullmatch=True),
)
def test_more_than_a_placeholder_is_a_person(prefix: str, word: str, separator: str, more: str) -> None:
    assert caller_from_identity(f"{prefix}{word}{separator}{more}", NO_OPERATORS) is not None
    assert caller_from_identity(f"{prefix}{more}{separator}{word}", NO_OPERATORS) is not None
