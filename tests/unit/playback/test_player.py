"""A replay on a clock of its own: what is handed to channels, when, and until when it is kept."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from io import BytesIO
from types import SimpleNamespace
from typing import Final, NamedTuple, cast

import pytest

from canbroker.bus.channel_clock import ChannelClock
from canbroker.bus.sending import Timed
from canbroker.client import Bus
from canbroker.errors import CanInitializationError, CanOperationError
from canbroker.logs.timing import EvenTime, RecordedTime
from canbroker.model.filters import Filter, FilterSet
from canbroker.model.frame import Frame
from canbroker.playback.player import LEAD_NS, Choice, Player, Stop
from canbroker.playback.report import Progress
from canbroker.playback.route import Route, Target
from canbroker.playback.source import CandumpLog
from canbroker.playback.window import Window
from canbroker.system.clock import MICROSECOND, MILLISECOND, SECOND
from canbroker.wire.stream import StateEvent

#: When replays begin.
NOW: Final = 5_000 * SECOND


class Handed(NamedTuple):
    """Frames that a channel was given at ``at_ns``, to be sent at ``due_ns``."""

    channel: str
    at_ns: int
    due_ns: int
    identifiers: list[int]


class Bench:
    """Channels that take frames at once, on a clock that moves when the player waits."""

    def __init__(self, fd: bool = True) -> None:
        self.now_ns = NOW
        self.handed: list[Handed] = []
        self.event = threading.Event()
        self.stop_at_ns: int | None = None
        self.told: list[Progress] = []
        self.opening_takes_ns = 0
        self.discards: list[str] = []
        self.late_ns = 0
        self._fd = fd

    def now(self) -> int:
        return self.now_ns

    def open(self, channel: str) -> Bus:
        self.now_ns += self.opening_takes_ns
        return cast(Bus, Channel(self, channel, self._fd))

    def player(
        self,
        target: Target = None,
        timing: RecordedTime | EvenTime | None = None,
        choice: Choice | None = None,
    ) -> Player:
        return Player(
            Route(target),
            self.open,
            timing or RecordedTime(1),
            choice or Choice(),
            Waiting(self),
            self.told.append,
            now=self.now,
        )

    def dues(self) -> list[float]:
        """When each frame was due, in milliseconds after the first one."""
        first_ns = self.handed[0].due_ns
        return [
            (handed.due_ns - first_ns) / MILLISECOND
            for handed in self.handed
            for _ in handed.identifiers
        ]

    def identifiers(self, channel: str | None = None) -> list[int]:
        return [
            identifier
            for handed in self.handed
            if channel in {None, handed.channel}
            for identifier in handed.identifiers
        ]


class Waiting(Stop):
    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.event)
        self._bench = bench

    def wait(self, ns: int) -> None:
        self._bench.now_ns += ns
        if self._bench.stop_at_ns is not None and self._bench.now_ns >= self._bench.stop_at_ns:
            self._bench.event.set()


class Channel:
    """What the player needs of a bus."""

    def __init__(self, bench: Bench, name: str, fd: bool) -> None:
        self.name = name
        self.stats = SimpleNamespace(sent=0)
        self.transmitter = SimpleNamespace(on_taken=None, token=0)
        self._bench = bench
        state = StateEvent(state="active", monotonic_ns=1 * SECOND, wall_ns=101 * SECOND)
        watch = SimpleNamespace(clock=ChannelClock(is_ours=True), state=state)
        self._connection = SimpleNamespace(opening=SimpleNamespace(fd=fd), watch=watch)
        self._sending = self

    def send_timed(self, requests: list[Timed]) -> None:
        for frames, due_ns in requests:
            self._take(frames, due_ns)

    def _take(self, frames: Sequence[Frame], due_ns: int) -> None:
        bench = self._bench
        bench.handed.append(
            Handed(self.name, bench.now_ns, due_ns, [frame.arbitration_id for frame in frames])
        )
        self.transmitter.token += 1
        self.stats.sent += len(frames)
        assert not any(frame.timestamp_ns or frame.flags & 0xC0 for frame in frames)
        self._answer = (self.transmitter.token, due_ns + bench.late_ns + 100 * SECOND)

    def pending(self) -> int:
        if self.transmitter.token:
            self.transmitter.on_taken(*self._answer)
        return 0

    def flush(self, _: float) -> None:
        self.pending()

    def flush_tx_buffer(self) -> int:
        self._bench.discards.append(self.name)
        return 3

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


def log(*lines: str) -> CandumpLog:
    return CandumpLog(BytesIO("\n".join(lines).encode()), "a log")


def at(*seconds: float, interface: str = "can0") -> Iterable[str]:
    """Frames at these times, numbered from 0."""
    return (f"({at:.6f}) {interface} {number:03X}#" for number, at in enumerate(seconds))


def test_frames_are_handed_over_ahead_with_the_time_at_which_they_are_due() -> None:
    bench = Bench()
    times = [number * 0.01 for number in range(300)]
    with bench.player("x") as player:
        player.play(log(*at(*times)), 1)
    assert bench.identifiers() == list(range(300))
    assert bench.dues() == pytest.approx([at * 1e3 for at in times])
    leads = [handed.due_ns - handed.at_ns for handed in bench.handed]
    assert min(leads[10:]) >= LEAD_NS // 2
    assert max(leads) <= LEAD_NS
    assert len({handed.at_ns for handed in bench.handed}) < 80, "one wake-up is for several frames"


def test_what_is_due_within_a_frames_time_goes_out_together() -> None:
    bench = Bench()
    with bench.player("x") as player:
        player.play(log(*at(1.0, 1.00002, 1.00004, 1.0001)), 1)
    assert [handed.identifiers for handed in bench.handed] == [[0, 1, 2], [3]]
    assert bench.handed[1].due_ns - bench.handed[0].due_ns == 60 * MICROSECOND, "none is early"


def test_without_timing_frames_have_no_due_times() -> None:
    bench = Bench()
    with bench.player("x", RecordedTime(0)) as player:
        player.play(log(*at(*range(1000))), 1)
    assert bench.now_ns == NOW
    assert {handed.due_ns for handed in bench.handed} == {0}
    assert len(bench.handed) < 10
    assert bench.identifiers() == list(range(1000))
    assert player.report().late_p99 is None


def test_speed_gap_and_skipped_pauses() -> None:
    for timing, due in (
        (RecordedTime(2), [0, 500, 30500]),
        (RecordedTime(1, 2 * SECOND), [0, 1000, 3000]),
        (EvenTime(5 * MILLISECOND), [0, 5, 10]),
    ):
        bench = Bench()
        with bench.player("x", timing) as player:
            player.play(log(*at(10, 11, 71)), 1)
        assert bench.dues() == due


def test_where_time_steps_back_timing_starts_anew() -> None:
    bench = Bench()
    with bench.player("x") as player:
        player.play(log(*at(5000, 5001, 10, 10.5)), 1)
    assert bench.dues() == [0, 1000, 1000, 1500]


def test_a_log_is_repeated() -> None:
    bench = Bench()
    with bench.player("x") as player:
        player.play(log(*at(1, 1.5)), 3)
    assert bench.identifiers() == [0, 1] * 3
    assert bench.dues() == [0, 500, 501, 1001, 1002, 1502]


def test_frames_go_where_their_interface_is_mapped_to() -> None:
    lines = [*at(1, 2, interface="1"), *at(1, 2, interface="can2"), *at(3, interface="other")]
    bench = Bench()
    with bench.player({"1": "a", "can2": "b"}) as player:
        player.play(log(*lines), 1)
    assert bench.identifiers("a") == bench.identifiers("b") == [0, 1]
    assert {handed.channel for handed in bench.handed} == {"a", "b"}
    named = Bench()
    with named.player() as player:
        player.play(log(*lines), 1)
    assert {handed.channel for handed in named.handed} == {"1", "can2", "other"}


def test_an_interface_that_never_comes_is_named() -> None:
    bench = Bench()
    with (
        pytest.raises(CanInitializationError, match="a log has no interface 'can7'"),
        bench.player({"can7": "a"}) as player,
    ):
        player.play(log(*at(1)), 1)


def test_filters_and_a_window_leave_out_frames_and_keep_the_distances() -> None:
    bench = Bench()
    choice = Choice(FilterSet([Filter(0x000, 0x001)]), Window(2, 5))
    with bench.player("x", choice=choice) as player:
        player.play(log(*at(*range(10, 30))), 1)
    assert bench.identifiers() == [2, 4]
    assert bench.dues() == [0, 2000]
    assert bench.now_ns - NOW < 3 * SECOND, "what is before the window takes no time"


def test_what_cannot_be_sent_is_counted_in_one_reading() -> None:
    lines = [
        "(1.0) can0 001#",
        "(1.0) can0 20000004#0004000000000000",
        "(1.0) can0 002##111",
        "(1.0) can0 003##111",
    ]
    bench = Bench(fd=False)
    with bench.player("x") as player:
        player.play(log(*lines), 2)
    assert bench.identifiers() == [1, 1]
    assert player.report().lines() == [
        "1 error frames are not sent",
        "2 CAN FD frames to channel 'x', which is open without CAN FD, are not sent",
    ]
    able = Bench()
    with able.player("x") as player:
        player.play(log(*lines), 1)
    assert able.identifiers() == [1, 2, 3]


def test_time_stands_still_while_a_channel_is_opened() -> None:
    bench = Bench()
    bench.opening_takes_ns = 7 * SECOND
    with bench.player() as player:
        player.play(log("(1.0) a 000#", "(2.0) a 001#", "(2.5) b 002#"), 1)
    assert bench.dues() == [0, 1000, 8500]


def test_a_stopped_replay_takes_back_what_is_waiting() -> None:
    bench = Bench()
    bench.stop_at_ns = NOW + 2 * SECOND
    with bench.player({"can0": "a", "can1": "b"}) as player:
        player.play(log(*at(*range(100)), *at(*range(100), interface="can1")), None)
    assert bench.now_ns <= NOW + 2 * SECOND + LEAD_NS
    assert sorted(bench.discards) == ["a", "b"]
    report = player.report()
    assert (report.stopped, report.taken_back) == (True, 6)
    assert report.sent == len(bench.identifiers())


def test_an_interrupted_replay_takes_back_what_is_waiting() -> None:
    bench = Bench()
    with pytest.raises(KeyboardInterrupt), bench.player("x") as player:  # noqa: PT012
        player.play(log(*at(1, 2)), 1)
        raise KeyboardInterrupt
    assert bench.discards == ["x"]
    [line] = player.report().lines()
    assert line.startswith("stopped after")
    assert "2 frames were sent" in line
    assert line.endswith("3 that were waiting were taken back")


def test_a_failure_takes_back_what_is_waiting_and_is_no_stop() -> None:
    bench = Bench()
    with pytest.raises(CanOperationError), bench.player("x") as player:  # noqa: PT012
        player.play(log(*at(1, 2)), 1)
        raise CanOperationError("unplugged")
    assert bench.discards == ["x"]
    assert not player.report().lines()


def test_progress_tells_the_place_in_the_log_and_how_late_frames_are() -> None:
    bench = Bench()
    bench.late_ns = 300 * MICROSECOND
    with bench.player("x") as player:
        player.play(log(*at(*range(10))), 1)
    positions = [told.position for told in bench.told]
    assert positions == sorted(positions)
    assert positions[-1] == 9
    assert bench.told[-1].sent == 10
    assert bench.told[-1].late == pytest.approx(300e-6)
    assert player.report().late_p50 == pytest.approx(300e-6, abs=10e-6)
    assert player.report().late_max == pytest.approx(300e-6, abs=10e-6)
