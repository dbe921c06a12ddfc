"""Clocks that drift, are set, run over and are read late, against the truth of a simulation."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from canbroker.backends.adapter_clock import AdapterClock
from canbroker.backends.clock_fit import ClockFit
from canbroker.system.clock import MICROSECOND, MILLISECOND, SECOND

#: When simulations begin, on the wall clock.
NOW: Final = 1_700_000_000 * SECOND


#: Frames per second.
RATE: Final = 50


@dataclass
class Adapter:
    """An adapter that stamps frames by its own clock, and delivers them late."""

    drift: float = 0.0
    begin_ns: int = 77 * SECOND  # on its clock
    resolution_ns: int = 1000
    delay_ns: int = 0  # the least one
    jitter_ns: int = 300 * MICROSECOND  # on average, above that
    modulo_ns: int = 0  # where its counter runs over

    def frames(
        self, seconds: float, rate: int = RATE, seed: int = 1
    ) -> Iterator[tuple[int, int, int]]:
        """The true time of each frame, its stamp, and when it arrived."""
        chance = random.Random(seed)
        for number in range(round(seconds * rate)):
            true = NOW + number * SECOND // rate
            stamp = self.begin_ns + round((true - NOW) * (1 - self.drift))
            stamp -= stamp % self.resolution_ns
            if self.modulo_ns:
                stamp %= self.modulo_ns
            late = self.delay_ns + round(chance.expovariate(1 / self.jitter_ns))
            yield true, stamp, true + late


#: After 20 s a clock is known.
SETTLED: Final = 20 * RATE


def errors_of(adapter: Adapter, rate: int = RATE) -> list[int]:
    """How far each converted time is from the truth, in nanoseconds, for two minutes."""
    clock = AdapterClock()
    return [
        clock.wall_ns(stamp, arrival) - true for true, stamp, arrival in adapter.frames(120, rate)
    ]


@pytest.mark.parametrize("drift", [0.0, 20e-6, -20e-6, 100e-6, -100e-6])
@pytest.mark.parametrize("begin", [77 * SECOND, NOW, NOW - 30 * MILLISECOND])
def test_drift_is_found_and_times_stay_close(drift: float, begin: int) -> None:
    errors = errors_of(Adapter(drift, begin))
    settled = [abs(error) for error in errors[SETTLED:]]
    assert max(settled) < 250 * MICROSECOND
    assert max(map(abs, errors)) < 2 * MILLISECOND + 12 * SECOND * abs(drift)


@pytest.mark.parametrize("drift", [0.0, 100e-6, -100e-6])
def test_the_stated_drift_and_error_are_true(drift: float) -> None:
    adapter, clock = Adapter(drift, delay_ns=150 * MICROSECOND), AdapterClock()
    last = 0
    for true, stamp, arrival in adapter.frames(120):
        last = abs(clock.wall_ns(stamp, arrival) - true)
    quality = clock.quality
    assert quality is not None
    assert quality.drift_ppb == pytest.approx(drift * 1e9, abs=2000)
    assert last <= quality.error_ns + adapter.delay_ns + 20 * MICROSECOND
    assert quality.error_ns < 200 * MICROSECOND


def test_nothing_is_stated_before_it_is_known() -> None:
    clock = AdapterClock()
    for _, stamp, arrival in Adapter().frames(9):
        clock.wall_ns(stamp, arrival)
    assert clock.quality is None


@pytest.mark.parametrize("drift", [30e-6, -30e-6])
def test_a_clock_of_milliseconds_is_as_good_as_its_resolution(drift: float) -> None:
    errors = errors_of(Adapter(drift, resolution_ns=MILLISECOND), rate=500)
    assert max(map(abs, errors[10_000:])) < 1200 * MICROSECOND


def test_times_never_go_back_nor_to_the_future() -> None:
    for drift in (200e-6, -200e-6):
        clock, last = AdapterClock(), 0
        for _, stamp, arrival in Adapter(drift, jitter_ns=5 * MILLISECOND).frames(120):
            told = clock.wall_ns(stamp, arrival)
            assert last <= told <= arrival
            last = told


def test_a_counter_that_runs_over_goes_on() -> None:
    """32 bits of microseconds are 71.6 minutes; here it is one."""
    errors = errors_of(Adapter(20e-6, begin_ns=50 * SECOND, modulo_ns=60 * SECOND))
    assert max(map(abs, errors[SETTLED:])) < 3 * MILLISECOND, (
        "for some seconds after it has run over"
    )
    worst = sorted(map(abs, errors[SETTLED:]))[len(errors[SETTLED:]) * 95 // 100]
    assert worst < 250 * MICROSECOND + 12 * SECOND * 20e-6


@pytest.mark.parametrize(
    "step", [-600 * SECOND, 600 * SECOND, -500 * MILLISECOND, 500 * MILLISECOND]
)
def test_a_host_clock_that_is_set_is_followed(step: int) -> None:
    clock, last = AdapterClock(), 0
    for number, (true, stamp, arrival) in enumerate(Adapter(50e-6).frames(120)):
        by = step if number >= 50 * RATE else 0
        last = clock.wall_ns(stamp, arrival + by) - (true + by)
        if number >= 75 * RATE:
            assert abs(last) < MILLISECOND, f"{number / RATE - 50} s after the step"
    assert abs(last) < 300 * MICROSECOND


def test_a_host_that_was_busy_is_no_step() -> None:
    """Everything is late for some seconds, by less than anyone would set a clock."""
    clock = AdapterClock()
    for number, (true, stamp, arrival) in enumerate(Adapter(50e-6).frames(120)):
        late = 400 * MILLISECOND if 50 * RATE <= number < 56 * RATE else 0
        told = clock.wall_ns(stamp, arrival + late)
        if number > SETTLED:
            assert abs(told - true) < 300 * MICROSECOND


def test_silence_of_hours_forgets_the_offset_and_keeps_the_drift() -> None:
    fit, hour = ClockFit(2 * SECOND), 3600 * SECOND
    for _, stamp, arrival in Adapter(80e-6).frames(60):
        fit.update(arrival - stamp, arrival)
    drift = fit.drift
    assert drift == pytest.approx(80e-6, abs=2e-6)
    assert fit.update(123, NOW + hour) == 123, "nobody knows better"
    assert fit.drift == drift


def test_stamps_of_the_wall_clock_itself_are_exact() -> None:
    clock = AdapterClock()
    for true, stamp, arrival in Adapter(begin_ns=NOW, resolution_ns=1, delay_ns=500_000).frames(60):
        assert clock.wall_ns(stamp, arrival) == true
