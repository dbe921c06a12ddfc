"""ZMTP 3.0 with the mechanism NULL, as the end that connects speaks it. Bytes, without I/O.

https://rfc.zeromq.org/spec/23/. Each end sends a greeting and the command READY, then messages.
"""

from __future__ import annotations

from typing import Final

from canbroker.wire import MAX_MESSAGE_BYTES

_SIGNATURE: Final = b"\xff" + bytes(8) + b"\x7f"
_VERSION: Final = 3
_VERSION_AT: Final = 10
_MECHANISM: Final = slice(12, 32)
_NULL: Final = b"NULL".ljust(20, b"\0")
_GREETING_BYTES: Final = 64
_GREETING: Final = (_SIGNATURE + bytes((_VERSION, 0)) + _NULL).ljust(_GREETING_BYTES, b"\0")

# The flags that a frame begins with.
_MORE: Final = 1
_LONG: Final = 2
_COMMAND: Final = 4
_FLAGS: Final = _MORE | _LONG | _COMMAND

_SHORT_BYTES: Final = 255

#: The protocol has a topic and a body at most.
_MAX_PARTS: Final = 2

_READY: Final = b"\x05READY"
_ERROR: Final = b"\x05ERROR"


class ZmtpError(Exception):
    """The other end does not speak this protocol, or refuses us."""


def opening(socket_type: str, routing_id: str = "") -> bytes:
    """What the connecting end sends first: its greeting, and READY.

    :param routing_id: of a DEALER; empty: the other end gives it one.
    """
    command = _READY + _property("Socket-Type", socket_type)
    if routing_id:
        command += _property("Identity", routing_id)
    return _GREETING + bytes((_COMMAND, len(command))) + command


def encode(body: bytes) -> bytes:
    """A message of one part."""
    size = len(body)
    if size <= _SHORT_BYTES:
        return bytes((0, size)) + body
    return bytes((_LONG,)) + size.to_bytes(8, "big") + body


class Incoming:
    """What the other end sends, in pieces of any size; :attr:`ready` once messages may be sent."""

    def __init__(self) -> None:
        self.ready = False
        self._greeted = False
        self._data = b""
        self._at = 0  # what is before it has been read
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Adds bytes that have arrived."""
        self._data = data if self._at == len(self._data) else self._data[self._at :] + data
        self._at = 0

    def next(self) -> list[bytes] | None:
        """The parts of the next message that is complete.

        :raises ZmtpError: these are not such messages.
        """
        if not self._greeted and not self._greet():
            return None
        data, at, size = self._data, self._at, len(self._data)
        while size - at >= 2:
            flags, length, begin = data[at], data[at + 1], at + 2
            if flags & _LONG:
                begin = at + 9
                length = int.from_bytes(data[at + 1 : begin], "big") if size >= begin else 0
            if flags > _FLAGS or length > MAX_MESSAGE_BYTES:
                raise ZmtpError(f"a frame with flags {flags} and {length} bytes")
            end = begin + length
            if size < end:
                break
            self._at = at = end
            if flags & _COMMAND:
                self._command(data[begin:end])
                continue
            self._parts.append(data[begin:end])
            is_last = not flags & _MORE
            if not self.ready or len(self._parts) + (not is_last) > _MAX_PARTS:
                raise ZmtpError("a message before READY, or one of too many parts")
            if is_last:
                parts, self._parts = self._parts, []
                return parts
        return None

    def _greet(self) -> bool:
        """Whether the greeting has arrived."""
        data = self._data
        if len(data) < _GREETING_BYTES:
            return False
        is_ours = data[0] == _SIGNATURE[0] and data[len(_SIGNATURE) - 1] == _SIGNATURE[-1]
        if not is_ours or data[_VERSION_AT] < _VERSION or data[_MECHANISM] != _NULL:
            raise ZmtpError("a greeting without ZMTP 3 and NULL")
        self._greeted, self._at = True, _GREETING_BYTES
        return True

    def _command(self, command: bytes) -> None:
        if command.startswith(_READY):
            self.ready = True
        elif command.startswith(_ERROR):
            raise ZmtpError(f"the connection is refused: {command[len(_ERROR) + 1 :]!r}")


def _property(name: str, value: str) -> bytes:
    content = value.encode()
    return bytes((len(name),)) + name.encode() + len(content).to_bytes(4, "big") + content
