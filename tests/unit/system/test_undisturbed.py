"""Jobs that no signal handler cuts short, and descriptors that are not lost."""

from __future__ import annotations

import os
import threading

import pytest

from canbroker.errors import CanOperationError
from canbroker.system import handles
from canbroker.system.handles import Handle
from canbroker.system.undisturbed import in_background, undisturbed
from canbroker.system.wake import Wake
from tests.support.brokers import wait_until
from tests.support.strikes import calls_in, struck
from tests.support.systems import counts_descriptors, open_descriptors, posix


def test_the_job_is_done_wherever_its_caller_is_struck() -> None:
    done: list[int] = []

    def call() -> None:
        # As all callers do it: the call itself may be struck.
        try:
            undisturbed(lambda: done.append(1))
        finally:
            if not done:
                undisturbed(lambda: done.append(2))

    for place in range(calls_in(call) + 1):
        done.clear()
        hit = struck(place, call)
        # The very first call is not within the ``try`` yet.
        assert done or (hit and place == 0), f"at {place}"
    wait_until(lambda: threading.active_count() == 1, "no thread is left")


def test_it_raises_what_the_job_raises() -> None:
    def fail() -> None:
        raise CanOperationError("what it says")

    with pytest.raises(CanOperationError, match="what it says"):
        undisturbed(fail)


def test_it_does_not_wait_for_ever() -> None:
    """The job may need what its caller has."""
    lock = threading.Lock()
    done = threading.Event()

    def job() -> None:
        with lock:
            done.set()

    with lock:
        undisturbed(job, patience_s=0.01)
        assert not done.is_set()
    assert done.wait(20)


def test_in_the_background() -> None:
    begun, go = threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        go.wait(20)

    wait = in_background(job, "test")
    assert begun.wait(20)
    go.set()
    wait()
    wait_until(lambda: threading.active_count() == 1, "no thread is left")


@pytest.mark.parametrize("make", [Wake, lambda: Handle(os.dup, 0)], ids=["wake", "handle"])
@counts_descriptors
def test_no_descriptor_is_lost(make: type[Wake]) -> None:
    def use() -> None:
        owner = make()
        try:
            assert owner.fileno() >= 0
        finally:
            owner.close()
            owner.close()

    before = open_descriptors().keys()
    for place in range(calls_in(use)):
        struck(place, use)
        assert open_descriptors().keys() == before, f"at {place}"


def test_a_number_that_is_used_again_is_not_closed() -> None:
    handle = Handle(os.dup, 0)
    number = handle.fileno()
    handle.close()
    other = os.dup(0)
    try:
        assert other == number
        handle.close()
        del handle
        os.fstat(other)
    finally:
        os.close(other)


@posix("limit of open files")
def test_a_limit_is_named() -> None:
    import resource  # noqa: PLC0415 - POSIX only

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = len(open_descriptors())
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(64, count + 8), before[1]))
    try:
        with pytest.raises(CanOperationError, match=r"a test needs 999 .* \(ulimit -n\)"):
            handles.require(999, "a test")
        assert handles.shortage() == ""
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(open_descriptors()) == count


@counts_descriptors
def test_descriptors_that_were_only_tried_are_closed_wherever_it_is_struck() -> None:
    def call() -> None:
        handles.require(24, "a test")

    call()
    before = open_descriptors().keys()
    for place in range(calls_in(call) + 1):
        struck(place, call)
        assert open_descriptors().keys() == before, f"at {place}"
