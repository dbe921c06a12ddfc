from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.system import clock


def test_no_timeout_is_no_deadline() -> None:
    assert clock.deadline_after(None) is None
    assert clock.remaining_ns(None) is None


@given(st.floats(allow_nan=False))
def test_a_deadline_is_that_far_away_and_never_past(timeout: float) -> None:
    before = clock.monotonic_ns()
    deadline = clock.deadline_after(timeout)
    after = clock.monotonic_ns()
    assert deadline is not None
    wait = int(min(max(timeout, 0.0), 4e9) * clock.SECOND)
    assert before + wait <= deadline <= after + wait
    assert deadline < 1 << 63  # fits the wire and poll's arithmetic


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        clock.deadline_after(math.nan)


def test_remaining_time_counts_down_to_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000
    monkeypatch.setattr(clock, "monotonic_ns", lambda: now)
    deadline = clock.deadline_after(1e-6)
    assert clock.remaining_ns(deadline) == 1_000
    now = 1_400
    assert clock.remaining_ns(deadline) == 600
    now = 5_000
    assert clock.remaining_ns(deadline) == 0


def test_seconds_and_milliseconds() -> None:
    assert clock.deadline_after(0) is not None
    assert clock.SECOND == 1000 * clock.MILLISECOND == 10**9
