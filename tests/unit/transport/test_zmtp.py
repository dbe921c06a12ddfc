"""ZMTP 3.0: messages come out as they went in, in pieces of any size; nothing else gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.transport.zmtp import Incoming, ZmtpError, encode, encode_topic, opening
from canbroker.wire import MAX_MESSAGE_BYTES

#: As the RFC spells it, of the end that has bound.
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16) + bytes(32)
READY = b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04XPUB"


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
        data += b"".join(map(encode_topic, topics)) + encode(body)
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
        GREETING + READY + encode_topic(b"1") + encode_topic(b"2"),
        GREETING + READY + b"\x02" + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big"),
        GREETING + READY + encode_topic(bytes(MAX_MESSAGE_BYTES)) + b"\0\1",
        GREETING + READY + b"\x04\x05\x04PING" * 65,
        GREETING + b"\x04\x08\x05READY\x01a",
        GREETING + b"\x04\x0b\x05READY\x01\xff\0\0\0",
        GREETING + b"\x06" + (5006).to_bytes(8, "big") + b"\x05READY" + bytes(5000),
        b"GET",
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    incoming = Incoming()
    incoming.feed(data)
    with pytest.raises(ZmtpError):
        incoming.next()


def test_an_end_says_who_it_is() -> None:
    incoming = Incoming()
    incoming.feed(opening("DEALER", "me"))
    assert incoming.next() is None
    assert (incoming.socket_type, incoming.routing_id) == (b"DEALER", b"me")


def test_commands_of_later_versions_are_understood() -> None:
    incoming = Incoming()
    incoming.feed(
        opening("SUB") + b"\x04\x0e\x09SUBSCRIBEcan0\x04\x0b\x06CANCELcan0\x04\x03\x02NEW"
    )
    assert [incoming.next() for _ in range(3)] == [[b"\1can0"], [b"\0can0"], None]


def test_who_pings_is_answered() -> None:
    incoming = Incoming()
    incoming.feed(opening("SUB") + b"\x04\x0a\x04PING\0\x0aabc")
    assert incoming.next() is None
    assert incoming.answer == b"\x04\x08\x04PONGabc"


def test_a_message_in_many_pieces_is_put_together_once() -> None:
    """Nothing is copied again for each piece."""
    incoming = Incoming()
    incoming.feed(GREETING + READY + b"\x02" + MAX_MESSAGE_BYTES.to_bytes(8, "big"))
    for _ in range(MAX_MESSAGE_BYTES):
        incoming.feed(b"x")
        message = incoming.next()
    assert message == [b"x" * MAX_MESSAGE_BYTES]


@given(data=st.binary(max_size=300), greeted=st.booleans())
def test_random_bytes_are_messages_or_refused(data: bytes, greeted: bool) -> None:
    incoming = Incoming()
    incoming.feed((GREETING + READY if greeted else b"") + data)
    try:
        while (message := incoming.next()) is not None:
            assert 1 <= len(message) <= 2
    except ZmtpError:
        return
