"""Values round-trip with their types."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cache import UnserialisableValue, keys
from cache.serialization import codec

pytestmark = pytest.mark.unit
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**30, max_value=10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters())
    | st.sampled_from(["", "123", "-0", "1e5", "true", "null", "NaN", "Infinity", "{", '{"a":1}', "[1]", '"', " 1"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner), max_leaves=20
)


def same(a: Any, b: Any) -> bool:
    """Equal in type too, at every depth, and -0.0 is not 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, float):
        return a == b and math.copysign(1, a) == math.copysign(1, b)
    return bool(a == b)


@given(values | st.binary())
@example(b"")
@example(b"\xff\xfe{")
@example("\ud800")
@example({"\udfff": ["\ud800"]})
@example(["é", "\x00", "😀"])
@example("\ud83d\ude00")  # the two halves of a character, which JSON's escapes would join
@example({"\ud83d\ude00": ["\ud83d\ude00"]})
def test_round_trip(value: Any) -> None:
    assert same(codec.decode(codec.encode(value)), value)


@given(values | st.binary(), st.integers(0))
def test_the_start_of_a_value_may_be_one(value: Any, length: int) -> None:
    raw = codec.encode(value)
    assert codec.may_be_value(raw, whole=True)
    assert codec.may_be_value(raw[:length], whole=False)


@given(st.binary())
def test_foreign_bytes_never_surprise(raw: bytes) -> None:
    try:
        value = codec.decode(raw)
    except codec.UndecodableValue:
        return
    assert same(codec.decode(codec.encode(value)), value)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("Ada likes chess", b"Ada likes chess"),
        ("true story", b"true story"),
        ("123", b'"123"'),
        ("", b""),
        (123, b"123"),
        (True, b"true"),
        (None, b"null"),
        (b"\x00RIFF", b"\xfe\x00RIFF"),
        ({"name": "Zoë"}, '{"name":"Zoë"}'.encode()),
        (keys.profile("1"), b"user:1:profile"),
    ],
)
def test_readable_in_redis_cli(value: Any, stored: bytes) -> None:
    assert codec.encode(value) == stored


def test_a_tuple_comes_back_as_a_list() -> None:
    assert codec.decode(codec.encode({"at": (1, (2, 3))})) == {"at": [1, [2, 3]]}


class Colour(IntEnum):
    RED = 1


loop: list[Any] = []
loop.append(loop)
deep: list[Any] = []
for _ in range(100_000):
    deep = [deep]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (math.nan, "NaN"),
        ({"a": [1, math.inf]}, r"\[1\] is inf"),
        ({1: "a"}, "key of type int"),
        ({"a": {None: 1}}, "key of type NoneType"),
        ({"a": [b"bytes"]}, "is a bytes"),
        (bytearray(b"bytes"), "is a bytearray"),
        ({"a": {1, 2}}, "is a set"),
        (Colour.RED, "is a Colour"),
        (object(), "is a object"),
        pytest.param(loop, "contains itself", id="loop"),
        pytest.param(deep, "nested too deeply", id="deep"),
        pytest.param(10**5000, "too many digits", id="huge"),
    ],
)
def test_what_would_not_come_back_is_refused(value: Any, says: str) -> None:
    with pytest.raises(UnserialisableValue, match=says) as refusal:
        codec.encode(value)
    assert isinstance(refusal.value, TypeError)
    assert isinstance(refusal.value, ValueError)


@pytest.mark.parametrize("raw", [b'{"a":', b"[1,", b'"half', b"\xff\xfe", b"{'a': 1}", b"[" * 100_000, b"9" * 5000])
def test_what_cannot_be_decoded_says_so(raw: bytes) -> None:
    with pytest.raises(codec.UndecodableValue):
        codec.decode(raw)
