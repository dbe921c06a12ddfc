"""What a client is told is what happened: found in review, each kept from coming back."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from canbroker import Bus, BusState, CanInitializationError, CanOperationError, Message
from canbroker.delivery.subscriber import Subscriber
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.links import KeepingLink
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.processes import Program
from tests.support.simulated import Simulated
from tests.support.strikes import strikes
from tests.support.systems import natively


def frame(identifier: int = 0x100, data: bytes = bytes(8)) -> Message:
    return Message(arbitration_id=identifier, data=data, is_extended_id=False)


def actor_of(runtime: Runtime) -> int:
    (channel,) = status_of(runtime).channels
    assert channel.pid is not None
    return channel.pid


def restarted(runtime: Runtime, times: int = 1) -> bool:
    (channel,) = status_of(runtime).channels
    return channel.restarts == times and channel.phase == "running"


def test_frames_that_died_with_an_actor_are_not_counted_as_sent(runtime: Runtime) -> None:
    with Bus("x", "virtual", bitrate=1000) as bus:
        for _ in range(300):
            bus.send(frame())
        os.kill(actor_of(runtime), signal.SIGKILL)
        wait_until(lambda: restarted(runtime), "the actor is replaced")
        with pytest.raises(CanOperationError, match=r"not known to be sent.*and \d+ more"):
            sends_and_flushes(bus)
        assert bus.stats.sent < 10
        assert bus.stats.sent + bus.stats.failed + bus.stats.transmit_queue in {300, 301}


def sends_and_flushes(bus: Bus) -> None:
    bus.send(frame(0x101))
    bus.flush(10)


@natively  # by names of Unix sockets, and of links to pseudo-terminals
def test_what_an_actor_forgot_while_its_client_was_stopped_is_reported(runtime: Runtime) -> None:
    """As after a time-out of the connection, which takes longer than a test may."""
    with Bus("x", "virtual", bitrate=1000) as bus:
        for _ in range(100):
            bus.send(frame())
        # The link breaks, and comes back as another one.
        link = bus._connection.transmitter._link
        assert isinstance(link, KeepingLink)
        socket = link.socket
        endpoint = bus._connection.attached.transmit
        socket.disconnect(endpoint)
        socket.connect(endpoint)
        bus.send(frame(0x101))
        with pytest.raises(CanOperationError, match="connection was lost"):
            bus.flush(20)
        stats = bus.stats
        assert stats.sent + stats.failed == 101
        assert stats.failed > 50


def test_a_client_that_only_sends_survives_its_actor(runtime: Runtime) -> None:
    with Bus("x", "virtual") as bus:
        bus.send(frame(), timeout=10)
        os.kill(actor_of(runtime), signal.SIGKILL)
        began = time.monotonic()
        while time.monotonic() - began < 4:  # longer than an unused channel stays open
            try:
                bus.send(frame())
            except CanOperationError:
                continue
        bus.send(frame(), timeout=10)
        assert restarted(runtime)


def test_a_signal_handler_may_shut_down_the_bus_that_it_interrupts(runtime: Runtime) -> None:
    with Program(
        """
        import signal
        bus = Bus("x", "virtual")
        signal.signal(signal.SIGALRM, lambda *_: bus.shutdown())
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            bus.recv()
        except canbroker.CanOperationError as error:
            say(str(error))
        """
    ) as program:
        assert "shut down" in program.said()
        assert program.end() == 0


NUMBERED = """
bus = Bus("x", "virtual")
say("ready")
number = 0
while not hear():  # how many more are wanted
    bus.send_batch(
        [Message(arbitration_id=1, data=n.to_bytes(4, "big")) for n in range(number, number + 50)],
        timeout=10,
    )
    number += 50
bus.shutdown()
say(number)
"""


def test_signal_handlers_that_raise_in_recv_make_no_bus_deaf(runtime: Runtime) -> None:
    numbers: list[int] = []
    with Bus("x", "virtual") as bus, Program(NUMBERED) as sender:

        def take() -> None:
            for timeout in (0, 0, 0, 0.001):  # strikes shall find it at work, too, not only waiting
                message = bus.recv(timeout)
                if message is not None:
                    numbers.append(int.from_bytes(message.data, "big"))

        assert sender.said() == "ready"
        with strikes() as struck:
            while struck.count < 2_000:
                sender.tell(False)
                for _ in range(20):
                    struck.run(take)
        sender.tell(True)
        total = sender.said()
        wait_until(lambda: emptied(bus, numbers) == total, "received + lost = sent")
        bus.send(frame())  # and nothing else is held either
        bus.flush(10)
        assert sender.end() == 0
    assert numbers == sorted(set(numbers))  # in order, none twice
    stats = bus.stats
    # A strike takes one batch of 50 with it, or one message that was about to be returned.
    assert stats.lost <= 50 * struck.count
    assert 0 <= stats.received - len(numbers) <= struck.count


def emptied(bus: Bus, numbers: list[int]) -> int:
    """Takes what is there; returns how many frames the account speaks of."""
    numbers += [int.from_bytes(m.data, "big") for m in bus.recv_batch(10_000, 0.2)]
    return bus.stats.received + bus.stats.lost


def test_a_signal_handler_that_raises_leaves_sends_and_filters_usable(runtime: Runtime) -> None:
    with Bus("x", "virtual") as bus, Bus("x", "virtual") as other:
        filters = itertools.cycle([[{"can_id": n, "can_mask": 0x7FF}] for n in range(3)])

        def use() -> None:
            bus.send(frame())
            bus.set_filters(next(filters))
            bus.flush(10)

        with strikes() as struck:
            while struck.count < 500:
                struck.run(use)
        bus.set_filters(None)
        bus.send(frame(0x1), timeout=10)
        other.send(frame(0x2), timeout=10)
        while (message := bus.recv(10)) is not None and message.arbitration_id != 0x2:
            pass
        assert message is not None
        assert bus.stats.transmit_queue == 0


def test_recv_batch_keeps_what_it_has_when_the_bus_ends(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Bus("x", "virtual") as bus, Bus("x", "virtual") as sender:
        sender.send_batch([frame(number) for number in range(5)], timeout=10)
        wait_until(bus._reception.subscriber.readable, "they have arrived")

        def broken(_: Subscriber, __: object, ___: object) -> None:
            raise CanOperationError("the channel has ended")

        first = bus.recv(10)
        assert first is not None
        monkeypatch.setattr(Subscriber, "receive", lambda _: broken(_, None, None))
        assert [m.arbitration_id for m in bus.recv_batch(100, 0)] == [1, 2, 3, 4]
        with pytest.raises(CanOperationError, match="has ended"):
            bus.recv(0)


def test_listen_only_outlives_the_actor(runtime: Runtime) -> None:
    with Simulated() as adapter, Bus(adapter.path, "slcan", bitrate=500_000) as bus:
        bus.state = BusState.PASSIVE
        wait_until(lambda: passive(runtime), "the broker knows")
        os.kill(actor_of(runtime), signal.SIGKILL)
        wait_until(lambda: restarted(runtime), "the actor is replaced")
        wait_until(lambda: refuses(bus), "the successor is listen-only, too")
        assert adapter.accepted() == []


def refuses(bus: Bus) -> bool:
    """Whether a send is refused for being listen-only; before, for the restart."""
    with pytest.raises(CanOperationError) as refusal:
        bus.send(frame(), timeout=10)
    return "listen-only" in str(refusal.value)


def passive(runtime: Runtime) -> bool:
    (channel,) = status_of(runtime).channels
    return channel.state is not None and channel.state.state == "passive"


def test_the_longest_set_of_filters_and_one_more(runtime: Runtime) -> None:
    filters = [
        {"can_id": 0x1000 + number, "can_mask": 0x1FFFFFFF, "extended": True}
        for number in range(1024)
    ]
    with Bus("x", "virtual", can_filters=filters) as bus:
        assert len(bus.filters or []) == 1024
    with pytest.raises(ValueError, match="1024"):
        Bus("x", "virtual", can_filters=[*filters, filters[0]])


def test_a_bus_that_was_never_opened_says_nothing_when_it_goes(runtime: Runtime) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CanInitializationError):
            Bus("ü" * 6000, "virtual")


def test_a_lock_that_is_no_file_is_a_clear_error(runtime: Runtime) -> None:
    runtime.prepare()
    runtime.lock_path.mkdir()
    with pytest.raises(CanInitializationError, match="cannot lock"):
        Bus("x", "virtual")
    runtime.lock_path.rmdir()


def test_failed_channels_do_not_pile_up(runtime: Runtime) -> None:
    with Bus("x", "virtual"):
        for number in range(3):
            with pytest.raises(CanInitializationError, match="no such device"):
                Bus(f"/dev/nothing{number}", "slcan")
        wait_until(lambda: len(status_of(runtime).channels) == 1, "they are forgotten")


@natively  # by names of Unix sockets, and of links to pseudo-terminals
def test_a_configured_channel_is_opened_when_its_adapter_comes(
    runtime: Runtime, tmp_path: Path
) -> None:
    link = tmp_path / "ttyCAN"
    config = tmp_path / "bench.toml"
    config.write_text(f'[channels.can0]\ninterface = "slcan"\nchannel = "{link}"\n')
    command = EntryPoint.COMMAND.command("serve", "-c", str(config))
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as broker:
        try:
            wait_until(runtime.log_path.parent.exists, "the broker starts")
            wait_until(lambda: phase(runtime) == "failed", "its adapter is missing")
            with Simulated(link=str(link)):
                wait_until(lambda: phase(runtime) == "running", "it is opened", timeout=20)
        finally:
            broker.terminate()


def phase(runtime: Runtime) -> str:
    try:
        (channel,) = status_of(runtime).channels
    except (AssertionError, CanOperationError):
        return "not there yet"
    return channel.phase


def test_importing_is_cheap_and_does_nothing() -> None:
    """What would make it dear: none of the tools of the broker or the command line comes along."""
    code = """
import sys, threading
import canbroker
heavy = {"rich", "click", "serial", "psutil", "subprocess", "can", "canbroker.broker",
         "canbroker.actors", "canbroker.backends"}
print(sorted(heavy & set(sys.modules)), threading.active_count())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] 1\n"
