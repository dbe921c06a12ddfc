"""What a periodic task may be asked, and what the error says otherwise."""

from __future__ import annotations

import math
from typing import Any

import can
import pytest

from canbroker import E2E, CanOperationError, Counter, Crc8, Message
from canbroker.bus.periodic.cyclic import (
    LimitedDurationCyclicSendTaskABC,
    check_protection,
    copies,
    frames_of,
    period_ns_of,
    phase_ns_of,
)
from canbroker.system.clock import SECOND


def message(identifier: int = 0x123, data: bytes = b"\1", **more: Any) -> Message:
    return Message(arbitration_id=identifier, data=data, is_extended_id=False, **more)


class Limited(LimitedDurationCyclicSendTaskABC):
    def stop(self) -> None:
        """Nothing runs."""


@pytest.mark.parametrize(
    "period",
    [0, -0.1, 0.0, math.nan, math.inf, -math.inf, 365 * 24 * 3600.0 + 1, 10**400, -(10**400)],
)
def test_no_period(period: float) -> None:
    with pytest.raises(ValueError, match="period must be above 0 s and at most a year"):
        period_ns_of(period)


def test_periods() -> None:
    assert period_ns_of(0.01) == 10_000_000
    assert period_ns_of(1) == SECOND
    assert period_ns_of(365 * 24 * 3600) == 365 * 24 * 3600 * SECOND
    assert period_ns_of(50e-6) == 50_000


@pytest.mark.parametrize("period", [1e-9, 1e-320, 49e-6])
def test_a_period_that_no_bus_has(period: float) -> None:
    with pytest.raises(ValueError, match="at least 50 µs, the time of a short frame"):
        period_ns_of(period)


@pytest.mark.parametrize("value", ["a", "0.01", [1], 1j, b"1"])
def test_no_number(value: Any) -> None:
    with pytest.raises(ValueError, match="period must be a number of seconds"):
        period_ns_of(value)
    with pytest.raises(ValueError, match="phase must be a number of seconds"):
        phase_ns_of(value, SECOND)
    with pytest.raises(ValueError, match="duration must be a number of seconds"):
        Limited(message(), 1, value)


def test_none_is_no_period() -> None:
    nothing: Any = None
    with pytest.raises(ValueError, match="period must be a number of seconds"):
        period_ns_of(nothing)


@pytest.mark.parametrize("phase", [-0.001, 0.01, 0.0099999999, 1, math.nan, math.inf])
def test_no_phase(phase: float) -> None:
    with pytest.raises(ValueError, match=r"less than the period \(0.01 s\)"):
        phase_ns_of(phase, 10_000_000)


def test_phases() -> None:
    assert phase_ns_of(None, 10_000_000) is None
    assert phase_ns_of(0, 10_000_000) == 0
    assert phase_ns_of(0.009, 10_000_000) == 9_000_000


@pytest.mark.parametrize("duration", [-1, -math.inf, math.nan])
def test_no_duration(duration: float) -> None:
    with pytest.raises(ValueError, match="duration"):
        Limited(message(), 1, duration)


@pytest.mark.parametrize(
    ("duration", "duration_ns"), [(None, None), (0, None), (1.5, 1_500_000_000), (1e-12, 1)]
)
def test_durations(duration: float | None, duration_ns: int | None) -> None:
    task = Limited(message(), 1, duration)
    assert (task.duration, task.duration_ns) == (duration, duration_ns)


def test_a_duration_without_end() -> None:
    for duration in (math.inf, 10**400):
        task = Limited(message(), 1, duration)
        assert task.duration_ns == 4_000_000_000 * SECOND, "as long as clocks can count, nearly"


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "1 to 1,000 messages, got 0"),
        ([message()] * 1001, "got 1001"),
        ([message(0x123), message(0x124)], "got 123 and 124"),
        ([message(0x123), Message(arbitration_id=0x123)], "got 123 and 00000123"),
        (None, "None is neither a message nor a sequence"),
        (7, "neither"),
        (iter([message()]), "neither"),
    ],
    ids=["none", "many", "two", "formats", "None", "number", "iterator"],
)
def test_no_messages(messages: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        copies(messages)


@pytest.mark.parametrize("messages", ["123#00", [None], [1, 2]])
def test_what_is_no_message_is_a_type_error(messages: Any) -> None:
    with pytest.raises(TypeError, match="not a CAN message"):
        copies(messages)


def test_an_impossible_message_is_named() -> None:
    with pytest.raises(CanOperationError, match=r"0x123.*9 bytes do not fit"):
        copies([message(), message(data=bytes(9))])
    with pytest.raises(CanOperationError, match=r"0x800.*11 bits"):
        copies(message(0x800))


def test_messages_are_copied() -> None:
    first, second = message(data=b"\1", channel="c"), message(data=b"\2")
    copied = copies([first, second])
    first.data[0] = 7
    assert [bytes(entry.data) for entry in copied] == [b"\1", b"\2"]
    assert copied[0].channel == "c"
    assert isinstance(copies(second), tuple)


def test_python_cans_messages_are_taken() -> None:
    (copied,) = copies(can.Message(arbitration_id=0x55, data=[1, 2], is_fd=True))  # type: ignore[arg-type]
    assert (copied.arbitration_id, copied.is_extended_id, copied.is_fd) == (0x55, True, True)


@pytest.mark.parametrize(
    ("counter", "checksum", "words"),
    [
        (Counter(byte=1), None, "byte 1"),
        (None, Crc8(byte=3), "byte 3"),
        (Counter(byte=0), E2E("P01", 1), "counter of its own"),
        ({"byte": 0}, None, "must be a Counter"),
        (None, Counter(byte=0), "must be a Crc8 or an E2E"),
    ],
)
def test_what_does_not_protect(counter: Any, checksum: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_protection(counter, checksum, frames_of([message(data=bytes(8)), message()]))


def test_what_protects() -> None:
    frames = frames_of([message(data=bytes(8)), message(data=bytes(2))])
    check_protection(Counter(byte=1), Crc8(byte=0), frames)
    check_protection(None, None, frames)
