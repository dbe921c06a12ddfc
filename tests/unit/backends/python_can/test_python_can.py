"""The backend for python-can: what users write, messages, and drivers that misbehave."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import can
import pytest

from canbroker.backends import identity_of, open_backend, parse_options, python_can
from canbroker.backends.base import AdapterGoneError, Backend
from canbroker.backends.python_can import PythonCanOptions
from canbroker.backends.python_can.backend import PythonCanBackend
from canbroker.backends.python_can.exchange import CAPACITY, MAX_FRAMES, Exchange
from canbroker.backends.python_can.messages import MessageError, to_frame, to_message
from canbroker.backends.python_can.receiving import driver_filters
from canbroker.errors import CanInitializationError, CanInterfaceNotImplementedError
from canbroker.model.filters import EVERYTHING, NOTHING, parse
from canbroker.model.frame import ERROR, EXTENDED, FD, REMOTE, Frame
from canbroker.system import clock
from tests.plugins.nasty_can import FilteringBus, NastyBus
from tests.support.benches import Item, collect, is_readable, send_all, transmit, wait_until

NOW_NS = 1_700_000_000 * clock.SECOND
FRAME = Frame(0, 0x100, 0, b"\x01")

Open = Callable[..., PythonCanBackend]


@pytest.fixture
def opened() -> Iterator[Callable[[NastyBus], PythonCanBackend]]:
    """Makes backends of buses; at the end what blocks is let go and all is closed."""
    made: list[tuple[NastyBus, PythonCanBackend]] = []

    def make(bus: NastyBus) -> PythonCanBackend:
        options = PythonCanOptions(channel="x", interface="nasty", parameters={})
        backend = PythonCanBackend(bus, options)
        made.append((bus, backend))
        return backend

    yield make
    for bus, backend in made:
        bus.release.set()
        backend.close()


def ended(backend: Backend, count: int = 1) -> list[Item]:
    return collect(backend, lambda items: len(items) >= count)


def end_of(backend: Backend) -> str:
    """Reads until the adapter is gone; returns why."""
    with pytest.raises(AdapterGoneError) as gone:
        collect(backend, lambda _: False)
    return str(gone.value)


# ----------------------------------------------------------------------------------------- options


def test_parameters_are_kept_as_they_were_written() -> None:
    given = {"channel": "0", "bitrate": 500_000, "fd": True, "app_name": "x", "sjw": 1.5}
    options = parse_options("vector", {**given, "data_bitrate": None, "single_handle": True})
    assert isinstance(options, PythonCanOptions)
    assert options.written() == given
    assert parse_options("vector", options.written()) == options


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({}, "channel"),
        ({"channel": 1.5}, "channel"),
        ({"channel": "\n"}, "printable"),
        ({"channel": "0", "timing": [1]}, "timing"),
        ({"channel": "0", "can_filters": []}, "can_filters"),
        ({"channel": "0", "receive_own_messages": True}, "receive_own_messages"),
        ({"channel": "0", "listen_only": True}, "listen_only"),
        ({"channel": "0", "ignore_config": False}, "ignore_config"),
    ],
)
def test_what_cannot_be_given_is_named(parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(CanInitializationError, match=rf"'vector'.*{named}"):
        parse_options("vector", parameters)


def test_adapters_with_the_same_channel_are_told_apart() -> None:
    identities = [
        identity_of("vector", "0", {"bitrate": bitrate, **which})
        for which in ({}, {"serial": 7}, {"serial": 8})
        for bitrate in (125_000, 500_000)
    ]
    assert identities == ["0", "0", "0,serial=7", "0,serial=7", "0,serial=8", "0,serial=8"]


def test_without_python_can_the_way_to_get_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(CanInterfaceNotImplementedError, match=r"pip install canbroker\[python-can"):
        parse_options("vector", {"channel": "0"})
    parse_options("virtual", {"channel": "x"})


def test_what_nobody_has_is_answered_with_what_there_is() -> None:
    with pytest.raises(CanInterfaceNotImplementedError, match=r"'nope'.*slcan.*kvaser.*vector"):
        open_backend("nope", parse_options("nope", {"channel": "0"}))


@pytest.mark.parametrize(
    ("channel", "words"), [("refused", "LookupError: no such device"), ("exits", "had enough")]
)
def test_a_driver_that_refuses_is_quoted(
    monkeypatch: pytest.MonkeyPatch, channel: str, words: str
) -> None:
    monkeypatch.setitem(can.interfaces.BACKENDS, "nasty", (NastyBus.__module__, "NastyBus"))
    with pytest.raises(CanInitializationError, match=rf"nasty {channel}: .*{words}"):
        open_backend("nasty", parse_options("nasty", {"channel": channel}))


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(can.interfaces.BACKENDS, "vendor", ("no_such_vendor_library", "Bus"))
    with pytest.raises(CanInitializationError, match="no_such_vendor_library"):
        python_can.open(python_can.parse("vendor", {"channel": "0"}))


def test_a_channel_number_is_given_as_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(can.interfaces.BACKENDS, "nasty", (NastyBus.__module__, "NastyBus"))
    given: list[object] = []

    def make(channel: object, **_: object) -> can.BusABC:
        given.append(channel)
        return NastyBus(channel)

    monkeypatch.setattr(can, "Bus", make)
    for channel in ("3", "PCAN_USBBUS1", "0,1"):
        open_backend("nasty", parse_options("nasty", {"channel": channel})).close()
    assert given == [3, "PCAN_USBBUS1", "0,1"]


# ---------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    "frame",
    [
        Frame(NOW_NS, 0x7FF, 0, b"\x01\x02"),
        Frame(NOW_NS, 0x1FFFFFFF, EXTENDED, bytes(8)),
        Frame(NOW_NS, 1, REMOTE, 5),
        Frame(NOW_NS, 1, FD | 16 | 32, bytes(64)),
    ],
)
def test_messages_and_frames_are_the_same(frame: Frame) -> None:
    message = to_message(frame)
    message.timestamp = NOW_NS / clock.SECOND
    assert to_frame(message, NOW_NS + 1) == frame


def test_fd_data_that_no_wire_could_carry_is_filled_up() -> None:
    message = can.Message(is_fd=True, data=bytes(range(13)))
    assert to_frame(message, NOW_NS).data == bytes(range(13)) + bytes(3)


def test_an_error_frame_has_its_classes_as_identifier() -> None:
    message = can.Message(arbitration_id=0x1004, is_error_frame=True, is_extended_id=False)
    assert to_frame(message, NOW_NS).flags == ERROR


@pytest.mark.parametrize("stamp", [0.0, math.nan, math.inf, None, "noon", 12.5, 4e9])
def test_a_time_stamp_that_is_none_is_replaced(stamp: Any) -> None:
    message = can.Message(timestamp=0.0)
    message.timestamp = stamp
    assert to_frame(message, NOW_NS).timestamp_ns == NOW_NS


@pytest.mark.parametrize("attribute", ["arbitration_id", "data"])
@pytest.mark.parametrize("value", [None, "1", 1.0, [1]])
def test_attributes_of_the_wrong_type_are_named(attribute: str, value: object) -> None:
    message = can.Message()
    setattr(message, attribute, value)
    with pytest.raises(MessageError, match=attribute):
        to_frame(message, NOW_NS)


# ---------------------------------------------------------------------------------------- exchange


def test_an_exchange_is_bounded_and_counts_what_it_drops() -> None:
    exchange = Exchange("nasty x")
    for _ in range(MAX_FRAMES + 3):
        exchange.received([FRAME])
    assert exchange.dropped == 3
    assert len(exchange.take()) == MAX_FRAMES
    exchange.received([FRAME])
    assert len(exchange.take()) == 1
    exchange.close()


def test_what_the_driver_finishes_after_it_was_abandoned_is_nobodys() -> None:
    exchange = Exchange("nasty x")
    under_way, waiting = transmit(FRAME), transmit(FRAME)
    exchange.put([under_way, waiting])
    assert exchange.next_transmit() is under_way
    assert exchange.abandon() == [under_way, waiting]
    exchange.finished(under_way, "too late")
    assert under_way.failure is None
    assert exchange.take() == []
    assert exchange.room() == CAPACITY
    exchange.close()


def test_the_end_comes_after_what_was_received_and_stops_what_waits() -> None:
    exchange = Exchange("nasty x")
    exchange.received([FRAME])
    waiting = transmit(FRAME)
    exchange.put([waiting])
    exchange.lose("unplugged")
    exchange.lose("and again")
    assert exchange.next_transmit() is None, "nothing stale is sent"
    assert exchange.take() == [FRAME]
    for _ in range(2):
        with pytest.raises(AdapterGoneError, match="unplugged"):
            exchange.take()
    assert exchange.abandon() == [waiting]
    exchange.close()


# ----------------------------------------------------------------------------------- nasty drivers


def test_a_recv_that_blocks_holds_up_nothing_else(opened: Open) -> None:
    bus = NastyBus("x", recv="blocks")
    backend = opened(bus)
    sent = [transmit(FRAME) for _ in range(3 * CAPACITY)]
    sender = threading.Thread(target=send_all, args=(backend, sent))
    sender.start()
    assert ended(backend, len(sent)) == sent
    sender.join()
    assert {item.failure for item in sent} == {None}
    backend.filter(parse("123:7ff"))
    before_ns = clock.monotonic_ns()
    backend.close()
    assert clock.monotonic_ns() - before_ns < 10 * clock.SECOND, "the thread is left behind"


def test_a_send_that_blocks_fills_the_queue_and_holds_up_nothing_else(opened: Open) -> None:
    bus = NastyBus("x", send="blocks")
    backend = opened(bus)
    sent = [transmit(FRAME) for _ in range(CAPACITY)]
    backend.send(sent)
    assert backend.room("client") == 0
    bus.inbox.put(to_message(Frame(0, 0x200, 0, b"")))
    bus.inbox.queue[-1].is_rx = True
    [received] = ended(backend)
    assert isinstance(received, Frame)
    backend.close()
    assert list(backend.abandon()) == sent


def test_what_expires_behind_a_send_that_blocks_is_not_sent(opened: Open) -> None:
    bus = NastyBus("x", send="blocks")
    backend = opened(bus)
    first = transmit(FRAME)
    late = transmit(Frame(0, 0x300, 0, b""), expires_ns=clock.monotonic_ns() + 1)
    backend.send([first, late])
    bus.release.set()
    assert ended(backend, 3)[-1] is not None
    assert first.failure is None
    assert late.failure is not None
    assert late.failure.startswith("expired")
    assert bus.inbox.empty()


def test_a_send_that_raises_fails_its_frame_and_no_other(opened: Open) -> None:
    bus = NastyBus("x", send="raises")
    backend = opened(bus)
    failing, fine = transmit(FRAME), transmit(FRAME)
    backend.send([failing])
    assert ended(backend) == [failing]
    assert failing.failure == "send failed: KeyError: 256"
    bus.ways["send"] = "fine"
    backend.send([fine])
    assert fine in ended(backend, 2)
    assert fine.failure is None


def test_odd_exceptions_of_recv_are_counted_and_survived(opened: Open) -> None:
    bus = NastyBus("x", recv="raises")
    backend = opened(bus)
    backend.send([transmit(FRAME)])
    assert len(ended(backend, 2)) == 2
    assert backend.counters() == {"recv_failed": 4}


def test_odd_messages_are_counted_and_survived(opened: Open) -> None:
    bus = NastyBus("x", recv="odd")
    backend = opened(bus)
    backend.send([transmit(FRAME)])
    assert len(ended(backend, 2)) == 2
    assert backend.counters() == {"invalid_message": 6}


def test_a_driver_that_returns_early_keeps_no_processor_busy(opened: Open) -> None:
    bus = NastyBus("x", recv="early")
    backend = opened(bus)
    start_ns = clock.monotonic_ns()
    wait_until(lambda: clock.monotonic_ns() - start_ns > clock.SECOND // 2, "half a second")
    assert bus.calls < 200, "it pauses; without pauses it would be many thousands"
    backend.send([transmit(FRAME)])
    assert len(ended(backend, 2)) == 2


def test_an_unplugged_adapter_is_gone_at_once(opened: Open) -> None:
    bus = NastyBus("x")
    backend = opened(bus)
    bus.ways["recv"] = "dies"
    assert end_of(backend) == "nasty x is gone: recv failed: OSError: No such device"
    assert bus.calls < 1_000
    with pytest.raises(AdapterGoneError):
        backend.send([transmit(FRAME)])


def test_a_driver_that_does_nothing_but_fail_has_lost_its_adapter(opened: Open) -> None:
    bus = NastyBus("x", recv="fails")
    backend = opened(bus)
    assert "the driver reports an error" in end_of(backend)
    assert backend.counters()["recv_failed"] > 1, "not at the first time"


@pytest.mark.parametrize("way", ["blocks", "raises"])
def test_a_shutdown_that_goes_wrong_is_logged_and_left(
    opened: Open, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    backend = opened(NastyBus("x", shutdown=way))
    backend.close()
    assert {"blocks": "does not return", "raises": "OddError: not now"}[way] in caplog.text
    assert not is_readable_after_close(backend)


def is_readable_after_close(backend: Backend) -> bool:
    """Whether a closed backend still pretends to have something."""
    try:
        return is_readable(backend)
    except (OSError, ValueError):
        return False


# ----------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("-", None),
        ("s123:7ff", [(0x123, 0x7FF, False)]),
        ("x00000123:1fffffff", [(0x123, 0x1FFFFFFF, True)]),
        ("123:7ff", [(0x123, 0x7FF, False), (0x123, 0x7FF, True)]),
        ("00000123:1fffffff", [(0x123, 0x7FF, False), (0x123, 0x1FFFFFFF, True)]),
        ("!", [(0, 0, False), (0, 0, True)]),
        (",".join(f"s{number:03x}:7ff" for number in range(1, 40)), None),
    ],
)
def test_filters_as_drivers_know_them(
    text: str, expected: list[tuple[int, int, bool]] | None
) -> None:
    given = driver_filters(parse(text))
    told = None if given is None else [tuple(entry.values()) for entry in given]
    assert told == expected


def test_a_driver_that_filters_is_given_the_union(opened: Open) -> None:
    bus = FilteringBus("x")
    backend = opened(bus)
    backend.filter(parse("s123:7ff"))
    wait_until(lambda: len(bus.applied) == 2, "narrower, when it has time")
    backend.filter(parse("s123:7ff,s124:7ff"))
    assert len(bus.applied) == 3, "wider, before anyone relies on it"
    backend.filter(NOTHING)
    wait_until(lambda: bus.applied[-1] is None, "nothing cannot be said")


def test_a_driver_that_does_not_filter_is_not_asked_to(opened: Open) -> None:
    bus = NastyBus("x")
    backend = opened(bus)
    backend.filter(parse("s123:7ff"))
    calls = bus.calls
    wait_until(lambda: bus.calls > calls + 1, "another round")
    assert bus.filters is None


def test_a_driver_that_ignores_its_timeout_gets_no_filters_again(
    opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    bus = FilteringBus("x")
    backend = opened(bus)
    backend.filter(parse("s123:7ff"))
    wait_until(lambda: len(bus.applied) == 2, "it filters")
    bus.ways["recv"] = "blocks"
    calls = bus.calls
    wait_until(lambda: bus.calls > calls, "it blocks")
    backend.filter(EVERYTHING)
    assert "ignores its timeout" in caplog.text
    bus.release.set()
    wait_until(lambda: bus.applied[-1] is None, "it returns, and is told to pass everything")
    backend.filter(parse("s123:7ff"))
    applied, calls = len(bus.applied), bus.calls
    wait_until(lambda: bus.calls > calls + 1, "another round")
    assert len(bus.applied) == applied


def test_a_driver_that_fails_to_filter_passes_everything(opened: Open) -> None:
    bus = FilteringBus("x", filters="raises")
    backend = opened(bus)
    backend.filter(parse("s123:7ff"))
    wait_until(lambda: len(bus.applied) == 3, "everything instead")
    assert bus.applied[-1] is None
    assert backend.counters() == {"filters_failed": 1}
