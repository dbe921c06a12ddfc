"""The contract of a backend, once for all of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from canbroker.backends.base import AdapterGoneError, Backend, Transmit
from canbroker.errors import CanInitializationError
from canbroker.model.filters import EVERYTHING, NOTHING, parse
from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    HARDWARE_TIMESTAMP,
    REMOTE,
    Frame,
    describe,
)
from canbroker.system import clock
from tests.support.benches import (
    Bench,
    Item,
    VirtualBench,
    collect,
    content,
    is_readable,
    send_all,
    transmit,
    wait_until,
)
from tests.support.systems import counts_descriptors, open_descriptors

KINDS = {
    "standard": Frame(0, 0x7FF, 0, b"\x01\x02\x03\x04\x05\x06\x07\xff"),
    "empty": Frame(0, 0, 0, b""),
    "extended": Frame(0, 0x1ABCDEF0, EXTENDED, b"\x00\x0d\x07"),
    "extended-low": Frame(0, 0x12, EXTENDED, b"\x55"),
    "remote": Frame(0, 0x123, REMOTE, 5),
    "remote-empty": Frame(0, 0x123, REMOTE, 0),
    "remote-extended": Frame(0, 0x12345678, REMOTE | EXTENDED, 8),
    "fd": Frame(0, 0x456, FD, bytes(range(12))),
    "fd-short": Frame(0, 0x456, FD, b"\x01"),
    "fd-extended": Frame(0, 0x1FFFFFFF, FD | EXTENDED, bytes(range(64))),
    "bitrate-switch": Frame(0, 0x100, FD | BITRATE_SWITCH, bytes(range(100, 148))),
    "bitrate-switch-extended": Frame(0, 0x100, FD | BITRATE_SWITCH | EXTENDED, b""),
}


def numbered(count: int, arbitration_id: int = 0x100) -> list[Frame]:
    return [Frame(0, arbitration_id, 0, number.to_bytes(8, "big")) for number in range(count)]


def returned(items: Sequence[Item], origin: str = "client") -> list[Transmit]:
    return [item for item in items if isinstance(item, Transmit) and item.origin == origin]


def exchange(backend: Backend, transmits: Sequence[Transmit]) -> list[Transmit]:
    """Sends beside the reader, as the actor does; what came back, in order."""
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send_all, backend, transmits)
        items = collect(backend, lambda items: len(returned(items)) >= len(transmits))
        sending.result()
    return returned(items)


def send_one_by_one(backend: Backend, transmits: Sequence[Transmit]) -> None:
    for item in transmits:
        send_all(backend, [item])


def receive(bench: Bench, count: int) -> list[Frame]:
    items = collect(bench.backend, lambda items: len(bench.arrived(items)) >= count)
    return bench.arrived(items)


# ------------------------------------------------------------------------------------ round trips


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_that_another_node_sends_is_read_as_it_was(bench: Bench, kind: str) -> None:
    if not bench.carries(KINDS[kind]):
        return
    bench.inject([KINDS[kind]])
    assert [content(frame) for frame in receive(bench, 1)] == [content(KINDS[kind])]


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_that_is_sent_reaches_the_other_node(bench: Bench, kind: str) -> None:
    sent = transmit(KINDS[kind])
    if not bench.carries(sent.frame):
        assert bench.backend.fault(sent.frame), "it is refused"
        return
    assert bench.backend.fault(sent.frame) is None
    assert exchange(bench.backend, [sent]) == [sent]
    assert sent.failure is None
    assert content(sent.frame) == content(KINDS[kind]), "a backend leaves the frame as it is"
    if bench.seen() is not None:
        wait_until(lambda: bench.seen() == [describe(KINDS[kind])], "the frame on the bus")


def test_the_time_of_a_frame_is_its_senders_on_virtual_channels_only(bench: Bench) -> None:
    fault = bench.backend.fault(Frame(17, 0x123, HARDWARE_TIMESTAMP, b""))
    if isinstance(bench, VirtualBench):
        assert fault is None
    else:
        assert fault == "only virtual channels keep the timestamp of a sent frame"


def test_the_error_state_indicator_is_carried_where_the_line_has_it(bench: Bench) -> None:
    frame = Frame(0, 0x1, FD | ERROR_STATE_INDICATOR, b"\x01")
    if not bench.carries(frame):
        return
    bench.inject([frame])
    [received] = receive(bench, 1)
    assert bool(received.flags & ERROR_STATE_INDICATOR) == bench.carries_error_state


# ------------------------------------------------------------------------------- order and silence


def test_nothing_is_read_where_nothing_happens(bench: Bench) -> None:
    assert bench.backend.read() == []
    assert not is_readable(bench.backend)
    due_ns = bench.backend.due_ns()
    assert due_ns is None or due_ns > clock.monotonic_ns() + clock.SECOND, (
        "nor is anything due soon"
    )


def test_after_traffic_there_is_silence_again(bench: Bench) -> None:
    bench.inject(numbered(3))
    receive(bench, 3)
    assert exchange(bench.backend, [transmit(frame) for frame in numbered(3)])
    wait_until(lambda: not bench.backend.read() and not is_readable(bench.backend), "silence")


def test_the_descriptor_or_the_due_time_announces_what_happened(bench: Bench) -> None:
    """``collect`` waits by them alone; a backend that forgot both would time out here."""
    for frame in numbered(20):
        sent = transmit(frame)
        bench.backend.send([sent])
        assert sent in collect(bench.backend, bool)


def test_every_transmit_comes_back_once_and_in_order(bench: Bench) -> None:
    sent = [transmit(frame) for frame in numbered(300)]
    assert exchange(bench.backend, sent) == sent
    assert {item.failure for item in sent} == {None}
    assert returned(bench.backend.read()) == []
    if bench.seen() is not None:
        wait_until(
            lambda: bench.seen() == [describe(item.frame) for item in sent], "all on the bus"
        )


def test_frames_of_another_node_arrive_in_order(bench: Bench) -> None:
    frames = numbered(300)
    with ThreadPoolExecutor(1) as pool:
        injecting = pool.submit(bench.inject, frames)
        received = receive(bench, len(frames))
        injecting.result()
    assert [content(frame) for frame in received] == [content(frame) for frame in frames]


def test_each_client_keeps_its_order_beside_others(bench: Bench) -> None:
    sent = {name: [transmit(frame, name) for frame in numbered(50)] for name in ("a", "b")}
    mixed = [item for pair in zip(sent["a"], sent["b"], strict=True) for item in pair]
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send_one_by_one, bench.backend, mixed)
        items = collect(bench.backend, lambda items: len(items) >= len(mixed))
        sending.result()
    assert returned(items, "a") == sent["a"]
    assert returned(items, "b") == sent["b"]


def test_timestamps_are_wall_clock_and_never_go_back(bench: Bench) -> None:
    before_ns = clock.wall_ns()
    with ThreadPoolExecutor(1) as pool:
        injecting = pool.submit(bench.inject, numbered(50))
        received = receive(bench, 50)
        injecting.result()
    sent = exchange(bench.backend, [transmit(frame) for frame in numbered(50)])
    after_ns = clock.wall_ns()
    received_ns = [frame.timestamp_ns for frame in received]
    sent_ns = [item.timestamp_ns for item in sent]
    if bench.seen() is None:  # the other node's frames are transmits: their time is in those
        received_ns = []
    for times_ns in (received_ns, sent_ns):
        assert all(earlier <= later for earlier, later in pairwise(times_ns))
        for time_ns in times_ns:  # an adapter's clock counts whole milliseconds
            assert before_ns - clock.SECOND <= time_ns <= after_ns + clock.SECOND


def test_sending_and_receiving_at_the_same_time_loses_nothing(bench: Bench) -> None:
    sent = [transmit(frame) for frame in numbered(1_000, 0x100)]
    frames = numbered(1_000, 0x200)
    with ThreadPoolExecutor(2) as pool:
        sending = pool.submit(send_all, bench.backend, sent)
        injecting = pool.submit(bench.inject, frames)
        items = collect(
            bench.backend,
            lambda items: len(returned(items)) + len(bench.arrived(items)) >= 2_000,
        )
        sending.result()
        injecting.result()
    assert returned(items) == sent
    assert {item.failure for item in sent} == {None}
    assert list(map(content, bench.arrived(items))) == list(map(content, frames))


# -------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (Frame(0, 0x800, 0, b""), "11 bits"),
        (Frame(0, 0x20000000, EXTENDED, b""), "29 bits"),
        (Frame(0, 1, 0, bytes(9)), "9 bytes"),
        (Frame(0, 1, FD, bytes(9)), "9 bytes"),
        (Frame(0, 1, FD, bytes(65)), "65 bytes"),
        (Frame(0, 1, REMOTE, 9), "0 to 8"),
        (Frame(0, 1, REMOTE | FD, 1), "remote"),
        (Frame(0, 1, BITRATE_SWITCH, b""), "FD"),
    ],
)
def test_a_frame_that_no_controller_could_send_is_a_fault(
    bench: Bench, frame: Frame, words: str
) -> None:
    fault = bench.backend.fault(frame)
    assert fault is not None
    assert (words if bench.carries_fd or not frame.flags & FD else "fd=True") in fault


def test_an_fd_frame_is_a_fault_where_fd_was_not_asked_for(bench: Bench) -> None:
    backend = bench.reopen(**({"fd": False, "data_bitrate": None} if bench.carries_fd else {}))
    assert not backend.fd
    assert "fd" in (backend.fault(KINDS["fd"]) or "")
    assert backend.fault(KINDS["standard"]) is None


def test_a_listen_only_channel_sends_nothing(bench: Bench) -> None:
    if not bench.has_listen_only:
        with pytest.raises(CanInitializationError, match=r"listen[-_]only"):
            bench.reopen(listen_only=True)
        return
    backend = bench.reopen(listen_only=True)
    assert backend.listen_only
    assert "listen-only" in (backend.fault(KINDS["standard"]) or "")
    bench.inject([KINDS["standard"]])
    assert len(receive(bench, 1)) == 1, "but it receives"


def test_what_has_expired_comes_back_and_tells_the_truth(bench: Bench) -> None:
    """Failed and not sent where frames wait in the backend. One that the adapter takes at once
    may have been sent: it is the actor that hands nothing expired over."""
    doomed = transmit(KINDS["standard"], expires_ns=clock.monotonic_ns() - 1)
    sent = transmit(KINDS["extended"])
    assert exchange(bench.backend, [doomed, sent]) == [doomed, sent]
    assert sent.failure is None
    assert doomed.failure is None or doomed.failure.startswith("expired")
    on_the_bus = [describe(item.frame) for item in (doomed, sent) if item.failure is None]
    if bench.seen() is not None:
        wait_until(lambda: bench.seen() == on_the_bus, "what was sent, and nothing else")


def test_filters_are_a_hint_that_loses_nothing_wanted(bench: Bench) -> None:
    wanted, other = Frame(0, 0x123, 0, b"\x01"), Frame(0, 0x124, 0, b"\x02")
    for filters in (NOTHING, EVERYTHING, parse("s123:7ff")):
        bench.backend.filter(filters)
    bench.inject([other, wanted])
    items = collect(
        bench.backend,
        lambda items: content(wanted) in map(content, bench.arrived(items)),
    )
    assert len(bench.arrived(items)) <= 2


# ------------------------------------------------------------------------------ opening and closing


def test_an_open_backend_says_what_it_is(bench: Bench) -> None:
    assert bench.backend.info
    assert bench.backend.fd == bench.carries_fd
    assert bench.backend.dropped == 0
    assert sum(bench.backend.counters().values()) == 0


def test_close_may_be_called_again_and_from_any_thread(bench: Bench) -> None:
    threads = [threading.Thread(target=bench.backend.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.backend.close()


def test_sending_after_close_raises_and_gives_the_frames_back(bench: Bench) -> None:
    bench.backend.close()
    sent = [transmit(frame) for frame in numbered(3)]
    with pytest.raises(AdapterGoneError):
        bench.backend.send(sent)
    assert list(bench.backend.abandon()) == sent


def test_what_never_came_back_is_abandoned(bench: Bench) -> None:
    room = min(bench.backend.room("client"), 100)
    assert room > 0
    sent = [transmit(frame) for frame in numbered(room)]
    bench.backend.send(sent)
    came_back = returned(bench.backend.read())
    bench.backend.close()
    assert came_back + list(bench.backend.abandon()) == sent
    assert list(bench.backend.abandon()) == []


def test_room_comes_back_when_frames_do(bench: Bench) -> None:
    room = bench.backend.room("client")
    sent = [transmit(frame) for frame in numbered(room)]
    bench.backend.send(sent)
    assert bench.backend.room("client") < room
    collect(bench.backend, lambda items: len(returned(items)) >= room)
    wait_until(lambda: bench.backend.room("client") == room, "room for as many again")


@counts_descriptors
def test_opening_and_closing_leaks_no_descriptor(bench: Bench) -> None:
    bench.reopen()  # what a library opens once and keeps is open now
    bench.backend.close()
    closed = len(open_descriptors())
    for _ in range(3):
        bench.reopen()
        bench.backend.close()
    assert len(open_descriptors()) == closed


def test_a_failed_open_names_the_trouble_and_leaks_no_descriptor(bench: Bench) -> None:
    before = len(open_descriptors())
    for parameters, words in bench.unusable:
        for _ in range(3):
            with pytest.raises(CanInitializationError, match=words):
                bench.open(**parameters)
    assert len(open_descriptors()) == before
