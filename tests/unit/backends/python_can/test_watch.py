"""Drivers that say how the bus is by raising, or nothing when their device is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import can
import pytest

from canbroker.backends.base import AdapterGoneError, BusCondition
from canbroker.backends.python_can import PythonCanOptions
from canbroker.backends.python_can.backend import PythonCanBackend
from canbroker.model.frame import Frame
from canbroker.system import clock
from tests.support.benches import collect, transmit, wait_until

FRAME = Frame(0, 0x100, 0, b"\x01")


class IdleBus(can.BusABC):
    """Nothing comes. Each read waits its time first, and then raises ``problem`` if there is one;
    with ``gone`` it returns at once."""

    def __init__(self) -> None:
        self.problem: Exception | None = None
        self.gone = False
        self.reads = 0
        self.timeouts: list[float | None] = []
        self.mode = can.BusState.ACTIVE
        self.refusal: Exception | None = None
        self.channel_info = "idle"
        super().__init__(0)

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        self.reads += 1
        if not self.gone:
            threading.Event().wait(timeout)
        if self.problem is not None:
            raise self.problem
        return None, False

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        del msg
        self.timeouts.append(timeout)
        if self.refusal is not None:
            raise self.refusal

    @property
    def state(self) -> can.BusState:
        return self.mode

    @state.setter
    def state(self, new_state: can.BusState) -> None:
        self.mode = new_state


Open = Callable[..., tuple[IdleBus, PythonCanBackend]]


@pytest.fixture
def opened() -> Iterator[Open]:
    made: list[PythonCanBackend] = []

    def make(interface: str) -> tuple[IdleBus, PythonCanBackend]:
        bus = IdleBus()
        options = PythonCanOptions(channel="0", interface=interface, parameters={})
        made.append(PythonCanBackend(bus, options))
        return bus, made[-1]

    yield make
    for backend in made:
        backend.close()


def condition_of(backend: PythonCanBackend) -> BusCondition:
    backend.read()
    return backend.condition


def some_time(seconds: float) -> None:
    began_ns = clock.monotonic_ns()
    wait_until(
        lambda: clock.monotonic_ns() - began_ns > seconds * clock.SECOND, f"{seconds} s are over"
    )


def test_a_warning_at_each_idle_read_is_no_failure(opened: Open) -> None:
    """python-can's interfaces/ixxat/canlib_vcinpl.py raises so while the controller warns."""
    bus, backend = opened("ixxat")
    bus.problem = can.CanError("Error warning limit exceeded")
    wait_until(lambda: "warning limit" in condition_of(backend).reason, "it is told")
    some_time(1)
    assert not condition_of(backend).off
    assert backend.counters() == {}
    sent = transmit(FRAME)
    backend.send([sent])
    assert collect(backend, bool) == [sent]
    assert sent.failure is None
    bus.problem = None
    wait_until(lambda: condition_of(backend) == BusCondition(), "it is over")


def test_bus_off_at_each_idle_read(opened: Open) -> None:
    bus, backend = opened("ixxat")
    bus.problem, bus.mode = can.CanError("Bus off status"), can.BusState.ERROR
    wait_until(lambda: condition_of(backend).off, "it is told")
    sent = transmit(FRAME)
    backend.send([sent])
    assert collect(backend, bool) == [sent]
    assert sent.failure is not None
    assert "bus-off" in sent.failure.lower().replace(" ", "-")
    assert bus.timeouts == [], "the driver is not asked"
    bus.problem, bus.mode = None, can.BusState.ACTIVE
    wait_until(lambda: condition_of(backend) == BusCondition(), "it is over")


def test_a_change_just_before_the_wake_up_is_cleared_is_seen(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, backend = opened("neovi")
    exchange, off = backend._exchange, BusCondition(off=True, reason="bus-off")
    clear = exchange._wake.clear

    def tell_and_clear() -> None:  # the driver's thread is that fast
        exchange.tell(off)
        clear()

    monkeypatch.setattr(exchange._wake, "clear", tell_and_clear)
    assert condition_of(backend) == off


def test_bus_off_that_is_not_told(opened: Open) -> None:
    bus, backend = opened("ixxat")
    bus.mode = can.BusState.ERROR
    wait_until(lambda: condition_of(backend).off, "it is asked now and then")


def test_an_overrun_that_stays_is_one(opened: Open) -> None:
    """IXXAT's flag is set until the controller is reset, and looked at by each idle read."""
    bus, backend = opened("ixxat")
    bus.problem = can.CanError("Data overrun occurred")
    wait_until(lambda: backend.counters().get("overruns") == 1, "it is counted")
    reads = bus.reads
    wait_until(lambda: bus.reads > reads + 20, "it is raised again and again")
    backend.read()
    assert backend.dropped == 1
    bus.problem = None
    wait_until(lambda: bus.reads > reads + 22, "it is over")
    bus.problem = can.CanError("Data overrun occurred")
    wait_until(lambda: backend.counters().get("overruns") == 2, "and there again")


def test_a_driver_that_raises_overruns_at_once_keeps_no_processor_busy(opened: Open) -> None:
    bus, backend = opened("usb2can")
    bus.gone, bus.problem = True, can.CanOperationError("could not receive message", 18)
    some_time(0.5)
    assert bus.reads < 500
    assert backend.read() == []


def test_bus_off_of_a_driver_that_cannot_be_asked_is_its_frames_failure(opened: Open) -> None:
    """Nobody would say that it is over."""
    bus, backend = opened("usb2can")
    bus.refusal = can.CanOperationError("could not send message", 2)
    failing, fine = transmit(FRAME), transmit(FRAME)
    backend.send([failing])
    assert collect(backend, bool) == [failing]
    assert failing.failure is not None
    assert not condition_of(backend).off
    bus.refusal = None
    backend.send([fine])
    assert collect(backend, bool) == [fine]
    assert fine.failure is None


def test_a_warning_about_what_was_done_all_the_same(opened: Open) -> None:
    """SYSTEC's WARN_FW_TXOVERRUN: the message is in the library's buffer."""
    bus, backend = opened("systec")
    cause = can.CanError("overrun in transmit buffer of the firmware", 0x85)
    bus.refusal = can.CanOperationError()
    bus.refusal.__cause__ = cause
    sent = transmit(FRAME)
    backend.send([sent])
    assert collect(backend, bool) == [sent]
    assert sent.failure is None


@pytest.mark.parametrize(
    ("interface", "timeout"),
    [("kvaser", 0), ("neovi", 0), ("usb2can", 0), ("systec", None), ("canalystii", None)],
)
def test_nobody_waits_for_acknowledgements(
    opened: Open, interface: str, timeout: float | None
) -> None:
    bus, backend = opened(interface)
    backend.send([transmit(FRAME)])
    collect(backend, bool)
    assert bus.timeouts == [timeout]


def test_others_may_wait_for_room(opened: Open) -> None:
    bus, backend = opened("ixxat")
    backend.send([transmit(FRAME)])
    collect(backend, bool)
    assert bus.timeouts == [1]


@pytest.mark.parametrize(("interface", "waits"), [("neovi", False), ("plugin", True)])
def test_a_driver_that_does_not_wait_any_more_is_gone(
    opened: Open, interface: str, waits: bool
) -> None:
    """python-can's neoVI driver swallows the error of a device that is gone, among others."""
    bus, backend = opened(interface)
    if waits:  # a plugin has to be seen to, first
        wait_until(lambda: bus.reads > 1, "it has waited")
    bus.gone = True
    with pytest.raises(AdapterGoneError, match="does not wait"):
        collect(backend, lambda _: False)
    assert bus.reads < 500


def test_a_plugin_that_polls_is_not_gone(opened: Open) -> None:
    """It never waits, and there may be nothing to receive."""
    bus = IdleBus()
    bus.gone = True
    options = PythonCanOptions(channel="0", interface="plugin", parameters={})
    backend = PythonCanBackend(bus, options)
    some_time(1.5)
    assert backend.read() == []
    assert bus.reads < 500
    backend.close()
