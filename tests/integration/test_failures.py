"""The architecture's failure table, each row in the middle of full traffic and reconciled.

Every sender accounts for each frame, every receiver for each number, and the simulated adapter for
what it took. ``tests/support/ledger.py`` says what must agree.

================================= ================================================================
what happens                      test
================================= ================================================================
channel actor killed              test_a_killed_channel_actor; its waiting clients, its state:
                                  test_truth, test_broker; periodic tasks: test_scheduler
channel actor stopped             test_a_stopped_channel_actor, test_stopped_writer
adapter unplugged, and back       test_an_unplugged_adapter; each kind of adapter:
                                  contract/test_unplug; hung, noisy: test_adapter_faults
scheduler killed                  test_a_killed_scheduler; whose tasks go on: test_scheduler
broker killed                     test_a_killed_broker; its processes: test_broker
client killed                     test_share; its tasks: test_scheduler; its leases: test_leases;
                                  a hundred that come and go: test_crowd
client stopped                    test_stopped_client
slow client                       test_slow_clients
hostile or broken input           test_broker, test_fabric_bounds, test_fabric_requests
full disk                         test_a_full_disk, test_a_log_that_cannot_be_written
full queue of the kernel, clock   can/test_failures, in a kernel of their own
================================= ================================================================

``CANBROKER_KILLS=50`` kills the channel actor that often. ``-s`` shows the figures.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from canbroker import Bus, BusState, CanOperationError, Message
from canbroker.transport.runtime import Runtime
from tests.support.brokers import processes_of, status_of, wait_until
from tests.support.ledger import (
    END,
    Received,
    Receiver,
    Sender,
    Sent,
    end_traffic,
    reconcile,
    serving,
)
from tests.support.processes import Program
from tests.support.simulated import Simulated
from tests.support.systems import is_root

KILLS: Final = int(os.environ.get("CANBROKER_KILLS", "5"))

#: An actor that served for less long is restarted later.
LASTED_S: Final = 0.4

WAITING: Final = 0x100  # identifier of the sender that waits for the driver to take each frame
HASTY: Final = 0x200  # and of the one that does not
FROM_OUTSIDE: Final = 0x300  # and of what the adapter receives
RATE: Final = 300  # frames/s of each of them: what a bus of 500 kbit/s takes easily

VIRTUAL: Final = ("x", "virtual")


class Traffic:
    """Two senders, two receivers, and an observer of our own."""

    def __init__(self, stack: ExitStack, bus: tuple[str, str]) -> None:
        options: dict[str, Any] = {"bitrate": 500_000}
        self.observer = stack.enter_context(Bus(*bus, **options))
        self.receivers = [Receiver(bus, **options) for _ in range(2)]
        self.waiting = Sender(bus, WAITING, RATE, timeout=20, **options)
        self.hasty = Sender(bus, HASTY, RATE, **options)
        for program in (*self.receivers, self.waiting, self.hasty):
            stack.enter_context(program)
        for sender in (self.waiting, self.hasty):
            sender.start()

    def flow(self, seconds: float) -> None:
        """Lets it flow, and the observer receive."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._take(0.01)

    def flows(self, since: float) -> float:
        """Waits for a frame of after the time ``since``; returns the seconds that has taken."""
        deadline = time.monotonic() + 30
        # A little later: a process that is killed ends a moment afterwards.
        while not any(message.timestamp > since + 0.005 for message in self._take(0.1)):
            assert time.monotonic() < deadline, "no frames any more"
        return time.time() - since

    def _take(self, timeout: float) -> list[Message]:
        try:
            return self.observer.recv_batch(1000, timeout)
        except CanOperationError:  # on a busy machine a restart takes longer than a bus waits
            return []

    def end(self) -> tuple[Sent, Sent, list[Received]]:
        """The accounts of both senders and of the receivers."""
        senders = self.waiting.stop(), self.hasty.stop()
        end_traffic(self.observer)
        return *senders, [receiver.account() for receiver in self.receivers]


@pytest.fixture
def adapter(tmp_path: Path) -> Iterator[Simulated]:
    """Receives frames from outside as soon as it is open, too."""
    log = tmp_path / "outside.log"
    with log.open("w") as file:
        for number in range(RATE * (KILLS * 2 + 30)):
            file.write(f"({number / RATE:.6f}) can0 {FROM_OUTSIDE:03X}#{number:08X}\n")
    with Simulated(tmp_path, replay=str(log)) as simulated:
        yield simulated


@contextmanager
def traffic(bus: tuple[str, str]) -> Iterator[Traffic]:
    with ExitStack() as stack:
        yield Traffic(stack, bus)


def slcan(adapter: Simulated) -> tuple[str, str]:
    return adapter.link, "slcan"


def actor_of(runtime: Runtime) -> psutil.Process:
    (channel,) = status_of(runtime).channels
    return psutil.Process(channel.pid)


def kill(process: psutil.Process) -> float:
    """Kills it; returns when."""
    process.send_signal(signal.SIGKILL)
    return time.time()


def check(
    waiting: Sent, hasty: Sent, receivers: list[Received], restarts: int = 0, brokers: int = 0
) -> None:
    """Everybody's account agrees with everybody else's, and nothing is counted as lost."""
    for receiver in receivers:
        assert receiver.lost == 0
        assert receiver.restarts == restarts
        assert receiver.received == 1 + sum(map(len, receiver.numbers.values()))
        for sender, identifier in ((waiting, WAITING), (hasty, HASTY)):
            reconcile(sender, receiver.numbers[identifier], brokers)
        outside = receiver.numbers.get(FROM_OUTSIDE, [])
        assert outside == sorted(set(outside))


def check_adapter(adapter: Simulated, waiting: Sent, hasty: Sent) -> list[int]:
    """What the adapter took is what the senders were told; the frames of unknown fate it took."""
    ledger = adapter.stats()
    accepted = [text.partition("#") for text in adapter.accepted()]
    assert ledger["accepted"] == len(accepted), "it remembers all"
    assert {int(identifier, 16) for identifier, _, _ in accepted} == {WAITING, HASTY, END}
    return [
        reconcile(
            sender, [int(data, 16) for name, _, data in accepted if int(name, 16) == identifier]
        )
        for sender, identifier in ((waiting, WAITING), (hasty, HASTY))
    ]


def unknown(waiting: Sent, hasty: Sent) -> str:
    return f"reported: {len(waiting.unknown)} + {hasty.failed}"


# ------------------------------------------------------------------------------- channel actor


def kill_often(runtime: Runtime, flowing: Traffic) -> None:
    """Kills the channel actor again and again; prints how long nothing was received."""
    took = []
    for _ in range(KILLS):
        flowing.flow(LASTED_S)
        took.append(flowing.flows(since=kill(actor_of(runtime))) * 1e3)
    flowing.flow(LASTED_S)
    median = statistics.median(took)
    print(f"{KILLS} kills: first frame after {median:.0f} ms (median), {max(took):.0f} ms (max)")  # noqa: T201
    assert median < 2_500  # 500 on a machine that has nothing else to do
    (channel,) = status_of(runtime).channels
    assert channel.restarts == KILLS
    assert len(processes_of(runtime)) == 2, "the broker and one actor"


@pytest.mark.long
@pytest.mark.timeout(60 + 5 * KILLS)
def test_a_killed_channel_actor(runtime: Runtime) -> None:
    with traffic(VIRTUAL) as flowing:
        kill_often(runtime, flowing)
        waiting, hasty, receivers = flowing.end()
    check(waiting, hasty, receivers, restarts=KILLS)
    assert waiting.unknown
    print(unknown(waiting, hasty))  # noqa: T201


@pytest.mark.long
@pytest.mark.timeout(60 + 5 * KILLS)
def test_the_actor_of_an_adapter_is_killed(runtime: Runtime, adapter: Simulated) -> None:
    with traffic(slcan(adapter)) as flowing:
        kill_often(runtime, flowing)
        waiting, hasty, receivers = flowing.end()
    check(waiting, hasty, receivers, restarts=KILLS)
    arrived = check_adapter(adapter, waiting, hasty)
    print(f"{unknown(waiting, hasty)}; of these the adapter took {arrived}")  # noqa: T201
    for receiver in receivers:
        assert len(receiver.numbers[FROM_OUTSIDE]) <= adapter.stats()["replayed"]


def test_a_stopped_channel_actor(runtime: Runtime, adapter: Simulated) -> None:
    """Longer than its clients wait for it; it goes on where it was."""
    with traffic(slcan(adapter)) as flowing:
        flowing.flow(0.5)
        actor = actor_of(runtime)
        actor.suspend()
        time.sleep(3)
        actor.resume()
        flowing.flows(since=time.time())
        waiting, hasty, receivers = flowing.end()
        assert actor == actor_of(runtime)
        ledger = adapter.stats()
    check(waiting, hasty, receivers)
    check_adapter(adapter, waiting, hasty)
    for receiver in receivers:
        outside = receiver.numbers[FROM_OUTSIDE]
        missing = outside[-1] + 1 - outside[0] - len(outside)
        assert missing == ledger["overruns"], "what nobody read, the adapter has dropped"


@pytest.mark.long
def test_a_channel_actor_that_stays_stopped(runtime: Runtime, adapter: Simulated) -> None:
    with traffic(slcan(adapter)) as flowing:
        flowing.flow(0.5)
        actor = actor_of(runtime)
        actor.suspend()
        stopped = time.time()
        wait_until(lambda: not actor.is_running(), "it is killed", timeout=20)
        flowing.flows(since=stopped)
        flowing.flow(LASTED_S)
        waiting, hasty, receivers = flowing.end()
    check(waiting, hasty, receivers, restarts=1)
    check_adapter(adapter, waiting, hasty)


# ------------------------------------------------------------------------------------ the others


def test_an_unplugged_adapter(runtime: Runtime, adapter: Simulated) -> None:
    with traffic(slcan(adapter)) as flowing:
        for interruptions in (1, 2, 3):
            flowing.flow(0.5)
            adapter.command("unplug")
            wait_until(lambda: flowing.observer.state is BusState.ERROR, "it is gone")
            adapter.replug()
            flowing.flows(since=time.time())
            assert flowing.observer.stats.interruptions == interruptions
        waiting, hasty, receivers = flowing.end()
    check(waiting, hasty, receivers)
    arrived = check_adapter(adapter, waiting, hasty)
    print(f"{unknown(waiting, hasty)}; of these the adapter took {arrived}")  # noqa: T201
    assert waiting.refused
    for receiver in receivers:
        assert receiver.interruptions == 3
        assert receiver.errors == []


def test_a_killed_scheduler(runtime: Runtime) -> None:
    with traffic(VIRTUAL) as flowing:
        with Bus(*VIRTUAL) as owner:
            owner.send_periodic(Message(arbitration_id=1, data=bytes(4)), 0.01)
            for restarts in (1, 2):
                flowing.flow(LASTED_S)
                pid = status_of(runtime).scheduler.pid
                killed = kill(psutil.Process(pid))
                deadline = time.monotonic() + 20
                while not any(
                    message.arbitration_id == 1 and message.timestamp > killed + 0.05
                    for message in flowing.observer.recv_batch(1000, 0.1)
                ):
                    assert time.monotonic() < deadline, "the task goes on"
                assert status_of(runtime).scheduler.restarts == restarts
        waiting, hasty, receivers = flowing.end()
    for receiver in receivers:
        assert set(receiver.numbers.pop(1)) == {0}
        assert receiver.errors == []
        assert receiver.lost == receiver.restarts == 0
        assert receiver.numbers[WAITING] == sorted(waiting.sent)
        assert receiver.numbers[HASTY] == sorted(hasty.handed)
    assert waiting.refused | waiting.unknown | hasty.refused == set(), "nobody else notices"


@pytest.mark.long
def test_a_killed_broker(runtime: Runtime) -> None:
    with traffic(VIRTUAL) as flowing:
        flowing.flow(LASTED_S)
        killed = kill(psutil.Process(status_of(runtime).pid))
        wait_until(lambda: not processes_of(runtime), "no process stays")
        left = time.time() - killed
        wait_until(lambda: flowing.observer.state is BusState.ERROR, "the clients know")
        knew = time.time() - killed
        print(f"the actor left after {left:.2f} s, clients knew after {knew:.2f} s")  # noqa: T201
        flowing.flow(2.5)  # longer than a bus waits for a word of its channel
        with Bus(*VIRTUAL, bitrate=500_000):  # starts another one
            wait_until(lambda: is_back(flowing.observer), "the observer is subscribed again")
            wait_until(lambda: len(clients_of(runtime)) == 6, "all are back", timeout=20)
        flowing.flow(LASTED_S)
        waiting, hasty, receivers = flowing.end()
    check(waiting, hasty, receivers, restarts=1, brokers=1)
    told = [receiver.errors[0][0] - killed for receiver in receivers]
    print(f"receivers were told after {max(told):.2f} s")  # noqa: T201
    assert max(told) < 10  # 2 on a machine that has nothing else to do


def is_back(bus: Bus) -> bool:
    """Whether a bus receives again; it finds out when it is used."""
    try:
        return any(bus.recv_batch(1000, 0.01)) and bus.stats.restarts == 1
    except CanOperationError:
        return False


def clients_of(runtime: Runtime) -> list[str]:
    (channel,) = status_of(runtime).channels
    return [client.client_id for client in channel.clients]


# ------------------------------------------------------------------------------------- full disk

ON_A_FULL_DISK = """
import os, signal, subprocess
from pathlib import Path
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, stop_broker, wait_until
if "OWN_MOUNTS" not in os.environ:
    os.environ["OWN_MOUNTS"] = "yes"
    os.execvp("unshare", ["unshare", "--mount", *sys.orig_argv])
place = os.environ["XDG_RUNTIME_DIR"]
options = ["-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs"]
if subprocess.run(["mount", *options, place]).returncode:
    say("not permitted")
    sys.exit()
runtime = Runtime.at()
with Bus("x", "virtual") as receiver, Bus("x", "virtual") as sender:
    with open(place + "/filler", "wb", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)):
                pass
        except OSError as error:
            full = error.errno
    log = runtime.log_path.stat().st_size // 4096
    numbers, number = [], 0
    for restarts in range(4):
        if restarts:  # not at first: a record of no frames would fit
            (channel,) = status_of(runtime).channels
            os.kill(channel.pid, signal.SIGKILL)
        while receiver.stats.restarts < restarts:  # else it would miss what is sent now
            numbers += [int.from_bytes(m.data, "big") for m in receiver.recv_batch(1000, 0.01)]
        for number in range(number, number + 100):
            while True:
                try:
                    sender.send(Message(arbitration_id=1, data=number.to_bytes(4, "big")), 10)
                except canbroker.CanError:
                    continue
                break
        number += 1
        time.sleep(0.4)  # else the next restart is later
    while len(numbers) < number:
        numbers += [int.from_bytes(m.data, "big") for m in receiver.recv_batch(1000, 10)]
    grown = runtime.log_path.stat().st_size // 4096 > log
stop_broker(runtime)
left = sorted(str(path.relative_to(runtime.directory)) for path in runtime.directory.rglob("*"))
say([full, grown, numbers == list(range(number)), left])
"""


@pytest.mark.skipif(not is_root(), reason="only root may mount a small disk")
def test_a_full_disk(runtime: Runtime) -> None:
    """That of the runtime directory, with the log of a broker in the background."""
    with Program(ON_A_FULL_DISK) as program:
        said = program.said(50)
        if said == "not permitted":
            pytest.skip("may not mount a small disk")
        assert program.end() == 0
    full, grown, is_exact, left = said
    assert full == 28, "ENOSPC"
    assert not grown
    assert is_exact
    assert left == ["broker.log", "records"], "nothing in it"


def test_a_log_that_cannot_be_written(runtime: Runtime, tmp_path: Path) -> None:
    config = '[broker]\nlog_level = "debug"\n'
    with (
        Path("/dev/full").open("wb") as log,
        serving(runtime, tmp_path, config, log) as broker,
        traffic(VIRTUAL) as flowing,
    ):
        for _ in range(2):
            flowing.flow(LASTED_S)
            flowing.flows(since=kill(actor_of(runtime)))
        flowing.flow(LASTED_S)
        waiting, hasty, receivers = flowing.end()
        check(waiting, hasty, receivers, restarts=2)
        assert broker.poll() is None
