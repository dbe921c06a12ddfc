"""What is known of python-can's drivers: names of adapters, errors, error frames, clocks."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from typing import Any

import can
import pytest

from canbroker.backends import identity_of, parse_options
from canbroker.backends.python_can.adapter_clock import AdapterClock
from canbroker.backends.python_can.failures import DriverError, foreign, told
from canbroker.backends.python_can.known import DRIVERS, ErrorFrames, Meaning, driver
from canbroker.backends.python_can.messages import to_frame
from canbroker.errors import CanInitializationError
from canbroker.model.frame import ERROR
from canbroker.system import clock

NOW_NS = 1_700_000_000 * clock.SECOND


def raised(make: Callable[[], object]) -> DriverError:
    """What is made of what that raises."""
    with pytest.raises(DriverError) as error, foreign("recv"):
        make()
    return error.value


def throw(error: BaseException, cause: BaseException | None = None) -> Callable[[], object]:
    def run() -> None:
        raise error from cause

    return run


# --------------------------------------------------------------------------------------- names


def test_every_driver_of_python_can_is_known() -> None:
    own = {name for name, (module, _) in can.interfaces.BACKENDS.items() if module[:4] == "can."}
    assert own == DRIVERS.keys()


@pytest.mark.parametrize(
    ("interface", "channel", "parameters", "identity"),
    [
        ("pcan", "PCAN_USBBUS2", {}, "PCAN_USBBUS2"),
        ("pcan", "PCAN_USBBUS2", {"device_id": 5}, "PCAN_USBBUS2"),  # checked when opened
        ("pcan", 0x52, {}, "PCAN_USBBUS2"),
        ("pcan", 0x509, {}, "PCAN_USBBUS9"),
        ("pcan", 0x7, {}, "7"),
        ("pcan", "left", {"device_id": 5}, "device_id=5"),
        ("kvaser", 0, {"serial": 20042, "dongle_channel": 1}, "0"),
        ("vector", 0, {}, "0"),
        ("vector", 0, {"app_name": "CANalyzer"}, "0"),
        ("vector", 0, {"app_name": None}, "0,app_name="),
        ("vector", 0, {"app_name": "mine"}, "0,app_name=mine"),
        ("vector", 0, {"serial": 7, "app_name": "mine"}, "0,serial=7"),
        ("vector", 0, {"serial": 7, "channel_index": 3}, "channel_index=3"),
        ("gs_usb", 0, {}, "0"),
        ("gs_usb", "can0", {"index": 0}, "0"),
        ("gs_usb", 0, {"bus": 1, "address": 4}, "bus=1,address=4"),
        ("usb2can", "ED000200", {}, "ED000200"),
        ("usb2can", "x", {"serial": "ED000200"}, "ED000200"),
        ("ixxat", 1, {"unique_hardware_id": "HW1"}, "1,unique_hardware_id=HW1"),
        ("systec", 0, {"device_number": 3}, "0,device_number=3"),
        ("socketcand", "can0", {"host": "h", "port": 29536}, "can0,host=h,port=29536"),
        ("plugin", 0, {"serial": 7, "device": 1}, "0,device=1,serial=7"),
    ],
)
def test_who_is_meant(
    interface: str, channel: str | int, parameters: dict[str, Any], identity: str
) -> None:
    options = parse_options(interface, {"channel": channel, **parameters})
    assert options.identity == identity
    assert identity_of(interface, str(channel), parameters) == identity


def test_vectors_global_channel_can_be_asked_for() -> None:
    """python-can: ``app_name=None``; its driver takes an empty text as well."""
    options = parse_options("vector", {"channel": 3, "app_name": None})
    assert options.written() == {"channel": "3", "app_name": ""}
    assert "app_name" not in parse_options("pcan", {"channel": 3, "app_name": None}).written()


@pytest.mark.parametrize(
    "parameters",
    [{"bitrate": "500k"}, {"bitrate": 0}, {"bitrate": 5e5}, {"data_bitrate": True}, {"fd": 1}],
)
def test_rates_that_are_none_are_refused(parameters: dict[str, Any]) -> None:
    [name] = parameters
    with pytest.raises(CanInitializationError, match=f"'vector': {name} must be"):
        parse_options("vector", {"channel": 0, **parameters})


# -------------------------------------------------------------------------------------- errors


class VCIError(can.CanError):
    """As in python-can's interfaces/ixxat/exceptions.py, which only Windows can import."""


class VCITimeout(  # noqa: N818 - python-can's
    can.CanTimeoutError, VCIError
):
    """Likewise."""


def _systec(code: int, text: str) -> Callable[[], object]:
    """As python-can's interfaces/systec does: the text and the number are the cause's."""
    return throw(can.CanOperationError(), can.CanError(f"Function UcanReadCanMsg: {text}", code))


@pytest.mark.parametrize(
    ("interface", "error", "meaning"),
    [
        ("pcan", can.CanOperationError("Failed to send: The transmit queue is full"), "FULL"),
        (
            "pcan",
            can.CanOperationError(
                "Failed to send: Bus error: an error counter reached the 'heavy'/'warning' limit"
                "\nThe transmit buffer in CAN controller is full"
            ),
            "FULL",
        ),
        (
            "pcan",
            can.CanOperationError(
                "The transmit queue is full\nBus error: the CAN controller is in bus-off state"
            ),
            "BUS_OFF",
        ),
        ("pcan", can.CanOperationError("The receive queue was read too late"), "OVERRUN"),
        ("pcan", can.CanOperationError("The CAN controller was read too late"), "OVERRUN"),
        (
            "pcan",
            can.CanOperationError("The value of a PCAN-Hardware handle is invalid"),
            "GONE",
        ),
        ("pcan", can.CanOperationError("A received message is invalid"), "UNKNOWN"),
        ("kvaser", can.CanOperationError("failed", -13), "FULL"),
        ("kvaser", can.CanOperationError("failed", -7), "LATE"),
        ("kvaser", can.CanOperationError("failed", -3), "GONE"),
        ("usb2can", can.CanOperationError("could not send message", 9), "FULL"),
        ("usb2can", can.CanOperationError("could not send message", 21), "FULL"),
        ("usb2can", can.CanOperationError("could not send message", 32), "LATE"),
        ("usb2can", can.CanOperationError("could not receive message", 18), "OVERRUN"),
        ("ixxat", VCIError("Error warning limit exceeded"), "WARNING"),
        ("ixxat", VCIError("Bus off status"), "BUS_OFF"),
        ("ixxat", VCIError("Data overrun occurred"), "OVERRUN"),
        ("ixxat", VCITimeout("Function canChannelSendMessage timed out"), "FULL"),
        ("neovi", can.CanTimeoutError("Transmit timeout"), "LATE"),
        ("serial", OSError(errno.EPIPE, "Broken pipe"), "GONE"),
        ("socketcand", OSError(errno.ECONNRESET, "Connection reset by peer"), "GONE"),
        ("plugin", OSError(errno.ENOBUFS, "No buffer space available"), "FULL"),
        ("plugin", can.CanOperationError("The transmit queue is full"), "UNKNOWN"),
    ],
)
def test_what_an_error_means(interface: str, error: BaseException, meaning: str) -> None:
    assert raised(throw(error)).meaning(driver(interface)) is Meaning[meaning]


@pytest.mark.parametrize(
    ("code", "meaning"),
    [(0x0B, "FULL"), (0x0E, "GONE"), (0x81, "OVERRUN"), (0x85, "DONE"), (0x07, "UNKNOWN")],
)
def test_an_error_without_text_has_its_causes(code: int, meaning: str) -> None:
    error = raised(_systec(code, "a text"))
    assert error.meaning(driver("systec")) is Meaning[meaning]
    assert str(error) == (
        "recv failed: CanOperationError: CanError: Function UcanReadCanMsg: a text"
        f" [Error Code {code}]"
    )


def test_a_cause_that_is_quoted_already_is_not_repeated() -> None:
    cause = OSError(errno.EIO, "Input/output error")
    error = can.CanOperationError(f"write failed: {cause}")
    error.__cause__ = cause
    assert told(error) == "CanOperationError: write failed: Input/output error"


def test_a_traceback_in_a_text_is_left_out() -> None:
    error = can.CanError("Failed to receive: closed  Traceback (most recent call last):\n  File")
    assert told(error) == "CanError: Failed to receive: closed"


# -------------------------------------------------------------------------------- error frames


def error_message(identifier: int, data: bytes) -> can.Message:
    return can.Message(
        arbitration_id=identifier, is_error_frame=True, is_extended_id=False, data=data
    )


@pytest.mark.parametrize(
    ("identifier", "data", "expected"),
    [
        (1, (0, 0x80 | 6, 1, 2), (0, 0, 0x81, 6, 0, 0, 2, 1)),  # a bit error while transmitting
        (2, (1, 24, 3, 9), (0, 0, 0x02, 24, 0, 0, 9, 3)),  # form, receiving
        (4, (1, 10, 0, 0), (0, 0, 0x04, 10, 0, 0, 0, 0)),  # stuff
        (8, (1,), (0, 0, 0, 0, 0, 0, 0, 0)),  # any other
    ],
)
def test_pcans_error_frames(
    identifier: int, data: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    frame = to_frame(error_message(identifier, bytes(data)), NOW_NS, ErrorFrames.PCAN)
    assert (frame.arbitration_id, frame.flags) == (0x288, ERROR)
    assert frame.data == bytes(expected)


def test_error_frames_that_say_nothing_are_bus_errors() -> None:
    frame = to_frame(error_message(0x123, b"\x01"), NOW_NS, ErrorFrames.UNKNOWN)
    assert (frame.arbitration_id, frame.flags, frame.data) == (0x80, ERROR, bytes(8))
    frame = to_frame(error_message(0x004, bytes(8)), NOW_NS, ErrorFrames.SOCKETCAN)
    assert frame.arbitration_id == 0x004


# --------------------------------------------------------------------------------- time stamps


def test_a_clock_since_boot_is_taken_to_the_wall_clock() -> None:
    adapter = AdapterClock()
    delays = (5, 3, 0, 4, 1)  # ms, of the arrival
    told_ns = [
        adapter.read(100 + number, NOW_NS + number * clock.SECOND + delay * clock.MILLISECOND)
        for number, delay in enumerate(delays)
    ]
    exact = [NOW_NS + number * clock.SECOND for number in range(len(delays))]
    late = [(ours - true) / clock.MILLISECOND for ours, true in zip(told_ns, exact, strict=True)]
    assert late == [5, 3, 0, 0, 0], "the fastest one tells the difference"


@pytest.mark.parametrize("drift", [100e-6, -100e-6])
@pytest.mark.parametrize("begin", [100.0, NOW_NS / clock.SECOND])
def test_a_clock_that_drifts_is_followed(drift: float, begin: float) -> None:
    """100 ppm are 8.6 s a day; 1 ms after 10 s, for which nothing is corrected."""
    adapter = AdapterClock()
    worst = 0.0
    for number in range(86_400):
        arrival_ns = NOW_NS + number * clock.SECOND + clock.MILLISECOND // 10
        told_ns = adapter.read(begin + number * (1 + drift), arrival_ns)
        worst = max(worst, abs(told_ns - arrival_ns) / clock.MILLISECOND)
    assert worst < 2.5


@pytest.mark.parametrize("drift", [100e-6, -100e-6])
def test_a_clock_that_was_not_read_for_hours(drift: float) -> None:
    adapter = AdapterClock()
    for number in range(3):
        arrival_ns = NOW_NS + number * 4 * 3600 * clock.SECOND
        stamp = 100.0 + number * 4 * 3600 * (1 + drift)
        assert adapter.read(stamp, arrival_ns) == arrival_ns, "nobody knows better"


def test_frames_that_arrive_together_keep_their_distance() -> None:
    adapter = AdapterClock()
    adapter.read(50.0, NOW_NS)
    late_ns = NOW_NS + clock.SECOND
    told_ns = [adapter.read(50.5 + number / 1000, late_ns) for number in range(100)]
    gaps = {later - earlier for earlier, later in itertools.pairwise(told_ns)}
    assert gaps == {clock.MILLISECOND}
    assert told_ns[0] == NOW_NS + clock.SECOND // 2


def test_no_frame_is_from_the_future_or_out_of_order() -> None:
    adapter = AdapterClock()
    told_ns = [
        adapter.read(stamp, NOW_NS + number * clock.MILLISECOND)
        for number, stamp in enumerate((10.0, 10.5, 10.501, 10.4, 10.502))
    ]
    assert told_ns == sorted(told_ns)
    assert all(ns <= NOW_NS + n * clock.MILLISECOND for n, ns in enumerate(told_ns))


def test_a_clock_that_begins_anew() -> None:
    """The adapter was reset, or its 32 bits have run over."""
    adapter = AdapterClock()
    assert adapter.read(42_949.6, NOW_NS) == NOW_NS
    later_ns = NOW_NS + 3 * clock.SECOND
    assert adapter.read(0.5, later_ns) == later_ns
    assert adapter.read(1.5, later_ns + clock.SECOND) == later_ns + clock.SECOND


@pytest.mark.parametrize("stamp", [0.0, None, float("nan"), "noon", 17.0])
def test_a_stamp_that_is_none_or_stands_still_is_the_arrival(stamp: Any) -> None:
    adapter = AdapterClock()
    for number in range(5):
        arrival_ns = NOW_NS + number * clock.SECOND
        assert adapter.read(stamp, arrival_ns) == arrival_ns
