"""What the kernel's broadcast manager is told, and the rhythm of its timers; without a kernel."""

from __future__ import annotations

import random
import struct

import pytest

from canbroker.actors.channel.repeats import Repeats
from canbroker.backends import open_backend, parse_options
from canbroker.backends.base import Repetition
from canbroker.backends.socketcan.bcm import Operation, setup_message
from canbroker.backends.socketcan.codec import encode
from canbroker.backends.socketcan.rhythm import CORRECT_FIRST, Rhythm
from canbroker.model.frame import FD, Frame
from canbroker.system.clock import MILLISECOND, SECOND
from canbroker.transport.replier import Caller
from canbroker.wire import control
from canbroker.wire.tasks import TaskKey


def operation(*frames: Frame, period_ns: int = SECOND * 5 // 2) -> Operation:
    repetition = Repetition(key=("c", 1), frames=frames, period_ns=period_ns, due_ns=0)
    return Operation(7, repetition, [encode(frame) for frame in frames])


def head_of(message: bytes) -> tuple[int, ...]:
    """opcode, flags, count, the intervals' seconds and microseconds, handle, frames."""
    return struct.unpack_from("@3I4l2I", message)


def test_an_endless_task_has_the_second_interval() -> None:
    frame = Frame(0, 0x123, 0, b"\1\2")
    message = setup_message(operation(frame, frame), 3)
    assert head_of(message) == (1, 3, 0, 0, 0, 2, 500_000, 7, 2)
    assert message.endswith(2 * struct.pack("=IB3x8s", 0x123, 2, b"\1\2"))
    assert (len(message) - 2 * 16) % 8 == 0, "frames are aligned"


def test_fd_frames_are_marked() -> None:
    message = setup_message(operation(Frame(0, 1, FD, bytes(64))), 3)
    assert head_of(message)[1] == 0x803
    assert len(message) >= 56 + 72 if struct.calcsize("l") == 8 else 40 + 72


def run(
    rhythm: Rhythm, period_ns: int, late_ns: int, seconds: int, stall_at: int = -1
) -> list[int]:
    """How far each frame strays, of a timer that is served ``late_ns`` late on average."""
    rng = random.Random(1)
    at_ns, interval_ns, strayed = 300_000, period_ns, []
    for number in range(max(600, seconds * SECOND // period_ns)):
        if rhythm.sent(at_ns):
            next_ns = at_ns + interval_ns  # the timer runs already
            interval_ns = rhythm.interval_ns
        else:
            next_ns = at_ns + interval_ns
        strayed.append((at_ns + period_ns // 2) % period_ns - period_ns // 2)
        at_ns = next_ns + rng.randrange(late_ns // 2, late_ns * 3 // 2)
        if number == stall_at:
            at_ns += 4 * MILLISECOND
    return strayed


@pytest.mark.parametrize("late_ns", [10_000, 60_000])
@pytest.mark.parametrize("period_ns", [n * MILLISECOND for n in (5, 10, 100, 1000, 5000)])
def test_a_timer_that_is_late_every_time_does_not_drift(period_ns: int, late_ns: int) -> None:
    strayed = run(Rhythm(period_ns, 0), period_ns, late_ns, 30)
    assert max(map(abs, strayed[len(strayed) // 2 :])) < MILLISECOND
    frames = len(strayed)
    assert frames * late_ns > 2 * MILLISECOND, "uncorrected, it would have"


def test_a_stall_is_made_up_for() -> None:
    """Within some frames, and how late the timer is otherwise is remembered."""
    strayed = run(Rhythm(10 * MILLISECOND, 0), 10 * MILLISECOND, 20_000, 60, stall_at=2000)
    assert max(map(abs, strayed[2001:2004])) > 3 * MILLISECOND
    assert max(map(abs, strayed[2020:])) < MILLISECOND


def test_no_interval_is_far_from_its_period() -> None:
    """Whatever the times are: here, any."""
    rng = random.Random(2)
    rhythm = Rhythm(10 * MILLISECOND, 0)
    at_ns = 0
    for _ in range(1000):
        at_ns += rng.randrange(2 * SECOND)
        rhythm.sent(at_ns)
        assert 9 * MILLISECOND <= rhythm.interval_ns <= 11 * MILLISECOND


def test_a_good_timer_is_left_alone() -> None:
    rhythm = Rhythm(10 * MILLISECOND, 0)
    assert not any(rhythm.sent(n * 10 * MILLISECOND) for n in range(CORRECT_FIRST + 500))


def test_a_driver_that_repeats_nothing_says_so() -> None:
    repeats = Repeats(lambda _: None)
    caller, task = Caller(b"", 1), TaskKey(client_id="c", task=1)
    ask = repeats.handlers["repeat_counts"]
    first = ask(caller, control.Params())
    assert isinstance(first, control.ErrorResult)
    assert first.code == "down"
    backend = open_backend("virtual", parse_options("virtual", {"channel": "x"}))
    try:
        repeats.use(backend)
        for method in ("repeat_counts", "repeat"):
            answer = repeats.handlers[method](caller, task)
            assert isinstance(answer, control.ErrorResult)
            assert answer.code == "unsupported"
        repeats.forget("c")
    finally:
        backend.close()


def test_whoever_stops_is_answered_when_all_is_published() -> None:
    answered: list[Caller] = []
    repeats = Repeats(answered.append)
    caller = Caller(b"", 1)
    assert repeats.handlers["repeat_stop"](caller, TaskKey(client_id="c", task=1)) is None
    assert answered == [caller]
