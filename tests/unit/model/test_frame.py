"""Frames: lengths, faults, text, and the row that travels."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from can.util import dlc2len, len2dlc

from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    REMOTE,
    EchoFrame,
    Frame,
    describe,
    dlc_to_length,
    frame_fault,
    length_to_dlc,
)

# --------------------------------------------------------------------------------------- lengths


@pytest.mark.parametrize("dlc", range(16))
def test_length_codes_are_python_cans(dlc: int) -> None:
    assert dlc_to_length(dlc) == dlc2len(dlc)
    assert length_to_dlc(dlc_to_length(dlc)) == dlc


@pytest.mark.parametrize("length", range(65))
def test_codes_of_lengths_are_python_cans(length: int) -> None:
    assert length_to_dlc(length) == len2dlc(length)


# ---------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("arbitration_id", "flags", "data"),
    [
        (0x7FF, 0, b"12345678"),
        (0x1FFFFFFF, EXTENDED, b""),
        (0x123, REMOTE, 8),
        (0x123, FD | BITRATE_SWITCH | ERROR_STATE_INDICATOR, bytes(64)),
        (0x004, ERROR, bytes(8)),
    ],
)
def test_frames_without_fault(arbitration_id: int, flags: int, data: bytes | int) -> None:
    assert frame_fault(arbitration_id, flags, data) is None


@pytest.mark.parametrize(
    ("arbitration_id", "flags", "data", "expected"),
    [
        (0x800, 0, b"", "0x800 does not fit 11 bits"),
        (0x20000000, EXTENDED, b"", "0x20000000 does not fit 29 bits"),
        (-1, EXTENDED, b"", "does not fit 29 bits"),
        (1, REMOTE | FD, 1, "neither an FD nor an error frame"),
        (1, REMOTE | ERROR, 1, "neither an FD nor an error frame"),
        (1, REMOTE, 9, "0 to 8, got 9"),
        (1, REMOTE, -1, "0 to 8, got -1"),
        (1, REMOTE, b"", "0 to 8, got b''"),
        (1, 0, 4, "only a remote frame has a length"),
        (1, FD, bytes(9), "9 bytes is not a CAN FD length"),
        (1, FD, bytes(65), "65 bytes is not a CAN FD length"),
        (1, REMOTE | BITRATE_SWITCH, 0, "FD frames only"),
        (1, BITRATE_SWITCH, b"", "FD frames only"),
        (1, ERROR_STATE_INDICATOR, b"", "FD frames only"),
        (1, 0, bytes(9), "9 bytes do not fit a classic CAN frame"),
    ],
)
def test_a_fault_is_named(
    arbitration_id: int, flags: int, data: bytes | int, expected: str
) -> None:
    fault = frame_fault(arbitration_id, flags, data)
    assert fault is not None
    assert expected in fault


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (Frame(0, 0x12, 0, b"\xab\x01"), "012#AB01"),
        (Frame(0, 0x12, EXTENDED, b""), "00000012#"),
        (Frame(0, 0x12, REMOTE, 0), "012#R"),
        (Frame(0, 0x12, REMOTE, 5), "012#R5"),
        (Frame(0, 0x12, FD | BITRATE_SWITCH, b"\1"), "012##101"),
        (Frame(0, 0x12, FD | ERROR_STATE_INDICATOR, b""), "012##2"),
    ],
)
def test_describe(frame: Frame, text: str) -> None:
    assert describe(frame) == text


def test_frames_are_rows_in_the_order_of_the_wire() -> None:
    rows: Any = [
        msgspec.to_builtins(Frame(5, 0x12, FD, b"a"), builtin_types=(bytes,)),
        msgspec.to_builtins(EchoFrame(5, 0x12, 0, b"a", "me"), builtin_types=(bytes,)),
    ]
    assert rows == [[5, 0x12, FD, b"a"], [5, 0x12, 0, b"a", "me"]]
