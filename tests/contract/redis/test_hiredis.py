"""The behaviour of hiredis, the parser of Redis replies, that the cache depends on. See docs/upgrading.md."""

from __future__ import annotations

import math
from typing import Any

import hiredis
import pytest

pytestmark = pytest.mark.unit


class Refusal(Exception):
    """The type of an error reply."""


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
    """``cache.transport.connection`` (``pack``) encodes every command with it.

    Another text encoding, or a refused integer, would change keys and values.
    """
    assert hiredis.pack_command(command) == wire


@pytest.mark.parametrize(("argument", "problem"), [(None, TypeError), ({}, TypeError), ("\ud800", UnicodeEncodeError)])
def test_pack_command_raises_for_what_cannot_be_sent(argument: Any, problem: type[Exception]) -> None:
    """``cache.transport.multiplexer``: a programming error raises one of these two types at once.

    Another type would escape the cache as an undocumented exception.
    """
    with pytest.raises(problem):
        hiredis.pack_command((b"SET", b"key", argument))


def test_an_incomplete_reply_is_the_chosen_object() -> None:
    """``cache.transport.connection``: ``Ellipsis`` is never a reply, so None and false remain replies.

    With the default (False), a RESP3 false would look like an incomplete reply.
    """
    reader = a_reader()
    assert reader.gets() is Ellipsis
    reader.feed(b"$5\r\nhel")
    assert reader.gets() is Ellipsis
    reader.feed(b"lo\r\n#f\r\n")
    assert [reader.gets(), reader.gets(), reader.gets()] == [b"hello", False, Ellipsis]


def test_an_error_reply_is_returned_as_our_own_type() -> None:
    """``cache.transport.connection`` compares ``type(reply)``: an error is returned, not raised, of exactly that type.

    Raised, one caller's error would close the connection of all; as a subtype, it would pass for a value.
    """
    (reply,) = read(b"-WRONGTYPE Operation against a key\r\n")
    assert type(reply) is Refusal
    assert str(reply) == "WRONGTYPE Operation against a key"


def test_an_error_inside_an_array_stays_in_its_place() -> None:
    """``cache.transport.connection``: an error inside a reply does not discard the rest of the reply."""
    (reply,) = read(b"*2\r\n:1\r\n-NOPERM no\r\n")
    assert reply[0] == 1
    assert type(reply[1]) is Refusal


@pytest.mark.parametrize(
    ("wire", "keys"),
    [(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nkey\r\n", [b"key"]), (b">2\r\n$10\r\ninvalidate\r\n_\r\n", None)],
)
def test_a_push_has_a_type_of_its_own(wire: bytes, keys: list[bytes] | None) -> None:
    """``cache.transport.connection`` and ``cache.coherence.near_cache``: invalidations are pushes.

    Taken for a reply, a push would shift the queue: every later caller would receive another caller's reply.
    """
    (push,) = read(wire)
    assert type(push) is hiredis.PushNotification
    assert isinstance(push, list)
    assert list(push) == [b"invalidate", keys]


def test_a_push_between_replies_comes_in_order() -> None:
    """``cache.coherence.near_cache``: a value read before an invalidation is processed before it."""
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
    """``cache.transport.connector`` reads HELLO's map, ``cache.serialization.codec`` bytes.

    Decoded text would make every value a miss; a HELLO that is no dict, every server unsupported.
    """
    (reply,) = read(wire)
    assert reply == value
    assert type(reply) is type(value)


def test_a_double_is_a_float() -> None:
    """``cache.transport.multiplexer`` documents a float for a RESP3 double."""
    assert read(b",1.5\r\n,inf\r\n") == [1.5, math.inf]


@pytest.mark.parametrize("wire", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$x\r\n", b"\x00\x00\r\n"])
def test_garbage_is_a_protocol_error(wire: bytes) -> None:
    """``cache.transport.connection``: a peer that is not Redis closes the connection.

    Another exception would escape ``data_received``, and callers would wait for their deadlines.
    """
    with pytest.raises(hiredis.ProtocolError):
        read(wire)


def test_a_packed_command_can_be_read_back() -> None:
    """``cache.transport.multiplexer`` reads the keys of an unanswered command."""
    reader = hiredis.Reader()
    reader.feed(hiredis.pack_command((b"EVALSHA", "digest", 2, "user:1:profile", b"lease")))
    assert reader.gets() == [b"EVALSHA", b"digest", b"2", b"user:1:profile", b"lease"]
