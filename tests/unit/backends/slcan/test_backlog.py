"""The estimate of an adapter's transmit queue."""

from __future__ import annotations

from canbroker.backends.slcan.backlog import Backlog
from canbroker.model.bus_time import nominal_time_ns
from canbroker.model.frame import Frame

FRAME = Frame(0, 0x123, 0, bytes(8))
FRAME_NS = int(1.25 * nominal_time_ns(FRAME, 500_000))


def test_a_burst_makes_it_deep_and_time_makes_it_shallow() -> None:
    backlog = Backlog(500_000, None, 8)
    assert not backlog.deep(0)
    for _ in range(8):
        backlog.sent(FRAME, 0)
    assert not backlog.deep(0)
    backlog.sent(FRAME, 0)
    assert backlog.deep(0)
    assert backlog.shallow_ns() == FRAME_NS
    assert not backlog.deep(FRAME_NS)


def test_other_nodes_frames_hold_ours_back() -> None:
    backlog = Backlog(500_000, None, 8)
    for _ in range(9):
        backlog.sent(FRAME, 0)
    backlog.received(FRAME, 0)
    assert backlog.shallow_ns() == 2 * FRAME_NS


def test_an_idle_adapter_is_not_held_back_by_what_it_receives() -> None:
    backlog = Backlog(500_000, None, 8)
    for now in range(100):
        backlog.received(FRAME, now)
    assert not backlog.deep(100)


def test_it_is_never_longer_than_the_longest_queue() -> None:
    backlog = Backlog(500_000, None, 8)
    for _ in range(10_000):
        backlog.sent(FRAME, 0)
    assert backlog.shallow_ns() <= 65 * FRAME_NS


def test_without_a_bitrate_one_at_a_time_is_all_that_is_safe() -> None:
    backlog = Backlog(None, None, 8)
    assert backlog.deep(0)
    backlog.sent(FRAME, 0)
    assert backlog.deep(10**12)
