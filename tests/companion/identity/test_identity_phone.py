"""Callers on the phone: what their numbers become, and the ids they were known by."""

from __future__ import annotations

import hmac
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import keys
from companion.identity import UnusableIdentity, phone_caller, user_id_of
from companion.identity.phone import e164

pytestmark = pytest.mark.unit
KEY = b"a key of 32 characters for tests"
OURS, GERMAN = "+18005551234", "+4930123456"


@pytest.mark.parametrize(
    ("number", "dialled", "expected"),
    [
        ("+15551234567", "", "+15551234567"),
        ("+1 (555) 123-4567", "", "+15551234567"),
        ("tel:+15551234567", "", "+15551234567"),
        ("+15551234567@203.0.113.7", "", "+15551234567"),
        ("15551234567", OURS, "+15551234567"),
        ("5551234567", OURS, "+15551234567"),
        ("(555) 123-4567", OURS, "+15551234567"),
        ("0301234567", GERMAN, "+49301234567"),
        ("0049301234567", GERMAN, "+49301234567"),
        ("0049301234567", "", "+49301234567"),
        ("01149301234567", OURS, "+49301234567"),
        ("49301234567", GERMAN, "+49301234567"),
        ("+44 (0)20 7946 0958", "", "+442079460958"),
        ("02079460958", "442071234567", "+442079460958"),
        ("+39 06 698 12345", "", "+390669812345"),
        ("٠٣٠١٢٣٤٥٦٧", GERMAN, "+49301234567"),
        # No number, or not known whose.
        *(
            (text, OURS, None)
            for text in ("", "1001", "anonymous", "+", "0000000", "+1800FLOWERS", "+15551234567;ext=5")
        ),
        ("5551234567", "", None),
        ("12125551234", GERMAN, None),  # of New York with its country code, or of a German mobile without
        ("+99912345678", "", None),
        ("+1234", "", None),
        ("+490000000", "", None),  # read again, it has one zero less
    ],
)
def test_a_number_is_read_as_e164(number: str, dialled: str, expected: str | None) -> None:
    assert e164(number, dialled) == expected


@pytest.mark.parametrize("number", ["+15551234567", "5551234567", "15551234567", "(555) 123-4567"])
@pytest.mark.parametrize("key", [None, KEY])
def test_one_person_is_one_user_whichever_way_they_call(number: str, key: bytes | None) -> None:
    caller = phone_caller(f"sip_{number}", number, OURS, key)
    digest = hmac.new(KEY, b"sip_+15551234567", sha256).hexdigest()
    assert caller.user_id == ("sip_+15551234567" if key is None else f"~==phone={digest}")
    assert keys.user_id(caller.user_id) == caller.user_id
    assert caller.user_id not in caller.earlier
    known = {caller.user_id, *caller.earlier}
    assert {user_id_of(f"sip_{number}"), "sip_+15551234567"} <= known
    if number != "+15551234567":
        assert f"sip_{sha256(number.encode()).hexdigest()[:16]}" in known


def test_an_extension_is_a_person_by_their_identity() -> None:
    assert phone_caller("sip_1001", "1001").user_id == "sip_1001"
    keyed = phone_caller("sip_1001", "1001", key=KEY)
    assert keyed.user_id.startswith("~==phone=")
    assert keyed.earlier == ("sip_1001",)


def test_an_identity_that_the_app_chose_is_not_moved_to_a_number() -> None:
    assert phone_caller("ada", "", key=KEY) == phone_caller("ada", "anonymous") == phone_caller("ada", "1001")
    assert phone_caller("ada", "").user_id == "ada"
    assert phone_caller("ada", "").earlier == ()
    assert "ada" not in phone_caller("ada", "+15551234567", key=KEY).earlier


@pytest.mark.parametrize(
    "number", ["", "anonymous", "Restricted", "+266696687", "0", "unknown@unknown.invalid", "10000000000"]
)
def test_a_withheld_number_is_an_unknown_caller(number: str) -> None:
    with pytest.raises(UnusableIdentity):
        phone_caller(f"sip_{number}", number, OURS, KEY)


numbers = st.from_regex(r"\+?(1|49|44|0|00|)[0-9]{6,12}", fullmatch=True)


@given(numbers, numbers, st.sampled_from(["", OURS, GERMAN]))
def test_a_caller_takes_over_nothing_of_another_number(one: str, other: str, dialled: str) -> None:
    """Both through the same trunk, without a key and with it."""
    for key in (None, KEY):
        try:
            first, second = (phone_caller(f"sip_{number}", number, dialled, key) for number in (one, other))
        except UnusableIdentity:
            return
        if first.user_id != second.user_id:
            assert not {first.user_id, *first.earlier} & {second.user_id, *second.earlier}


def test_no_identity_passes_for_a_hash() -> None:
    keyed = phone_caller("sip_+15551234567", "+15551234567", key=KEY).user_id
    assert user_id_of(keyed) != keyed
