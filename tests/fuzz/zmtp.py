"""What comes by a connection, before it is known to be a message."""

from __future__ import annotations

from typing import Final

from canbroker.transport.zmtp import Incoming, ZmtpError, encode, encode_topic, opening

_PIECES: Final = (1, 7, 65_536)
_MAX_PARTS: Final = 4
_MAX_BYTES: Final = 1 << 16


def incoming(data: bytes) -> None:
    """In pieces of any size, it is the same; what comes out goes in again."""
    messages, is_refused = _received(data, _PIECES[-1])
    for size in _PIECES[:-1]:
        others, _ = _received(data, size)
        # Too many commands at once are refused, and in pieces they do not arrive at once.
        assert others == messages or (is_refused and others[: len(messages)] == messages)
    again = b"".join(
        b"".join(map(encode_topic, topics)) + encode(body) for *topics, body in messages
    )
    assert _received(opening("DEALER") + again, _PIECES[-1]) == (messages, False)


def _received(data: bytes, size: int) -> tuple[list[list[bytes]], bool]:
    """The messages, and whether what follows them was refused."""
    incoming = Incoming(_MAX_PARTS, _MAX_BYTES)
    messages: list[list[bytes]] = []
    try:
        for start in range(0, len(data), size):
            incoming.feed(data[start : start + size])
            while (message := incoming.next()) is not None:
                messages.append(message)
    except ZmtpError:
        return messages, True
    return messages, False
