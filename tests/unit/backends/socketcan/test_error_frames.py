"""Error frames in words. The numbers are those of ``linux/can/error.h``."""

from __future__ import annotations

import pytest

from canbroker.backends.base import BusCondition
from canbroker.backends.socketcan.error_frames import (
    condition_after,
    describe_error,
    error_causes,
    is_overrun,
)
from canbroker.model.frame import ERROR, Frame


def error(classes: int, **data: int) -> Frame:
    """``d1=4`` sets data[1]."""
    content = bytearray(8)
    for name, value in data.items():
        content[int(name[1:])] = value
    return Frame(0, classes, ERROR, bytes(content))


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (error(0x001), "transmit timeout"),
        (error(0x002), "arbitration lost"),
        (error(0x002, d0=12), "arbitration lost at bit 12"),
        (error(0x004), "controller problem"),
        (error(0x004, d1=0x01), "receive overrun"),
        (error(0x004, d1=0x02), "transmit overrun"),
        (error(0x004, d1=0x0C), "receive error warning, transmit error warning"),
        (error(0x004, d1=0x20), "transmit error passive"),
        (error(0x004, d1=0x40), "error active again"),
        (error(0x008), "protocol violation: unspecified"),
        (error(0x008, d2=0x84, d3=0x0A), "protocol violation: bit stuffing, while sending in data"),
        (error(0x008, d2=0x02, d3=0x1B), "protocol violation: frame format in acknowledge delim"),
        (error(0x010, d4=0x47), "transceiver, CANH shorted to ground, CANL has no wire"),
        (error(0x020), "no acknowledgement"),
        (error(0x040), "bus-off"),
        (error(0x080), "bus error"),
        (error(0x100), "controller restarted"),
        (error(0), "unknown error"),
        (error(0x0A0), "no acknowledgement, bus error"),
    ],
)
def test_every_class_has_its_words(frame: Frame, words: str) -> None:
    assert describe_error(frame).startswith(words)


def test_counters_are_told_when_they_are_there() -> None:
    assert describe_error(error(0x240, d6=248, d7=3)) == (
        "bus-off (transmit errors 248, receive errors 3)"
    )
    assert describe_error(error(0x200)).endswith("(transmit errors 0, receive errors 0)")
    assert describe_error(error(0x004, d1=8, d6=96)).endswith(
        "(transmit errors 96, receive errors 0)"
    ), "kernels before 6.0 have no class for them"
    assert "(" not in describe_error(error(0x040))


def test_causes_are_counted_by_kind() -> None:
    frame = error(0x02A, d2=1)
    assert [kind for kind, _ in error_causes(frame)] == [
        "no_ack", "arbitration_lost", "protocol",
    ]  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"\x01", b"\0\x01"])
def test_short_data_is_read_as_zeros(data: bytes) -> None:
    assert describe_error(Frame(0, 0x00E, ERROR, data))


def test_an_overrun_is_known() -> None:
    assert is_overrun(error(0x004, d1=0x01))
    assert not is_overrun(error(0x004, d1=0x02))
    assert not is_overrun(error(0x008, d1=0x01))


def test_the_condition_follows_what_the_controller_says() -> None:
    fine = BusCondition()
    passive = condition_after(error(0x204, d1=0x20, d6=128), fine)
    assert not passive.off
    assert passive.reason == "transmit error passive (transmit errors 128, receive errors 0)"
    off = condition_after(error(0x040), passive)
    assert off == BusCondition(off=True, reason="bus-off")
    assert condition_after(error(0x020), off) == off
    assert condition_after(error(0x100), off) == fine
    assert condition_after(error(0x004, d1=0x40), passive) == fine
