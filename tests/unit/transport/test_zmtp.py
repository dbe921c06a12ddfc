"""ZMTP 3.0: messages come out as they went in, in pieces of any size; nothing else gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.transport.zmtp import Incoming, ZmtpError, encode, opening
from canbroker.wire import MAX_MESSAGE_BYTES

#: As the RFC spells it, of the end that has bound.
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16) + bytes(32)
READY = b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04XPUB"


def topic(part: bytes) -> bytes:
    """A part that another one follows."""
    message = encode(part)
    return bytes((message[0] | 1,)) + message[1:]


def received(data: bytes, size: int) -> list[list[bytes]]:
    incoming = Incoming()
    messages: list[list[bytes]] = []
    for start in range(0, len(data), size):
        incoming.feed(data[start : start + size])
        while (message := incoming.next()) is not None:
            messages.append(message)
    return messages


def test_the_opening_is_as_the_rfc_spells_it() -> None:
    assert (
        opening("DEALER", "me")
        == (b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + bytes(32))
        + b"\x04\x2b\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x02me"
    )
    assert opening("SUB").endswith(b"\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB")


@given(
    messages=st.lists(st.lists(st.binary(max_size=600), min_size=1, max_size=2), max_size=6),
    size=st.integers(1, 2000),
)
def test_messages_come_out_as_they_went_in(messages: list[list[bytes]], size: int) -> None:
    data = GREETING + READY
    for *topics, body in messages:
        data += b"".join(map(topic, topics)) + encode(body)
    assert received(data, size) == messages


def test_it_is_ready_when_the_other_end_is() -> None:
    incoming = Incoming()
    incoming.feed(GREETING)
    assert incoming.next() is None
    assert not incoming.ready
    incoming.feed(READY)
    assert incoming.next() is None
    assert incoming.ready


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n".ljust(64),
        GREETING.replace(b"NULL\0", b"CURVE"),
        GREETING.replace(b"\x7f\x03", b"\x7f\x01"),
        GREETING + encode(b"before READY"),
        GREETING + b"\x04\x09\x05ERROR\x02no",
        GREETING + READY + b"\x08\x01a",
        GREETING + READY + topic(b"1") + topic(b"2"),
        GREETING + READY + b"\x02" + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big"),
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    incoming = Incoming()
    incoming.feed(data)
    with pytest.raises(ZmtpError):
        incoming.next()


@given(data=st.binary(max_size=300), greeted=st.booleans())
def test_random_bytes_are_messages_or_refused(data: bytes, greeted: bool) -> None:
    incoming = Incoming()
    incoming.feed((GREETING + READY if greeted else b"") + data)
    try:
        while (message := incoming.next()) is not None:
            assert 1 <= len(message) <= 2
    except ZmtpError:
        return
