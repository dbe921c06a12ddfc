"""NumPy's numbers wherever a program gives one."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy  # noqa: ICN001 - see below
import pytest

from canbroker import E2E, Counter, Crc8, Message
from canbroker.bus.periodic.cyclic import period_ns_of, phase_ns_of
from canbroker.bus.values import Receiving
from canbroker.configuration.bus_settings import resolve
from canbroker.model.bit_timing import registers
from canbroker.model.filters import validate
from canbroker.model.message import to_frame, to_stamped_frame
from canbroker.model.plain_numbers import plain
from canbroker.system.clock import SECOND, deadline_after, monotonic_ns

np: Any = numpy  # its numbers are no int and no float for a type checker, either


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int8(5), 5),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array(7), 7),
        (5, 5),
        ("a", "a"),
        (None, None),
    ],
)
def test_they_become_pythons_own(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)


def test_arrays_are_left_alone() -> None:
    array = np.arange(3)
    assert plain(array) is array


@pytest.mark.parametrize("timeout", [np.int8(100), np.int32(100), np.float32(100), np.array(100)])
def test_timeouts(timeout: Any) -> None:
    deadline = deadline_after(timeout)
    assert deadline is not None
    assert 0 < deadline - monotonic_ns() <= 100 * SECOND
    assert deadline > deadline_after(99)  # type: ignore[operator]


def test_filters() -> None:
    numbers = {"can_id": np.uint32(5), "can_mask": np.int64(0x7FF), "extended": np.bool_(False)}
    assert validate([numbers]) == validate([{"can_id": 5, "can_mask": 0x7FF, "extended": False}])
    for refused in (np.float64(5), np.bool_(True), np.int8(-1)):
        with pytest.raises(ValueError, match=r"\['can_id'\] must be 0 to 0xffffffff, got"):
            validate([{"can_id": refused, "can_mask": 0}])


def test_parameters_and_arguments() -> None:
    given = {
        "channel": np.int64(3),
        "interface": np.str_("virtual"),
        "bitrate": np.int64(500_000),
        "fd": np.bool_(True),
        "history": np.float32(0.5),
        "exclusive": np.bool_(False),
    }
    found = resolve(given, {}, ignore_config=True, channels=lambda _: [])
    assert found.parameters() == {"bitrate": 500_000, "fd": True}
    assert [type(value) for value in found.parameters().values()] == [int, bool]
    assert found.get("exclusive") is False
    assert Receiving(history=found.get("history")).history == 0.5
    assert found.get("channel") is given["channel"]  # a message's channel is that very object


def test_registers() -> None:
    timing = {"f_clock": 8_000_000, "brp": 1, "tseg1": 13, "tseg2": 2, "sjw": 1, "nof_samples": 1}
    found = registers({name: np.int64(value) for name, value in timing.items()})
    assert found == timing
    assert {type(value) for value in found.values()} == {int}


def test_times_of_periodic_tasks() -> None:
    assert period_ns_of(np.int8(100)) == 100 * SECOND
    assert period_ns_of(np.int32(100)) == 100 * SECOND
    assert phase_ns_of(np.float64(0.25), SECOND) == SECOND // 4


def test_counters_and_checksums_travel() -> None:
    numbers = (
        Counter(byte=np.int64(7), bits=np.uint8(4), last=np.int16(14)),
        Crc8(byte=np.int64(0), polynomial=np.uint8(0x1D), bytes=[np.int64(1), np.int64(2)]),
        E2E("P01", data_id=np.uint16(0x123)),
        E2E("P02", data_id=list(np.arange(16))),
    )
    assert numbers == (
        Counter(byte=7, bits=4, last=14),
        Crc8(byte=0, polynomial=0x1D, bytes=(1, 2)),
        E2E("P01", data_id=0x123),
        E2E("P02", data_id=tuple(range(16))),
    )
    for asked in numbers:
        msgspec.msgpack.encode(asked)


def test_messages() -> None:
    message = Message(
        timestamp=np.float32(2.5),
        arbitration_id=np.int64(5),
        is_extended_id=np.bool_(False),
        dlc=np.uint8(3),
        data=np.array([1, 2], dtype=np.uint8),
    )
    frame = to_frame(message)
    assert (frame.arbitration_id, frame.flags, frame.data) == (5, 0, b"\x01\x02\x00")
    assert type(frame.arbitration_id) is int
    assert to_stamped_frame(message).timestamp_ns == 2_500_000_000
