"""The firmware families and their differences, from their sources and manuals.

They share the commands of Lawicel's protocol and differ in the details. The answer to ``V``
identifies the family (:func:`dialect_of`), unless the user names it (parameter ``dialect``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from canbroker.backends.slcan.codec import (
    ACK,
    CR,
    Decoded,
    decode,
    decode_candapter,
    encode,
    encode_candapter,
)
from canbroker.model.frame import Frame

#: Digits of ``S`` that mean the same everywhere, by bit/s.
_COMMON: Final = {
    10_000: "0",
    20_000: "1",
    50_000: "2",
    100_000: "3",
    125_000: "4",
    250_000: "5",
    500_000: "6",
    1_000_000: "8",
}

#: With ``S7`` as in the manual.
_MANUAL: Final = {**_COMMON, 800_000: "7"}
_WITHOUT: Final = {750_000: "its S7 is 800 kbit/s", 83_300: "it has no command for that"}

#: Digits of ``Y``, the data bitrate of CAN FD, by bit/s (CANable 2.0 firmware).
DATA_BITRATES: Final = {2_000_000: "2", 5_000_000: "5"}


@dataclass(frozen=True)
class Dialect:
    """A firmware family. ``source`` is the source of the facts.

    ``without``: rate -> why this family does not support it, if another family does.
    """

    name: str
    source: str
    bitrates: Mapping[int, str]
    without: Mapping[int, str] = field(default_factory=dict)
    has_registers: bool = True  # the command s
    has_fd: bool = True
    has_serial_number: bool = True  # the command N
    timestamps: tuple[str, str] | None = ("Z0", "Z1")  # off, on
    #: Commands that open the channel, and open it listen-only; ``None``: not known.
    normal: Sequence[str] = ("O",)
    listen: Sequence[str] | None = ("L",)
    #: Why a channel opened with ``listen`` still affects the bus.
    listen_caveat: str = ""
    #: Bytes that its line buffer holds at most.
    line_buffer: int = 255
    #: It ignores configuration while the channel is open, so commands can be repeated.
    repeatable: bool = False
    #: A full transmit queue silently loses frames, so frames wait until those before them should
    #: have been sent. ``depth`` frames fit into the queue.
    loses: bool = False
    depth: int = 8
    #: Its bitrate until another one is set, in bit/s.
    power_up_bitrate: int | None = None
    has_remote: bool = True
    #: The end of an empty line that means "done".
    done: bytes = CR
    #: The line that transmits a frame, with its CR; the frame of a line without its CR.
    encode: Callable[[Frame], bytes] = encode
    decode: Callable[[bytes], Decoded] = decode


def _encode_padded(frame: Frame) -> bytes:
    """A sketch sends a remote frame only if it has as many digits as a data frame."""
    line = encode(frame)
    return line[:-1] + b"00" * frame.data + line[-1:] if isinstance(frame.data, int) else line


LAWICEL: Final = Dialect(
    name="lawicel",
    source="LAWICEL AB, CANUSB Manual",
    bitrates=_MANUAL,
    without=_WITHOUT,
)
CANABLE: Final = Dialect(
    name="canable",
    source="github.com/normaldotcom/canable-fw: src/slcan.c, src/can.c",
    bitrates={**_COMMON, 750_000: "7"},
    without={
        800_000: "its S7 is 750 kbit/s",
        83_300: "it ignores S9, which later versions have",
    },
    has_registers=False,
    has_fd=False,
    has_serial_number=False,
    timestamps=None,
    normal=("M0", "O"),
    listen=("M1", "O"),
    listen_caveat=(
        "in its published source O undoes M1, so that it acknowledges other nodes' frames"
    ),
    line_buffer=30,
    repeatable=True,
    loses=True,
    power_up_bitrate=125_000,
)
CANABLE2: Final = replace(
    CANABLE,
    name="canable2",
    source="github.com/normaldotcom/canable2-fw: src/slcan.c, src/can.c",
    # Its clock is 170 MHz, a bit has 17 quanta, and a prescaler 512 at most.
    bitrates={rate: digit for rate, digit in _COMMON.items() if rate != 10_000} | {83_300: "9"},
    without={
        10_000: "its S0 sets a prescaler that the controller does not have",
        750_000: "its S7 sets a prescaler of 7, which is 1.43 Mbit/s",
        800_000: "it has no command for that",
    },
    has_fd=True,
    line_buffer=255,
)
#: Two sketches for boards, which answer alike. One loses a frame that comes while another is on the
#: bus; the other sends two waiting frames in the wrong order.
SKETCH: Final = Dialect(
    name="sketch",
    source="github.com/kahiroka/slcanuino: slcan.ino; github.com/mintynet/esp32-slcan",
    bitrates=_MANUAL,
    without=_WITHOUT,
    has_registers=False,
    has_fd=False,
    loses=True,
    line_buffer=33,
    depth=0,
    power_up_bitrate=500_000,
    encode=_encode_padded,
)
CANDAPTER: Final = Dialect(
    name="candapter",
    source="Ewert Energy Systems, CANdapter Manual",
    bitrates=_MANUAL,
    without=_WITHOUT,
    has_fd=False,
    has_serial_number=False,
    timestamps=("A0", "A1"),
    has_remote=False,
    done=ACK,
    encode=encode_candapter,
    decode=decode_candapter,
)
#: An adapter of unknown firmware, which may or may not answer.
UNKNOWN: Final = Dialect(
    name="unknown",
    source="",
    bitrates=_COMMON,
    without={
        750_000: "S7 is 750 kbit/s in some firmware and 800 in other",
        800_000: "S7 is 750 kbit/s in some firmware and 800 in other",
        83_300: "S9 is 83.3 kbit/s in some firmware and nothing in other",
    },
    listen=None,
)

#: The names that a user may give.
DIALECTS: Final = {found.name: found for found in (LAWICEL, CANABLE, CANABLE2, CANDAPTER, SKETCH)}

#: Every rate that some firmware has, in bit/s.
BITRATES: Final = sorted({rate for found in DIALECTS.values() for rate in found.bitrates})

#: Hexadecimal in the manual; VL2K4 and the like say github.com/Nakakiyo092/canable2-fw, which
#: follows the manual.
_LAWICEL_VERSION: Final = re.compile(r"[Vv][0-9A-Fa-f]{4}|VL\dK\d")
_SKETCH_VERSION: Final = "V1234"


def dialect_of(version: str | None) -> Dialect:
    """The family with this answer to ``V``; :data:`UNKNOWN` if there is none.

    CANable firmware answers with a commit and the address of the repository it was built from.
    """
    if version is None:
        return UNKNOWN
    if version == _SKETCH_VERSION:
        return SKETCH
    if _LAWICEL_VERSION.fullmatch(version):
        return LAWICEL
    lower = version.lower()
    if "canable2" in lower:
        return CANABLE2
    return CANABLE if "canable-fw" in lower else UNKNOWN
