"""ZMTP 3.0 with the mechanism NULL, as both ends of a connection speak it. Bytes, without I/O.

https://rfc.zeromq.org/spec/23/. Each end sends a greeting and the command READY, then messages.
Peers of version 3.1 send commands that 3.0 does not have; they are understood.
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
_SHORT: Final = [bytes((0, size)) for size in range(_SHORT_BYTES + 1)]

#: Bytes of flags and length.
_SHORT_HEAD: Final = 2
_LONG_HEAD: Final = 9

#: The protocol has a topic and a body at most.
_MAX_PARTS: Final = 2

_READY: Final = b"\x05READY"
_ERROR: Final = b"\x05ERROR"
_PING: Final = b"\x04PING"
_PONG: Final = b"\x04PONG"
_SUBSCRIBE: Final = b"\x09SUBSCRIBE"
_CANCEL: Final = b"\x06CANCEL"

#: After PING: how long the peer waits, then what it wants to have back.
_PING_TTL: Final = 2
_PING_CONTEXT: Final = 16

#: Of what an end says of itself; nobody has more to say.
_MAX_READY_BYTES: Final = 4_096

#: Commands that arrive at once.
_MAX_COMMANDS: Final = 64


class ZmtpError(Exception):
    """The other end does not speak this protocol, or refuses us."""


def opening(socket_type: str, routing_id: str = "") -> bytes:
    """What an end sends first: its greeting, and READY.

    :param routing_id: of a DEALER; empty: the other end gives it one.
    """
    command = _READY + _property("Socket-Type", socket_type)
    if routing_id:
        command += _property("Identity", routing_id)
    return _GREETING + _framed(_COMMAND, command)


def encode(body: bytes, head: bytes = b"") -> bytes:
    """A message of one part, or of two with the encoded ``head``."""
    size = len(body)
    if size <= _SHORT_BYTES:
        return b"%b%b%b" % (head, _SHORT[size], body)
    return b"%b\x02%b%b" % (head, size.to_bytes(8, "big"), body)


def encode_topic(topic: bytes) -> bytes:
    """A part that another one follows."""
    return _framed(_MORE, topic)


class Incoming:
    """What the other end sends, in pieces of any size; :attr:`ready` once messages may be sent.

    Then ``socket_type`` and ``routing_id`` are what it says of itself. ``answer``: what has to be
    sent to it before anything else.
    """

    def __init__(self, max_parts: int = _MAX_PARTS, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        """
        :param max_parts: of a message.
        :param max_bytes: of a message, in all of its parts.
        """
        self.ready = False
        self.socket_type = b""
        self.routing_id = b""
        self.answer = b""
        self._max_parts = max_parts
        self._max_bytes = max_bytes
        self._greeted = False
        self._data = b""
        self._at = 0  # what is before it has been read
        self._begun = bytearray()  # a frame of which some is missing
        self._needed = _GREETING_BYTES  # its bytes, as far as that is known
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._commands = 0  # since data were added

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left that may be a message."""
        return self._at >= len(self._data)

    def feed(self, data: bytes) -> None:
        """Adds bytes that have arrived."""
        self._commands = 0
        if not self.is_empty:
            self._begun += self._data[self._at :]
        if self._begun:
            self._begun += data
            if len(self._begun) < self._needed:
                self._data, self._at = b"", 0
                return
            data = bytes(self._begun)
            self._begun.clear()
        self._data, self._at = data, 0

    def next(self) -> list[bytes] | None:
        """The parts of the next message that is complete.

        :raises ZmtpError: these are not such messages.
        """
        if self.is_empty or (not self._greeted and not self._greet()):
            return None
        data, at, size = self._data, self._at, len(self._data)
        while True:
            needed = _SHORT_HEAD
            if size - at < needed:
                break
            flags, length = data[at], data[at + 1]
            if flags & _LONG:
                needed = _LONG_HEAD
                # A head that is cut off counts as one of an empty frame.
                head = data[at + 1 : at + needed] if size - at >= needed else b""
                length = int.from_bytes(head, "big")
            if flags > _FLAGS or length > self._max_bytes - self._parts_bytes:
                raise ZmtpError(f"a frame with flags {flags} and {length} bytes")
            begin = at + needed
            needed += length
            if size - at < needed:
                break
            self._at = at = begin + length
            if not flags & ~_LONG and self.ready and not self._parts:  # as nearly all are
                if at == size:
                    self._data, self._at = b"", 0
                return [data[begin:at]]
            message = self._take(flags, data[begin:at])
            if message is not None:
                return message
        self._keep(needed)
        return None

    def _keep(self, needed: int) -> None:
        """Keeps the rest of the data until ``needed`` bytes are there."""
        self._needed = needed
        self._begun += self._data[self._at :]
        self._data, self._at = b"", 0

    def _take(self, flags: int, part: bytes) -> list[bytes] | None:
        """Takes a command, or a part of a message that may have several; returns the message if it
        is complete."""
        if flags & _COMMAND:
            return self._command(part)
        self._parts.append(part)
        self._parts_bytes += len(part)
        is_last = not flags & _MORE
        if not self.ready or len(self._parts) + (not is_last) > self._max_parts:
            raise ZmtpError("a message before READY, or one of too many parts")
        if not is_last:
            return None
        parts, self._parts = self._parts, []
        self._parts_bytes = 0
        return parts

    def _greet(self) -> bool:
        """Whether the greeting has arrived."""
        data = self._data
        if data[0] != _SIGNATURE[0]:
            raise ZmtpError("a greeting without ZMTP")
        if len(data) < _GREETING_BYTES:
            self._keep(_GREETING_BYTES)
            return False
        is_ours = data[len(_SIGNATURE) - 1] == _SIGNATURE[-1]
        if not is_ours or data[_VERSION_AT] < _VERSION or data[_MECHANISM] != _NULL:
            raise ZmtpError("a greeting without ZMTP 3 and NULL")
        self._greeted, self._at = True, _GREETING_BYTES
        return True

    def _command(self, command: bytes) -> list[bytes] | None:
        """Obeys a command; returns the message that it stands for, if it does."""
        self._commands += 1
        if self._commands > _MAX_COMMANDS:
            raise ZmtpError(f"more than {_MAX_COMMANDS} commands at once")
        if not self.ready:
            if command.startswith(_READY):
                self._introduce(command[len(_READY) :])
            elif command.startswith(_ERROR):
                raise ZmtpError(f"the connection is refused: {command[len(_ERROR) + 1 :]!r}")
        elif command.startswith((_SUBSCRIBE, _CANCEL)):
            self._commands -= 1
            begins = command.startswith(_SUBSCRIBE)
            return [bytes((begins,)) + command[len(_SUBSCRIBE if begins else _CANCEL) :]]
        elif command.startswith(_PING):
            context = command[len(_PING) + _PING_TTL :][:_PING_CONTEXT]
            self.answer = _framed(_COMMAND, _PONG + context)
        return None

    def _introduce(self, metadata: bytes) -> None:
        """READY: what the other end says of itself."""
        if len(metadata) > _MAX_READY_BYTES:
            raise ZmtpError(f"READY with {len(metadata)} bytes")
        self.ready = True
        while metadata:
            name, metadata = _cut(metadata, 1)
            value, metadata = _cut(metadata, 4)
            if name.lower() == b"socket-type":
                self.socket_type = value
            elif name.lower() == b"identity":
                self.routing_id = value


def _cut(data: bytes, width: int) -> tuple[bytes, bytes]:
    """The string that ``data`` begins with, behind its length of ``width`` bytes, and the rest."""
    end = width + int.from_bytes(data[:width], "big")
    if len(data) < max(width, end):
        raise ZmtpError("READY is cut off")
    return data[width:end], data[end:]


def _property(name: str, value: str) -> bytes:
    content = value.encode()
    return bytes((len(name),)) + name.encode() + len(content).to_bytes(4, "big") + content


def _framed(flags: int, content: bytes) -> bytes:
    message = encode(content)
    return bytes((message[0] | flags,)) + message[1:]
