"""When which task sends what, with a clock that the test turns."""

from __future__ import annotations

import random

import pytest

from canbroker.actors.scheduler.lateness import Lateness, bin_of
from canbroker.actors.scheduler.schedule import GRID_NS, Schedule, Task
from canbroker.model.frame import Frame
from canbroker.system.clock import MILLISECOND as MS
from canbroker.system.clock import SECOND


def make(number: int = 1, period_ns: int = 10 * MS, frames: int = 1) -> Task:
    rows = [Frame(0, 0x100 + number, 0, bytes([index])) for index in range(frames)]
    return Task("c1", number, "can0", rows, period_ns)


def step(schedule: Schedule, now_ns: int) -> list[Task]:
    return [task for _, tasks in schedule.step(now_ns) for task in tasks]


def run(schedule: Schedule, until_ns: int, *, late_ns: int = 0) -> list[tuple[int, Task, Frame]]:
    """Steps at each due time, or so much later; what was sent, and when."""
    sent: list[tuple[int, Task, Frame]] = []
    while (due_ns := schedule.due_ns) is not None and due_ns <= until_ns:
        now_ns = due_ns + late_ns
        sent += [(now_ns, task, task.next_frame()) for task in step(schedule, now_ns)]
    return sent


def times(sent: list[tuple[int, Task, Frame]], task: Task) -> list[int]:
    return [at for at, which, _ in sent if which is task]


def test_due_times_do_not_drift() -> None:
    schedule, task = Schedule(), make()
    schedule.add(task, 5 * MS, None, None)
    sent = times(run(schedule, 10 * SECOND, late_ns=3 * MS), task)
    assert sent == [5 * MS + n * 10 * MS + 3 * MS for n in range(len(sent))]
    assert len(sent) == 1000
    assert task.skipped == 0


def test_a_task_begins_on_the_grid_so_that_many_are_due_together() -> None:
    schedule = Schedule()
    tasks = [make(number) for number in range(100)]
    for number, task in enumerate(tasks):
        schedule.add(task, 7 * MS + number * 9_000 + 1, None, None)
    assert {task.due_ns for task in tasks} == {8 * MS}
    assert schedule.due_ns == 8 * MS
    assert step(schedule, 8 * MS - 1) == []
    assert step(schedule, 8 * MS) == tasks
    assert GRID_NS == MS


@pytest.mark.parametrize(("now_ns", "first"), [(0, 3), (3, 3), (4, 13), (12, 13), (13, 13)])
def test_a_phase_is_a_time_of_the_clock_modulo_the_period(now_ns: int, first: int) -> None:
    schedule, task = Schedule(), make()
    schedule.add(task, now_ns * MS, 3 * MS, None)
    assert task.due_ns == first * MS


def test_a_stall_skips_and_counts_and_never_bursts() -> None:
    schedule, fast, slow = Schedule(), make(1), make(2, 1000 * MS)
    schedule.add(fast, 0, None, None)
    schedule.add(slow, 0, None, None)
    assert step(schedule, 0) == [fast, slow]
    assert step(schedule, 57 * MS) == [fast]  # slots at 10, 20, 30, 40, 50: one sent, four skipped
    assert (fast.skipped, slow.skipped) == (4, 0)
    assert step(schedule, 59 * MS) == []
    assert step(schedule, 60 * MS) == [fast]  # in its old rhythm
    assert fast.skipped == 4


def test_what_is_due_soon_is_told_ahead_by_its_time() -> None:
    schedule, fast, slow = Schedule(), make(1, 2 * MS), make(2, 10 * MS)
    schedule.add(fast, 0, None, None)
    schedule.add(slow, 0, None, None)
    assert schedule.step(0, 5 * MS) == [(0, [fast, slow]), (2 * MS, [fast]), (4 * MS, [fast])]
    assert schedule.step(1 * MS, 5 * MS) == [(6 * MS, [fast])]
    assert schedule.due_ns == 8 * MS
    assert schedule.step(9 * MS, 5 * MS) == [  # the slot at 8 is late, but its own
        (8 * MS, [fast]),
        (10 * MS, [slow, fast]),
        (12 * MS, [fast]),
        (14 * MS, [fast]),
    ]
    assert fast.skipped == 0


def test_messages_are_sent_in_turn() -> None:
    schedule, task = Schedule(), make(frames=3)
    schedule.add(task, 0, None, None)
    data = [frame.data for _, _, frame in run(schedule, 60 * MS)]
    assert data == [b"\0", b"\1", b"\2", b"\0", b"\1", b"\2", b"\0"]


@pytest.mark.parametrize(
    ("duration_ms", "count"), [(100, 10), (101, 11), (99, 10), (1, 1), (10, 1), (11, 2)]
)
def test_no_frame_after_the_duration(duration_ms: int, count: int) -> None:
    schedule, task = Schedule(), make()
    schedule.add(task, 0, None, duration_ms * MS)
    assert len(run(schedule, 10 * SECOND)) == count
    assert task.ended
    assert schedule.due_ns is None


def test_the_last_slot_may_be_skipped_and_ends_the_task() -> None:
    schedule, task = Schedule(), make()
    schedule.add(task, 0, None, 20 * MS)
    for now in (0, 10 * MS):
        (due,) = step(schedule, now)
        assert not due.ended
        due.skip()
    assert task.ended
    assert task.skipped == 2


def test_a_new_period_counts_from_the_last_frame() -> None:
    schedule, task = Schedule(), make()
    schedule.add(task, 0, None, None)
    assert times(run(schedule, 24 * MS), task) == [0, 10 * MS, 20 * MS]
    schedule.change_period(task, 50 * MS, 24 * MS)
    assert times(run(schedule, 125 * MS), task) == [70 * MS, 120 * MS]
    schedule.change_period(task, 2 * MS, 129 * MS)  # the slot at 122 has gone by
    assert times(run(schedule, 134 * MS), task) == [129 * MS, 131 * MS, 133 * MS]


def test_a_period_that_comes_back_to_the_same_due_time_sends_once() -> None:
    schedule, task = Schedule(), make()
    schedule.add(task, 0, None, None)
    schedule.step(0)
    for period_ms in (30, 10, 20, 10):
        schedule.change_period(task, period_ms * MS, 1 * MS)
    assert times(run(schedule, 35 * MS), task) == [10 * MS, 20 * MS, 30 * MS]


def test_a_period_that_reaches_beyond_the_end_ends_the_task() -> None:
    schedule, task = Schedule(), make()
    schedule.add(task, 0, None, 100 * MS)
    schedule.step(0)
    schedule.change_period(task, 200 * MS, 1 * MS)
    assert task.ended


def test_an_ended_task_is_due_no_more() -> None:
    schedule, task, other = Schedule(), make(1), make(2)
    schedule.add(task, 0, None, None)
    schedule.add(other, 0, None, None)
    task.ended = True
    assert step(schedule, 0) == [other]
    assert step(schedule, 10 * MS) == [other]


def test_a_parked_task_is_not_due() -> None:
    schedule, task = Schedule(), make(1)
    schedule.add(task, 0, None, None)
    schedule.step(0)
    schedule.park(task)
    assert step(schedule, 100 * MS) == []
    assert not task.ended
    assert schedule.due_ns is None


def test_a_task_resumes_in_its_old_rhythm() -> None:
    schedule, task = Schedule(), make()
    schedule.add(task, 3 * MS, None, None)
    schedule.step(3 * MS)
    schedule.park(task)
    schedule.step(50 * MS)
    schedule.resume(task, 51 * MS)
    assert times(run(schedule, 80 * MS), task) == [53 * MS, 63 * MS, 73 * MS]
    assert task.skipped == 0


def test_what_resumes_after_its_end_has_ended() -> None:
    schedule, task = Schedule(), make()
    task.anchor_ns, task.end_ns = 3 * MS, 30 * MS
    schedule.resume(task, 24 * MS)
    assert task.ended


def test_random_schedules_send_every_slot_once_or_count_it() -> None:
    chance = random.Random(4)
    for _ in range(50):
        schedule = Schedule()
        tasks = [make(n, chance.choice([1, 2, 5, 10, 33, 100]) * MS) for n in range(20)]
        for task in tasks:
            schedule.add(task, chance.randrange(20 * MS), None, None)
        now = 0
        sent = dict.fromkeys(tasks, 0)
        while now < SECOND:
            now += chance.choice([MS // 10, MS, 3 * MS, 40 * MS])
            for task in step(schedule, now):
                task.next_frame()
                sent[task] += 1
        for task in tasks:
            slots = (now - task.anchor_ns) // task.period_ns + 1
            assert sent[task] + task.skipped == slots


def test_lateness_percentiles_are_right_to_an_eighth() -> None:
    chance = random.Random(5)
    values = sorted(int(chance.expovariate(1 / 300_000)) for _ in range(10_000))
    lateness = Lateness()
    for value in values:
        lateness.add(bin_of(value), value)
    for share in (0.01, 0.5, 0.9, 0.99, 1.0):
        exact = values[max(0, int(share * len(values)) - 1)]
        measured = lateness.percentile(share)
        assert measured is not None
        assert exact * 0.99 <= measured <= exact * 1.13 + 2_000
    assert lateness.max_ns == values[-1]
    assert Lateness().percentile(0.5) is None


def test_nothing_is_due_after_the_end_not_even_after_a_stall() -> None:
    schedule, task = Schedule(), make()
    schedule.add(task, 0, None, 55 * MS)
    assert step(schedule, 0) == [task]
    assert step(schedule, 60 * MS) == []
    assert task.ended
    assert task.skipped == 5, "at 10, 20, 30, 40 and 50 ms"
    assert schedule.due_ns is None


def test_another_period_does_not_move_the_beginning() -> None:
    schedule, task = Schedule(), make()
    schedule.add(task, 1 * MS, 9 * MS, None)
    schedule.change_period(task, 30 * MS, 2 * MS)
    assert times(run(schedule, 70 * MS), task) == [9 * MS, 39 * MS, 69 * MS]


def test_a_step_has_an_end_however_much_is_due() -> None:
    schedule = Schedule()
    tasks = [make(number, period_ns=MS) for number in range(1000)]
    for task in tasks:
        schedule.add(task, 0, None, None)
    late = 20 * MS
    assert step(schedule, late) == tasks, "one each, and what has gone by is skipped"
    assert [task.skipped for task in tasks] == [20] * 1000
    steps = [[due_ns // MS for due_ns, _ in schedule.step(late, 8 * MS)] for _ in range(2)]
    assert steps == [[21, 22, 23, 24, 25], [26, 27, 28]]
