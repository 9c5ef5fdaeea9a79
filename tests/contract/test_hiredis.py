"""What the cache takes for granted of hiredis, the C parser of Redis replies. See docs/upgrading.md."""

from __future__ import annotations

import math
from typing import Any

import hiredis
import pytest

pytestmark = pytest.mark.unit


class Refusal(Exception):
    """What an error reply becomes."""


def a_reader() -> hiredis.Reader:
    """A reader with the options of ``cache.transport.connection``."""
    return hiredis.Reader(replyError=Refusal, notEnoughData=Ellipsis)


def read(wire: bytes) -> list[Any]:
    """Every complete reply in ``wire``."""
    reader = a_reader()
    reader.feed(wire)
    return list(iter(reader.gets, Ellipsis))


@pytest.mark.parametrize(
    ("command", "wire"),
    [
        ((b"GET", "ä"), b"*2\r\n$3\r\nGET\r\n$2\r\n\xc3\xa4\r\n"),
        (("SET", b"\xff\x00", -12), b"*3\r\n$3\r\nSET\r\n$2\r\n\xff\x00\r\n$3\r\n-12\r\n"),
        ((b"PING",), b"*1\r\n$4\r\nPING\r\n"),
        ((b"GET", ""), b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n"),
    ],
)
def test_pack_command_takes_bytes_text_and_integers(command: tuple[Any, ...], wire: bytes) -> None:
    """``cache.transport.connection`` (``pack``): every command of the multiplexed connection is encoded by it.

    If text were encoded otherwise, or an integer refused, no command would be sent as it is meant.
    """
    assert hiredis.pack_command(command) == wire


@pytest.mark.parametrize(("argument", "problem"), [(None, TypeError), ({}, TypeError), ("\ud800", UnicodeEncodeError)])
def test_pack_command_raises_for_what_cannot_be_sent(argument: Any, problem: type[Exception]) -> None:
    """``cache.transport.multiplexer`` (``call``): a programming error raises at once, and only these two types.

    Another type would leave the cache as an unknown exception.
    """
    with pytest.raises(problem):
        hiredis.pack_command((b"SET", b"key", argument))


def test_an_incomplete_reply_is_the_object_we_chose() -> None:
    """``cache.transport.connection``: ``Ellipsis`` is no reply, so a None that Redis sends can be told from waiting.

    With the default (False) a stored false and "no more data" would be one.
    """
    reader = a_reader()
    assert reader.gets() is Ellipsis
    reader.feed(b"$5\r\nhel")
    assert reader.gets() is Ellipsis
    reader.feed(b"lo\r\n#f\r\n")
    assert [reader.gets(), reader.gets(), reader.gets()] == [b"hello", False, Ellipsis]


def test_an_error_reply_is_returned_as_our_own_type() -> None:
    """``cache.transport.connection`` looks at ``type(reply)``: an error is returned, not raised, of exactly that type.

    If it were raised, one caller's error would cost all the others their connection; if it were of a subtype, or its
    text changed, an error would be handed out as a value and its code could not be read.
    """
    (reply,) = read(b"-WRONGTYPE Operation against a key\r\n")
    assert type(reply) is Refusal
    assert str(reply) == "WRONGTYPE Operation against a key"


def test_an_error_inside_an_array_stays_in_its_place() -> None:
    """``cache.transport.connection``: the replies of a script may hold an error, and the others still count."""
    (reply,) = read(b"*2\r\n:1\r\n-NOPERM no\r\n")
    assert reply[0] == 1
    assert type(reply[1]) is Refusal


@pytest.mark.parametrize(
    ("wire", "keys"),
    [(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nkey\r\n", [b"key"]), (b">2\r\n$10\r\ninvalidate\r\n_\r\n", None)],
)
def test_a_push_is_told_from_a_reply_by_its_type(wire: bytes, keys: list[bytes] | None) -> None:
    """``cache.transport.connection`` (``type(reply) is PushNotification``) and the near cache, which reads its items.

    A push that looked like a reply would be given to the caller whose turn it is, and every later caller would get
    the reply of the one before.
    """
    (push,) = read(wire)
    assert type(push) is hiredis.PushNotification
    assert isinstance(push, list)
    assert list(push) == [b"invalidate", keys]


def test_a_push_between_replies_comes_in_order() -> None:
    """``cache.coherence.near_cache``: a value that was read before an invalidation must be seen before it."""
    first, push, second = read(b"$1\r\na\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n$1\r\nb\r\n")
    assert (first, second) == (b"a", b"b")
    assert type(push) is hiredis.PushNotification


@pytest.mark.parametrize(
    ("wire", "value"),
    [
        (b"_\r\n", None),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"#t\r\n", True),
        (b":7\r\n", 7),
        (b"+OK\r\n", b"OK"),
        (b"%2\r\n$5\r\nproto\r\n:3\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n", {b"proto": 3, b"mode": b"standalone"}),
        (b"*2\r\n:2\r\n_\r\n", [2, None]),
        (b"=6\r\ntxt:ab\r\n", b"ab"),
        (b"$2\r\n\xff\x00\r\n", b"\xff\x00"),
    ],
)
def test_replies_are_plain_python_values(wire: bytes, value: object) -> None:
    """``cache.transport.connector`` reads HELLO's map, ``cache.serialization`` the bytes of a value.

    If text were decoded on the way, every value would be a miss; if HELLO were no dict, no server would be good enough.
    """
    (reply,) = read(wire)
    assert reply == value
    assert type(reply) is type(value)


def test_a_double_is_a_float() -> None:
    """``cache.transport.multiplexer`` promises a float for a RESP3 double."""
    assert read(b",1.5\r\n,inf\r\n") == [1.5, math.inf]


def test_members_of_a_set_can_be_iterated() -> None:
    """``cache.coherence.user_index`` reads SMEMBERS: a set or a list, of bytes."""
    (members,) = read(b"~2\r\n$1\r\na\r\n$1\r\nb\r\n")
    assert set(members) == {b"a", b"b"}


@pytest.mark.parametrize("wire", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$x\r\n", b"\x00\x00\r\n"])
def test_garbage_is_a_protocol_error(wire: bytes) -> None:
    """``cache.transport.connection``: a peer that is no Redis costs the connection and nothing else.

    Another exception would leave ``data_received`` and end up in the loop's handler, the callers waiting.
    """
    with pytest.raises(hiredis.ProtocolError):
        read(wire)


def test_a_packed_command_can_be_read_back() -> None:
    """``cache.transport.multiplexer`` (which keys a lost connection was asked for): a command is an array of bytes."""
    reader = hiredis.Reader()
    reader.feed(hiredis.pack_command((b"EVALSHA", "digest", 2, "user:1:profile", b"lease")))
    assert reader.gets() == [b"EVALSHA", b"digest", b"2", b"user:1:profile", b"lease"]
