"""A program that runs out of descriptors: errors that name the limit, and clean-up all the same."""

from __future__ import annotations

import pytest

from canbroker import Bus, Message
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.processes import Program

COUNT = """
import os, threading
def descriptors():
    return len(os.listdir("/proc/self/fd"))
def threads():
    return len(os.listdir("/proc/self/task"))
"""


def clients(runtime: Runtime) -> list[str]:
    return [c.client_id for channel in status_of(runtime).channels for c in channel.clients]


def test_what_a_bus_costs(runtime: Runtime) -> None:
    """At most 8 descriptors, and no thread beyond the first one's; with one that is at work."""
    source = (
        COUNT
        + """
before = descriptors(), threads()
first = Bus("x", "virtual")
begin = descriptors(), threads()
buses = [Bus("x", "virtual") for _ in range(20)]
for bus in buses:
    bus.send(Message(arbitration_id=1), timeout=10)
    assert first.recv(10) is not None
say([(descriptors() - begin[0]) / len(buses), threads() - begin[1]])
for bus in [first, *buses]:
    bus.shutdown()
deadline = time.monotonic() + 10
while threads() > before[1] and time.monotonic() < deadline:
    time.sleep(0.01)  # the kernel lists a thread for a moment after it was joined
say([descriptors() - before[0], threads() - before[1]])
"""
    )
    with Program(source) as program:
        each, more_threads = program.said()
        assert each <= 8
        assert more_threads == 0
        assert program.said() == [0, 0]


def test_more_buses_than_there_are_descriptors_for(runtime: Runtime) -> None:
    source = (
        COUNT
        + """
import resource
import canbroker.bus.listening.notifier
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
buses = []
try:
    while True:
        buses.append(Bus("x", "virtual"))
except canbroker.CanInitializationError as error:
    say(str(error))
say(len(buses))
for bus in buses:
    bus.send(Message(arbitration_id=1), timeout=20)
assert buses[0].recv(20) is not None
say("they go on")
hear()
left = []
try:
    while True:
        left.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
task = None
for use in (
    lambda: Bus("x", "virtual"),
    lambda: canbroker.Notifier(buses[0], []),
    lambda: buses[0].send_periodic(Message(arbitration_id=1), 1.0),
    lambda: setattr(buses[0], "state", canbroker.BusState.ACTIVE),
    buses[1].fileno,
    buses[1]._reception.subscriber._opened_archive,
):
    try:
        use()
    except canbroker.CanError as error:
        say(str(error))
    else:
        say("no error")
for bus in buses:
    bus.shutdown()
say("closed")
hear()
"""
    )
    with Bus("x", "virtual") as other, Program(source) as program:
        assert "300 (ulimit -n)" in program.said()
        count = program.said()
        assert count >= (300 - 60) // 8
        assert program.said() == "they go on"
        wait_until(lambda: len(clients(runtime)) == count + 1, "the broker knows them all")
        program.tell("on")
        for _ in range(6):
            assert "300 (ulimit -n)" in program.said()
        assert program.said() == "closed"
        assert len(clients(runtime)) == 1
        other.send(Message(arbitration_id=1), timeout=10)
        program.tell("end")
        assert program.end() == 0


@pytest.mark.parametrize("spare", range(0, 40, 6))
def test_an_open_with_few_descriptors(runtime: Runtime, spare: int) -> None:
    """With each number of descriptors that are left: it works, or says why not, at once."""
    source = (
        COUNT
        + """
import resource, time
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
import canbroker.client, canbroker.bus.listening.notifier
import subprocess
left = []
try:
    while True:
        left.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for _ in range(arguments["spare"]):
    os.close(left.pop())
try:
    with Bus("x", "virtual") as bus:
        bus.send(Message(arbitration_id=1), timeout=20)
    say("worked")
except canbroker.CanInitializationError as error:
    say(str(error))
for number in left:
    os.close(number)
"""
    )
    with Bus("x", "virtual"), Program(source, spare=spare) as program:
        said = program.said()
        assert said == "worked" if spare > 30 else "128 (ulimit -n)" in said or said == "worked"
        assert program.end() == 0
