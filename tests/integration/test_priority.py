"""Actors come before others where they may."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from canbroker import Bus, Message
from canbroker.system.portable import PORTABLE
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's real time")


def may_take_real_time() -> bool:
    code = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def policies(pid: int) -> set[int]:
    """Those of a process's threads."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {os.sched_getscheduler(int(task.name)) for task in tasks}


def eventually(pid: int, wanted: set[int], bus: Bus) -> bool:
    deadline = time.monotonic() + 20
    while policies(pid) != wanted and time.monotonic() < deadline:
        bus.send(Message(arbitration_id=1))  # what is over is noticed with the next event
        time.sleep(0.05)
    return policies(pid) == wanted


@linux
def test_a_channel_runs_in_real_time_while_its_frames_have_a_time(runtime: Runtime) -> None:
    if not may_take_real_time():
        pytest.skip("real time is not permitted here")
    with Bus("x", "virtual") as bus:
        pid = status_of(runtime).channels[0].pid
        assert pid is not None
        assert policies(pid) == {os.SCHED_OTHER}
        task = bus.send_periodic(Message(arbitration_id=2), 0.02)
        assert eventually(pid, {os.SCHED_RR}, bus)
        task.stop()
        assert eventually(pid, {os.SCHED_OTHER}, bus)


def slices(pid: int) -> list[float]:
    """Those of a process's threads, in ms, the shortest one first."""
    lines = [
        line
        for task in Path(f"/proc/{pid}/task").iterdir()
        for line in (task / "sched").read_text().splitlines()
    ]
    return sorted(int(line.split()[-1]) / 1e6 for line in lines if line.startswith("se.slice"))


@linux
@pytest.mark.skipif(PORTABLE, reason="the usual slices")
def test_a_channel_has_short_slices_also_after_real_time(runtime: Runtime) -> None:
    if not slices(os.getpid()) or os.cpu_count() == 1:
        pytest.skip("slices are not told here, or are not changed")
    usual, *_ = slices(os.getpid())
    with Bus("x", "virtual") as bus:
        pid = status_of(runtime).channels[0].pid
        assert pid is not None
        short, *_ = slices(pid)
        assert short < usual
        if not may_take_real_time():
            return
        task = bus.send_periodic(Message(arbitration_id=2), 0.02)
        assert eventually(pid, {os.SCHED_RR}, bus)
        task.stop()
        assert eventually(pid, {os.SCHED_OTHER}, bus)
        assert slices(pid)[0] == short


@linux
@pytest.mark.parametrize("has_rights", [True, False])
def test_what_people_look_at_gives_way(has_rights: bool) -> None:
    if os.getuid() != 0 and has_rights:
        pytest.skip("has no rights")
    program = f"""
        import ctypes, os, threading
        from canbroker.system.priority import give_way, raise_priority
        if os.getuid() == 0 and not {has_rights}:
            os.setgroups([])
            os.setuid(65534)
        raise_priority()
        give_way()
        look = lambda: print(os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0))
        look()
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    policy = os.SCHED_OTHER if PORTABLE else os.SCHED_BATCH
    assert done.stdout.split() == ["5", str(int(policy))] * 2


@linux
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_who_may_not_come_before_others_goes_on_without() -> None:
    program = """
        import logging, os, time
        from canbroker.system.priority import RealTime, raise_priority
        logging.basicConfig(level="DEBUG")
        os.setgroups([])
        os.setuid(65534)
        raise_priority()
        real_time = RealTime()
        for _ in range(2):
            real_time.want()
            real_time.update()
        print(os.sched_getscheduler(0) == os.SCHED_OTHER, os.getpriority(os.PRIO_PROCESS, 0))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.split() == ["True", "0"], done.stderr
    assert done.stderr.count("the priority stays as it is") == 1
    assert done.stderr.count("no real time") == 1


@linux
@pytest.mark.skipif(PORTABLE, reason="the usual slices")
def test_work_that_can_wait_has_not_the_short_slices_of_its_actor() -> None:
    if not slices(os.getpid()):
        pytest.skip("slices are not told here")
    program = """
        from pathlib import Path
        from canbroker.system.priority import lower_priority, raise_priority
        raise_priority()
        lower_priority()
        print(Path("/proc/thread-self/sched").read_text())
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("se.slice")]
    assert int(line.split()[-1]) / 1e6 >= slices(os.getpid())[0]
