"""What MF4 files of CAN traffic consist of, and what the process that reads one tells.

The groups and their fields are those of ASAM's standard for bus logging, as python-can has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Final, TypeAlias

import msgspec

from canbroker.model.frame import BITRATE_SWITCH, ERROR_STATE_INDICATOR, EXTENDED, FD

GROUPS: Final = ("CAN_DataFrame", "CAN_ErrorFrame", "CAN_RemoteFrame")
DATA, ERRORS, REMOTES = range(3)

#: The fields that are bits of a frame's flags.
BITS: Final[Mapping[str, int]] = {
    "IDE": EXTENDED,
    "EDL": FD,
    "BRS": BITRATE_SWITCH,
    "ESI": ERROR_STATE_INDICATOR,
}

_LENGTH: Final = 4

#: Time in ns, which of the groups, number of the row in it, channel, identifier, flags, whether it
#: was sent, and data, or the number of bytes that a remote frame asks for.
Row: TypeAlias = tuple[int, int, int, str, int, int, bool, bytes | int]


class Opened(msgspec.Struct, tag=True, array_like=True):
    """The file is open and has this number of rows."""

    rows: int


class Refused(msgspec.Struct, tag=True, array_like=True):
    """The file cannot be opened."""

    reason: str


class Rows(msgspec.Struct, tag=True, array_like=True):
    """The next rows, in order of time."""

    rows: list[Row]


class End(msgspec.Struct, tag=True, array_like=True):
    """There are no more rows; ``reason``: because of damage."""

    reason: str | None


Told: TypeAlias = Opened | Refused | Rows | End


def tell(stream: IO[bytes], told: Told) -> None:
    """:raises OSError: nobody listens."""
    body = _encoder.encode(told)
    stream.write(len(body).to_bytes(_LENGTH, "little") + body)
    stream.flush()


def told_by(stream: IO[bytes]) -> Told | None:
    """What comes next; ``None``: the process has ended.

    :raises msgspec.DecodeError: it is something else.
    """
    length = stream.read(_LENGTH)
    size = int.from_bytes(length, "little")
    body = stream.read(size)
    return _decoder.decode(body) if len(length) == _LENGTH and len(body) == size else None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Told)
