"""Actors come before others where they may, and only as long as they wait in between."""

import os
import subprocess
import sys
import textwrap

import pytest

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's real time")


def may_take_real_time() -> bool:
    code = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def run(code: str) -> tuple[str, str]:
    """Runs a program; returns what it has printed and logged."""
    begin = "import logging, os, threading, time\nfrom canbroker.priority import raise_priority\n"
    begin += "logging.basicConfig(level='DEBUG')\n"
    program = begin + textwrap.dedent(code)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@linux
def test_threads_of_an_actor_run_in_real_time_where_that_is_permitted() -> None:
    if not may_take_real_time():
        pytest.skip("real time is not permitted here")
    printed, _ = run("""
        raise_priority()
        def show():
            print(os.sched_getscheduler(0) == os.SCHED_RR, os.getpriority(os.PRIO_PROCESS, 0))
        thread = threading.Thread(target=show)
        thread.start()
        thread.join()
    """)
    assert printed == "True -11"


@linux
def test_a_process_that_waits_for_nothing_becomes_an_ordinary_one() -> None:
    if not may_take_real_time():
        pytest.skip("real time is not permitted here")
    printed, logged = run("""
        raise_priority()
        end = time.monotonic() + 20
        def burn():
            while os.sched_getscheduler(0) == os.SCHED_RR and time.monotonic() < end:
                pass
            print(os.sched_getscheduler(0) == os.SCHED_OTHER, os.getpriority(os.PRIO_PROCESS, 0))
        thread = threading.Thread(target=burn)
        thread.start()
        thread.join()
        while os.sched_getscheduler(0) == os.SCHED_RR and time.monotonic() < end:
            time.sleep(0.01)
        print(os.sched_getscheduler(0) == os.SCHED_OTHER)
    """)
    assert printed.split() == ["True", "-11", "True"]
    assert "a driver waits for nothing" in logged


@linux
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_who_may_not_take_real_time_goes_on_without() -> None:
    printed, logged = run("""
        import resource  # while we may read it
        os.setgroups([])
        os.setuid(65534)
        raise_priority()
        print(os.sched_getscheduler(0) == os.SCHED_OTHER, os.getpriority(os.PRIO_PROCESS, 0))
    """)
    assert printed == "True 0"
    assert "the priority stays as it is" in logged


@linux
def test_a_limit_of_real_time_at_which_the_kernel_kills_is_kept_away_from() -> None:
    printed, logged = run("""
        import resource
        resource.setrlimit(resource.RLIMIT_RTTIME, (200_000, 200_000))
        raise_priority()
        print(os.sched_getscheduler(0) == os.SCHED_OTHER)
    """)
    assert printed == "True"
    assert "the priority stays as it is" in logged
