from __future__ import annotations

import logging

import pytest

from canbroker.system import clock
from canbroker.system.throttle import Throttle

LOGGER = logging.getLogger("canbroker.test_throttle")


class Time:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * clock.SECOND)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(clock, "monotonic_ns", time)
    return time


def test_everything_is_counted_and_one_an_interval_is_logged(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    throttle = Throttle(LOGGER)
    for _ in range(1000):
        throttle.note("garbled", "a line")
        time.advance(0.0005)
    assert throttle.counts["garbled"] == 1000
    assert caplog.messages == ["garbled: a line"]
    time.advance(1.0)
    throttle.note("garbled", "another line")
    assert caplog.messages[1:] == ["garbled: another line (and 999 more since the last report)"]


def test_an_interval_later_a_single_one_stands_alone(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    throttle = Throttle(LOGGER, interval_s=2.0)
    throttle.note("late", "once")
    time.advance(1.9)
    throttle.note("late", "too soon")
    time.advance(0.1)
    throttle.note("late", "again")
    time.advance(2.0)
    throttle.note("late", "at last")
    assert caplog.messages == [
        "late: once",
        "late: again (and 1 more since the last report)",
        "late: at last",
    ]


def test_kinds_do_not_silence_each_other(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    throttle = Throttle(LOGGER)
    throttle.note("garbled", "x")
    throttle.note("truncated", "y")
    assert caplog.messages == ["garbled: x", "truncated: y"]
    assert throttle.counts == {"garbled": 1, "truncated": 1}


def test_the_level_is_the_callers(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    throttle = Throttle(LOGGER)
    throttle.note("warned", "by default")
    throttle.note("failed", "by wish", logging.ERROR)
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR]
