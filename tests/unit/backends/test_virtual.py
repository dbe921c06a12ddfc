"""The virtual bus: its options, and the course of a bus with bit rates in virtual time."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.backends import open_backend, parse_options, virtual
from canbroker.backends.base import AdapterGoneError, Options, Transmit
from canbroker.backends.virtual import (
    CAPACITY,
    QUEUE_DEPTH,
    InstantBus,
    TimedBus,
    Timeline,
    VirtualOptions,
)
from canbroker.errors import CanInitializationError
from canbroker.model.bus_time import bus_time_ns
from canbroker.model.frame import BITRATE_SWITCH, EXTENDED, FD, HARDWARE_TIMESTAMP, REMOTE, Frame
from canbroker.system import clock

BITRATE = 500_000


def transmit(  # one frame of a client, 8 bytes long unless told otherwise
    arbitration_id: int = 0x123,
    origin: str = "a",
    queued_ns: int = 0,
    *,
    flags: int = 0,
    data: bytes | int = bytes(8),
    expires_ns: int = 0,
) -> Transmit:
    frame = Frame(0, arbitration_id, flags, data)
    return Transmit(frame, origin, None, queued_ns, expires_ns)


def finish(timeline: Timeline) -> list[tuple[int, Transmit]]:
    """Lets a timeline run until it is idle."""
    ended = []
    while (due_ns := timeline.due_ns()) is not None:
        ended += timeline.step(due_ns)
    return ended


def identifiers(ended: list[tuple[int, Transmit]]) -> list[int]:
    return [item.frame.arbitration_id for _, item in ended]


# ---------------------------------------------------------------------------------------- options


def test_the_options_choose_the_kind_of_bus() -> None:
    instant = open_backend("virtual", parse_options("virtual", {"channel": "x"}))
    timed = open_backend(
        "virtual",
        parse_options("virtual", {"channel": "x", "bitrate": 250_000, "data_bitrate": 2_000_000}),
    )
    try:
        assert isinstance(instant, InstantBus)
        assert (instant.bitrate, instant.data_bitrate, instant.fd) == (None, None, True)
        assert isinstance(timed, TimedBus)
        assert (timed.bitrate, timed.data_bitrate, timed.fd) == (250_000, 2_000_000, True)
        assert "250000" in timed.info
        assert "2000000" in timed.info
    finally:
        instant.close()
        timed.close()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"channel": ""}, "channel must not be empty"),
        ({"bitrate": 999}, "bitrate must be 1000 to 1000000"),
        ({"bitrate": 1_000_001}, "bitrate must be 1000 to 1000000"),
        ({"bitrate": "500000"}, "bitrate"),
        ({"data_bitrate": 2_000_000}, "data_bitrate needs a bitrate"),
        ({"bitrate": BITRATE, "data_bitrate": 2_000_000, "fd": False}, "data_bitrate needs fd"),
        ({"bitrate": BITRATE, "data_bitrate": 8_000_001}, "data_bitrate must be 500000 "),
        ({"bitrate": BITRATE, "data_bitrate": 250_000}, "data_bitrate must be 500000 "),
        ({"bit_rate": BITRATE}, "no parameter 'bit_rate'"),
    ],
)
def test_bad_options_are_refused_by_name(parameters: dict[str, object], words: str) -> None:
    with pytest.raises(CanInitializationError, match=words):
        parse_options("virtual", {"channel": "x"} | parameters)


@pytest.mark.parametrize("bitrate", [None, BITRATE])
def test_a_frame_with_the_time_of_its_sender_keeps_it(bitrate: int | None) -> None:
    bus = open_backend("virtual", parse_options("virtual", {"channel": "x", "bitrate": bitrate}))
    before_ns = clock.wall_ns()
    stamped, plain = (
        Transmit(Frame(17, 0x123, flags, b""), "a", None, clock.monotonic_ns())
        for flags in (HARDWARE_TIMESTAMP, 0)
    )
    assert bus.fault(stamped.frame) is None
    ended: list[Transmit] = []
    try:
        bus.send([stamped, plain])
        while len(ended) < 2:
            ended += [item for item in bus.read() if isinstance(item, Transmit)]
    finally:
        bus.close()
    assert ended == [stamped, plain]
    assert stamped.timestamp_ns == 17
    assert plain.timestamp_ns >= before_ns


def test_open_refuses_the_options_of_another_backend() -> None:
    with pytest.raises(TypeError, match="VirtualOptions"):
        virtual.open(Options(channel="x"))


# --------------------------------------------------------------------------------------- timeline


def test_a_frame_ends_after_exactly_its_bits() -> None:
    timeline = Timeline(BITRATE)
    sent = transmit(0x555, queued_ns=1_000, data=b"\x55" * 8)
    timeline.put(sent)
    # 47 bits of frame and intermission, 64 of data; these data need no stuff bit, the CRC few.
    end_ns = 1_000 + bus_time_ns(sent.frame, BITRATE)
    assert end_ns >= 1_000 + (47 + 64) * 2_000
    assert timeline.step(1_000) == []
    assert timeline.due_ns() == end_ns
    assert timeline.step(end_ns - 1) == []
    assert timeline.step(end_ns) == [(end_ns, sent)]
    assert timeline.due_ns() is None


def test_the_data_phase_of_a_frame_that_switches_takes_the_data_bitrate() -> None:
    def duration(flags: int, data_bitrate: int | None) -> int:
        timeline = Timeline(BITRATE, data_bitrate)
        timeline.put(transmit(flags=flags, data=bytes(64)))
        [(end_ns, _)] = finish(timeline)
        return end_ns

    fast = duration(FD | BITRATE_SWITCH, 2_000_000)
    assert duration(FD, 2_000_000) > 2 * fast
    assert duration(FD | BITRATE_SWITCH, None) > 2 * fast


def test_the_lowest_identifier_of_those_that_wait_wins() -> None:
    timeline = Timeline(BITRATE)
    timeline.put(transmit(0x700, "first"))
    timeline.step(0)  # the bus was idle: on the wire, whatever comes later
    timeline.put(transmit(0x300, "a", 10))
    timeline.put(transmit(0x100, "b", 30))
    timeline.put(transmit(0x200, "c", 20))
    assert identifiers(finish(timeline)) == [0x700, 0x100, 0x200, 0x300]


def test_formats_compete_as_their_bits_do() -> None:
    timeline = Timeline(BITRATE)
    timeline.put(transmit(0x123 << 18, "extended", flags=EXTENDED))
    timeline.put(transmit(0x123, "remote", flags=REMOTE, data=8))
    timeline.put(transmit(0x123, "data"))
    assert [item.origin for _, item in finish(timeline)] == ["data", "remote", "extended"]


def test_a_client_keeps_its_order_whatever_its_identifiers() -> None:
    timeline = Timeline(BITRATE)
    for arbitration_id in (0x700, 0x001, 0x400):
        timeline.put(transmit(arbitration_id, "a"))
    timeline.put(transmit(0x500, "b"))
    assert identifiers(finish(timeline)) == [0x500, 0x700, 0x001, 0x400]


def test_a_tie_goes_to_the_frame_that_was_queued_earlier() -> None:
    timeline = Timeline(BITRATE)
    timeline.put(transmit(0, "first"))
    timeline.step(0)
    timeline.put(transmit(0x100, "late", 20))
    timeline.put(transmit(0x100, "early", 10))
    assert [item.origin for _, item in finish(timeline)] == ["first", "early", "late"]


def test_a_frame_that_was_not_queued_yet_does_not_compete() -> None:
    """A late step decides as one in time would have."""
    timeline = Timeline(BITRATE)
    timeline.put(transmit(0x100, "late", queued_ns=1))
    timeline.put(transmit(0x700, "early", queued_ns=0))
    assert identifiers(timeline.step(clock.SECOND)) == [0x700, 0x100]


def test_an_idle_bus_starts_when_a_frame_is_queued() -> None:
    timeline = Timeline(BITRATE)
    timeline.put(transmit())
    [(first_ns, _)] = timeline.step(clock.SECOND)
    timeline.put(transmit(queued_ns=5 * clock.SECOND))
    [(second_ns, _)] = finish(timeline)
    assert second_ns == 5 * clock.SECOND + first_ns


def test_what_expires_before_it_starts_comes_back_failed() -> None:
    timeline = Timeline(BITRATE)
    first, doomed, last = transmit(), transmit(expires_ns=clock.MILLISECOND // 10), transmit()
    for item in (first, doomed, last):
        timeline.put(item)
    ended = finish(timeline)
    assert [item for _, item in ended] == [first, doomed, last]
    assert (first.failure, last.failure) == (None, None)
    assert doomed.failure is not None
    assert doomed.failure.startswith("expired")
    assert ended[1][0] == ended[0][0], "a frame that failed takes no time on the bus"


def test_an_expired_frame_fails_although_better_ones_never_let_it_win() -> None:
    timeline = Timeline(BITRATE)
    for _ in range(QUEUE_DEPTH):
        timeline.put(transmit(0, "greedy"))
    starved = transmit(0x7FF, "starved", expires_ns=clock.MILLISECOND)
    timeline.put(starved)
    assert finish(timeline)[-1][1] is not starved
    assert starved.failure is not None


def test_a_frame_that_has_started_no_longer_expires() -> None:
    timeline = Timeline(BITRATE)
    sent = transmit(expires_ns=1)
    timeline.put(sent)
    assert len(timeline.step(clock.SECOND)) == 1
    assert sent.failure is None


def test_each_client_has_room_of_its_own() -> None:
    timeline = Timeline(BITRATE)
    for _ in range(QUEUE_DEPTH):
        timeline.put(transmit(origin="full"))
    assert timeline.room("full") == 0
    assert timeline.room("other") == QUEUE_DEPTH
    timeline.step(0)  # one has started
    assert timeline.room("full") == 1


def test_drain_gives_back_what_has_not_ended() -> None:
    timeline = Timeline(BITRATE)
    on_wire, late, early = transmit(0x700), transmit(0, "b", 20), transmit(1, "c", 10)
    timeline.put(on_wire)
    timeline.step(0)
    timeline.put(late)
    timeline.put(early)
    assert timeline.drain() == [on_wire, early, late]
    assert timeline.drain() == []
    assert timeline.due_ns() is None


queued = st.lists(
    st.builds(
        transmit,
        st.integers(0, 0x7FF),
        st.sampled_from("abc"),
        st.integers(0, 2 * clock.MILLISECOND),
        expires_ns=st.one_of(st.just(0), st.integers(1, 3 * clock.MILLISECOND)),
    ),
    max_size=30,
)


@given(queued, st.integers())
def test_how_often_it_is_stepped_changes_nothing(items: list[Transmit], seed: int) -> None:
    end_ns = clock.SECOND
    choice = random.Random(seed)
    at_once, in_steps = Timeline(BITRATE), Timeline(BITRATE)
    for item in sorted(items, key=lambda item: item.queued_ns):
        at_once.put(item)
        in_steps.put(item)
    expected = at_once.step(end_ns)
    assert sorted(map(id, items)) == sorted(id(item) for _, item in expected), "each comes back"
    stepped = []
    for now_ns in sorted(choice.randrange(4 * clock.MILLISECOND) for _ in range(20)):
        stepped += in_steps.step(now_ns)
    assert stepped + in_steps.step(end_ns) == expected


@given(queued)
def test_frames_never_overlap_on_the_bus(items: list[Transmit]) -> None:
    timeline = Timeline(BITRATE)
    for item in sorted(items, key=lambda item: item.queued_ns):
        timeline.put(item)
    sent = [(end_ns, item) for end_ns, item in timeline.step(clock.SECOND) if not item.failure]
    for end_ns, item in sent:
        assert end_ns - bus_time_ns(item.frame, BITRATE) >= item.queued_ns
    for (before_ns, _), (end_ns, item) in pairwise(sent):
        assert end_ns - bus_time_ns(item.frame, BITRATE) >= before_ns


# -------------------------------------------------------------------------------------- the buses


def test_a_bus_without_a_bitrate_bounds_what_it_holds() -> None:
    bus = virtual.open(VirtualOptions(channel="x"))
    try:
        assert bus.room("a") == CAPACITY
        bus.send([transmit(origin="a") for _ in range(100)])
        assert bus.room("b") == CAPACITY - 100, "the room is shared"
        assert len(bus.read()) == 100
        assert bus.room("a") == CAPACITY
    finally:
        bus.close()


@pytest.mark.parametrize("bitrate", [None, BITRATE])
def test_a_bus_does_not_send_what_has_expired(bitrate: int | None) -> None:
    bus = virtual.open(VirtualOptions(channel="x", bitrate=bitrate))
    now_ns = clock.monotonic_ns()
    doomed = transmit(queued_ns=now_ns, expires_ns=now_ns)
    try:
        bus.send([doomed])
        assert bus.read() == [doomed]
    finally:
        bus.close()
    assert doomed.failure is not None
    assert doomed.failure.startswith("expired")
    assert doomed.timestamp_ns == 0


def test_timestamps_of_a_timed_bus_are_as_far_apart_as_the_frames() -> None:
    bus = virtual.open(VirtualOptions(channel="x", bitrate=BITRATE))
    now_ns = clock.monotonic_ns()
    sent = [transmit(queued_ns=now_ns - clock.SECOND) for _ in range(3)]  # long over
    try:
        bus.send(sent)
        assert bus.read() == sent
    finally:
        bus.close()
    step_ns = bus_time_ns(sent[0].frame, BITRATE)
    assert [b.timestamp_ns - a.timestamp_ns for a, b in pairwise(sent)] == [step_ns, step_ns]


def test_timestamps_follow_a_wall_clock_that_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = virtual.open(VirtualOptions(channel="x", bitrate=BITRATE))
    hour_ns = 3_600 * clock.SECOND
    before_ns = clock.wall_ns()
    true_wall_ns = clock.wall_ns
    monkeypatch.setattr(clock, "wall_ns", lambda: true_wall_ns() + hour_ns)
    sent = transmit(queued_ns=clock.monotonic_ns() - clock.SECOND)
    try:
        bus.send([sent])
        bus.read()
    finally:
        bus.close()
    assert sent.timestamp_ns - before_ns > hour_ns - 2 * clock.SECOND


def test_repr_and_errors_name_the_bus() -> None:
    bus = virtual.open(VirtualOptions(channel="bench", bitrate=BITRATE))
    assert repr(bus) == "<TimedBus virtual bus bench, 500000 bit/s>"
    bus.close()
    assert repr(bus).endswith(" closed>")
    with pytest.raises(AdapterGoneError, match="virtual bus bench"):
        bus.read()


# ------------------------------------------------------------------------------- told together

MILLIS = clock.MILLISECOND


class Timed:
    """A bus with a bitrate, and a time that only the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **parameters: object) -> None:
        self.now = 1_000 * clock.SECOND
        monkeypatch.setattr(clock, "monotonic_ns", lambda: self.now)
        options = parse_options("virtual", {"channel": "x", "bitrate": BITRATE} | parameters)
        self.bus = open_backend("virtual", options)

    def send(self, *origins: str) -> None:
        self.bus.send([transmit(0x123, origin, self.now) for origin in origins])
        self.bus.read()

    def reads(self, frames: int) -> list[int]:
        """Frames of each read, when one is due."""
        counts: list[int] = []
        while sum(counts) < frames:
            due_ns = self.bus.due_ns()
            assert due_ns is not None
            assert due_ns > self.now
            self.now = due_ns
            counts.append(len(self.bus.read()))
        return counts

    @property
    def wait_ns(self) -> int:
        due_ns = self.bus.due_ns()
        assert due_ns is not None
        return due_ns - self.now


FRAME_NS = bus_time_ns(transmit().frame, BITRATE)


def test_frames_in_quick_succession_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Timed(monkeypatch, coalesce_us=1_000)
    timed.send(*["a"] * 20)
    counts = timed.reads(20)
    assert max(counts) == MILLIS // FRAME_NS
    assert len(counts) <= 20 * FRAME_NS // MILLIS + 1
    timed.bus.close()


def test_a_frame_without_another_one_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Timed(monkeypatch)
    timed.send("a")
    assert timed.wait_ns == FRAME_NS
    timed.bus.close()


def test_a_frame_that_may_be_awaited_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client has sent no other one: it may wait for an answer."""
    timed = Timed(monkeypatch)
    timed.send("a", "b", "b", "b")
    assert timed.wait_ns == clock.MILLISECOND // 2
    timed.reads(1)
    assert timed.wait_ns == 2 * MILLIS, "that client has more to send"
    timed.bus.close()


def test_0_tells_each_frame_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Timed(monkeypatch, coalesce_us=0)
    timed.send(*["a"] * 10)
    assert timed.reads(10) == [1] * 10
    timed.bus.close()
