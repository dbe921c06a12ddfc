"""What becomes of buses, leases, tasks and notifiers that are copied, fail, or are forgotten."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import can
import pytest

from canbroker import Bus, CanOperationError, Listener, Message, Notifier, ThreadSafeBus, lease
from canbroker.transport.runtime import Runtime
from tests.integration.test_leases import serving
from tests.support.brokers import status_of, wait_until
from tests.support.processes import Program

COPIERS: list[Callable[[Any], object]] = [copy.copy, copy.deepcopy, pickle.dumps]


def frame(identifier: int = 1, *, is_fd: bool = False) -> Message:
    return Message(arbitration_id=identifier, is_extended_id=False, is_fd=is_fd)


def slow_bus(channel: str) -> Bus:
    """200 frames take it half a second."""
    return Bus(channel, "virtual", bitrate=50_000, fd=False)


def has_received(bus: Bus, count: int) -> bool:
    bus.recv_batch(1000, 0)
    return bus.stats.received >= count


def clients(runtime: Runtime) -> list[str]:
    return [c.client_id for channel in status_of(runtime).channels for c in channel.clients]


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What finalizers have raised."""
    raised: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: raised.append(told.exc_value))
    yield raised
    raised.clear()


# --------------------------------------------------------------------------------------- copies


@pytest.mark.parametrize("copier", COPIERS)
@pytest.mark.parametrize("kind", [Bus, ThreadSafeBus])
def test_a_bus_is_not_copied(
    runtime: Runtime, kind: type[Bus], copier: Callable[[Any], object]
) -> None:
    with kind("x", "virtual") as bus, Bus("x", "virtual") as other:
        with pytest.raises(TypeError, match=kind.__name__):
            copier(bus)
        gc.collect()
        bus.send(frame(), timeout=10)
        assert other.recv(10) is not None


@pytest.mark.parametrize("copier", COPIERS)
def test_what_belongs_to_a_bus_is_not_copied(
    runtime: Runtime, copier: Callable[[Any], object]
) -> None:
    with Bus("x", "virtual") as bus:
        tasks = (
            bus.send_periodic(frame(), 10.0),
            bus.send_periodic(frame(), 10.0, modifier_callback=lambda _: None),
        )
        with Notifier(bus, []) as notifier:
            for owned in (*tasks, notifier):
                with pytest.raises(TypeError, match=type(owned).__name__):
                    copier(owned)


@pytest.mark.parametrize("copier", COPIERS)
def test_nor_is_the_plugins(runtime: Runtime, copier: Callable[[Any], object]) -> None:
    with can.Bus("x", interface="canbroker", adapter="virtual") as bus:
        task = bus.send_periodic(can.Message(arbitration_id=1), 10.0)
        for owned in (bus, task):
            with pytest.raises(TypeError, match="Canbroker"):
                copier(owned)
        gc.collect()
        bus.send(can.Message(arbitration_id=1), timeout=10)


# ---------------------------------------------------------------------------------- with blocks


class BlockError(Exception):
    """Raised in the body of a block."""


def test_the_error_of_a_block_is_the_one_that_is_raised(runtime: Runtime) -> None:
    def fail(bus: Any) -> None:
        with bus:
            bus.send(frame(0x235, is_fd=True))  # which fails when the driver gets it
            raise BlockError

    with pytest.raises(BlockError) as raised:
        fail(Bus("x", "virtual", fd=False))
    assert "235##" in "".join(raised.value.__notes__)
    with pytest.raises(CanOperationError, match="235##"), Bus("x", "virtual", fd=False) as bus:
        bus.send(frame(0x235, is_fd=True))


def test_with_the_plugin_too(runtime: Runtime) -> None:
    bus = can.Bus("x", interface="canbroker", adapter="virtual", fd=False)
    bus.send(can.Message(arbitration_id=0x235, is_extended_id=False, is_fd=True))
    with pytest.raises(BlockError) as raised, bus:
        raise BlockError
    assert "235##" in "".join(raised.value.__notes__)


def test_with_a_notifier_too(runtime: Runtime) -> None:
    class Stubborn(Listener):
        def on_message_received(self, msg: Message) -> None:
            pass

        def stop(self) -> None:
            raise RuntimeError("does not stop")

    with Bus("x", "virtual") as bus:
        with pytest.raises(BlockError) as raised, Notifier(bus, [Stubborn()]):
            raise BlockError
        assert "does not stop" in "".join(raised.value.__notes__)
        with pytest.raises(RuntimeError, match="does not stop"), Notifier(bus, [Stubborn()]):
            pass


# ----------------------------------------------------------------------------------- forgotten


def test_a_forgotten_bus_is_ended_where_warnings_are_errors(
    runtime: Runtime, unraisable: list[object]
) -> None:
    bus = slow_bus("x")
    other = slow_bus("x")
    bus.send_batch([frame()] * 200)
    bus.send_periodic(frame(2), 10.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del bus
        gc.collect()
    assert [type(error) for error in unraisable] == [ResourceWarning]
    wait_until(lambda: has_received(other, 200), "what it has sent is on the bus")
    wait_until(lambda: len(clients(runtime)) == 1, "the broker knows that it has left")
    other.shutdown()


def test_a_forgotten_bus_of_a_subclass_has_its_shutdown_called_at_once(runtime: Runtime) -> None:
    said: list[int] = []

    class Talkative(Bus):
        def shutdown(self) -> None:
            said.append(threading.get_ident())
            super().shutdown()

    bus = Talkative("x", "virtual")
    with Bus("x", "virtual"):
        with pytest.warns(ResourceWarning, match="<Talkative 'x'> was not shut down"):
            del bus
        assert said == [threading.get_ident()]
        wait_until(lambda: len(clients(runtime)) == 1, "the broker knows that it has left")


@pytest.mark.parametrize("kind", ["Bus", "CanbrokerBus"])
def test_forgotten_buses_that_the_garbage_collector_finds_are_ended(
    runtime: Runtime, kind: str
) -> None:
    with slow_bus("x") as other:
        source = """
            import can, gc, warnings
            from canbroker.integrations.python_can import CanbrokerBus

            def open_bus():
                if arguments["kind"] == "Bus":
                    return Bus("x", "virtual", bitrate=50_000, fd=False)
                return CanbrokerBus("x", adapter="virtual", bitrate=50_000, fd=False)

            warnings.simplefilter("ignore", ResourceWarning)
            gc.disable()
            for number in range(3):
                cycle = [open_bus()]
                cycle.append(cycle)
                for _ in range(50):
                    cycle[0].send(can.Message(arbitration_id=number, is_extended_id=False))
                periodic = can.Message(arbitration_id=9, is_extended_id=False)
                more = {"on_error": cycle.append} if arguments["kind"] == "Bus" else {}
                cycle.append(cycle[0].send_periodic(periodic, 10.0, **more))
            del cycle, more
            gc.collect()
            say("collected")
            hear()
            """
        with Program(source, kind=kind) as program:
            assert program.said() == "collected"
            wait_until(lambda: has_received(other, 150), "what they have sent is on the bus")
            wait_until(lambda: len(clients(runtime)) == 1, "the broker knows that they have left")
            program.tell("end")
            assert program.end() == 0


def test_a_forgotten_lease_is_given_back_where_warnings_are_errors(
    runtime: Runtime, tmp_path: Path, unraisable: list[object]
) -> None:
    with serving(tmp_path, runtime):
        leased = lease("spare", 0)
        assert leased.channel == "s1"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del leased
            gc.collect()
        assert [type(error) for error in unraisable] == [ResourceWarning]
        lease("spare", 20).release()  # it is given back in the background


def test_all_are_ended_at_the_end_of_a_process_where_warnings_are_errors(
    runtime: Runtime,
) -> None:
    with slow_bus("a") as first, slow_bus("b") as second:
        with Program(
            """
            import warnings
            warnings.simplefilter("error")
            buses = [Bus(name, "virtual") for name in "ab"]
            for bus in buses:
                bus.send_batch([Message(arbitration_id=1, is_extended_id=False)] * 200)
            """
        ) as program:
            assert program.end() == 0
        wait_until(lambda: has_received(first, 200), "the frames of one bus have been sent")
        wait_until(lambda: has_received(second, 200), "those of the other bus, too")


def test_a_failed_open_warns_of_nothing(runtime: Runtime) -> None:
    source = (
        "import canbroker\n"
        "try: canbroker.Bus('x', 'virtual', bitrate='nonsense')\n"
        "except canbroker.CanInitializationError: print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", source],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "refused\n"
    assert done.stderr == ""
