"""Frames on raw CAN sockets; python-can's implementation is the reference."""

from __future__ import annotations

import can
import pytest
from can.interfaces.socketcan.socketcan import build_can_frame, dissect_can_frame
from hypothesis import given
from hypothesis import strategies as st

from canbroker.backends.socketcan.codec import CAN_MTU, CANFD_MTU, decode, encode
from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    FD_LENGTHS,
    HARDWARE_TIMESTAMP,
    REMOTE,
    Frame,
)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    extended = draw(st.booleans())
    arbitration_id = draw(st.integers(0, 0x1FFFFFFF if extended else 0x7FF))
    flags = EXTENDED if extended else 0
    kind = draw(st.sampled_from(["data", "remote", "fd"]))
    if kind == "remote":
        return Frame(0, arbitration_id, flags | REMOTE, draw(st.integers(0, 8)))
    if kind == "data":
        return Frame(0, arbitration_id, flags, draw(st.binary(max_size=8)))
    flags |= FD | draw(st.sampled_from([0, BITRATE_SWITCH]))
    flags |= draw(st.sampled_from([0, ERROR_STATE_INDICATOR]))
    length = draw(st.sampled_from(FD_LENGTHS))
    return Frame(0, arbitration_id, flags, draw(st.binary(min_size=length, max_size=length)))


def message(frame: Frame) -> can.Message:
    remote = isinstance(frame.data, int)
    return can.Message(
        arbitration_id=frame.arbitration_id,
        is_extended_id=bool(frame.flags & EXTENDED),
        is_remote_frame=remote,
        is_fd=bool(frame.flags & FD),
        bitrate_switch=bool(frame.flags & BITRATE_SWITCH),
        error_state_indicator=bool(frame.flags & ERROR_STATE_INDICATOR),
        dlc=frame.data if isinstance(frame.data, int) else len(frame.data),
        data=None if isinstance(frame.data, int) else frame.data,
    )


@given(frames())
def test_what_is_encoded_is_what_the_reference_understands(frame: Frame) -> None:
    wire = encode(frame)
    can_id, length, flags, data = dissect_can_frame(wire)[:4]
    assert len(wire) == (CANFD_MTU if frame.flags & FD else CAN_MTU)
    assert can_id & 0x1FFFFFFF == frame.arbitration_id
    assert bool(can_id & 0x80000000) == bool(frame.flags & EXTENDED)
    assert bool(can_id & 0x40000000) == bool(frame.flags & REMOTE)
    assert length == (frame.data if isinstance(frame.data, int) else len(frame.data))
    if isinstance(frame.data, bytes):
        assert data[:length] == frame.data
    assert bool(flags & 1) == bool(frame.flags & BITRATE_SWITCH)
    assert bool(flags & 2) == bool(frame.flags & ERROR_STATE_INDICATOR)


@given(frames())
def test_what_the_reference_builds_is_decoded(frame: Frame) -> None:
    assert decode(build_can_frame(message(frame)), 0) == frame


@given(frames())
def test_a_frame_survives_the_round_trip(frame: Frame) -> None:
    assert decode(encode(frame), 0) == frame


def test_time_and_flags_of_the_reception_are_kept() -> None:
    wire = encode(Frame(0, 0x123, EXTENDED, b"\x01"))
    assert decode(wire, 17, HARDWARE_TIMESTAMP) == Frame(
        17, 0x123, EXTENDED | HARDWARE_TIMESTAMP, b"\x01"
    )


def test_an_error_frame_has_its_class_bits_as_identifier() -> None:
    wire = (0x20000000 | 0x44).to_bytes(4, "little") + bytes((8, 0, 0, 0)) + bytes(range(8))
    assert decode(wire, 5) == Frame(5, 0x44, ERROR, bytes(range(8)))


@pytest.mark.parametrize("length", [9, 15, 255])
def test_a_remote_frame_never_claims_more_than_eight(length: int) -> None:
    wire = (0x40000000 | 0x44).to_bytes(4, "little") + bytes((length,)) + bytes(11)
    assert decode(wire, 0).data == 8
