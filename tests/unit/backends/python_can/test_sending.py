"""Drivers of python-can whose transmit queue is full, or that say something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import can
import pytest

from canbroker.backends.python_can import PythonCanOptions
from canbroker.backends.python_can.backend import PythonCanBackend
from canbroker.backends.python_can.failures import DriverError, foreign
from canbroker.backends.python_can.known import Meaning, driver
from canbroker.model.frame import Frame
from canbroker.system import clock
from tests.plugins.nasty_can import NastyBus, refuse
from tests.support.benches import Item, collect, transmit, wait_until

FRAME = Frame(0, 0x100, 0, b"\x01")

Open = Callable[[NastyBus], PythonCanBackend]


@pytest.fixture
def opened() -> Iterator[Open]:
    made: list[PythonCanBackend] = []

    def make(bus: NastyBus) -> PythonCanBackend:
        made.append(
            PythonCanBackend(bus, PythonCanOptions(channel="x", interface="nasty", parameters={}))
        )
        return made[-1]

    yield make
    for backend in made:
        backend.close()


def ended(backend: PythonCanBackend) -> list[Item]:
    return collect(backend, bool)


def test_a_frame_waits_for_room_and_nothing_overtakes_it(opened: Open) -> None:
    bus = NastyBus("x", send="full")
    backend = opened(bus)
    sent = [transmit(Frame(0, number, 0, b"")) for number in range(10)]
    backend.send(sent)
    wait_until(lambda: bus.attempts > 3, "it tries again")
    assert backend.read() == []
    bus.ways["send"] = "fine"
    items = collect(backend, lambda items: len(items) >= 20)
    assert [item for item in items if item in sent] == sent
    assert {item.failure for item in sent} == {None}


def test_a_full_queue_keeps_no_processor_busy(opened: Open) -> None:
    bus = NastyBus("x", send="full")
    backend = opened(bus)
    backend.send([transmit(FRAME)])
    start_ns = clock.monotonic_ns()
    wait_until(lambda: clock.monotonic_ns() - start_ns > clock.SECOND // 2, "half a second")
    assert bus.attempts < 100, "it pauses; without pauses it would be many thousands"


def test_a_frame_expires_while_the_queue_is_full_and_is_not_sent_then(opened: Open) -> None:
    bus = NastyBus("x", send="full")
    backend = opened(bus)
    late = transmit(FRAME, expires_ns=clock.monotonic_ns() + 50 * clock.MILLISECOND)
    backend.send([late])
    assert ended(backend) == [late]
    assert late.failure == "expired while the driver's transmit queue was full"
    bus.ways["send"] = "fine"
    attempts = bus.attempts
    backend.send([transmit(FRAME)])
    collect(backend, lambda items: len(items) >= 2)
    assert bus.attempts == attempts + 1


def test_closing_does_not_wait_for_room(opened: Open) -> None:
    bus = NastyBus("x", send="full")
    backend = opened(bus)
    waiting = [transmit(FRAME), transmit(FRAME)]
    backend.send(waiting)
    wait_until(lambda: bus.attempts > 0, "it tries")
    backend.close()
    attempts = bus.attempts
    bus.ways["send"] = "fine"
    assert list(backend.abandon()) == waiting
    assert (bus.attempts, bus.inbox.empty()) == (attempts, True), "nothing stale is sent"


def test_a_timeout_of_the_driver_is_no_full_queue(opened: Open) -> None:
    """The frame may be in the driver's queue and be sent yet: once more could be twice."""
    bus = NastyBus("x", send="late")
    backend = opened(bus)
    sent = transmit(FRAME)
    backend.send([sent])
    assert ended(backend) == [sent]
    assert sent.failure == "send failed: CanTimeoutError: not acknowledged"
    assert sent.unknown
    assert bus.attempts == 1


@pytest.mark.parametrize(
    ("interface", "code", "full"),
    [
        ("kvaser", -13, True),
        ("vector", 11, True),
        ("kvaser", 11, False),
        ("nasty", -13, False),
        ("kvaser", None, False),
        ("nasty", None, False),
    ],
)
def test_the_vendors_numbers_for_a_full_queue(interface: str, code: int | None, full: bool) -> None:
    with pytest.raises(DriverError) as raised, foreign("send"):
        raise can.CanOperationError("refused", code)
    assert (raised.value.meaning(driver(interface)) is Meaning.FULL) == full


def test_the_systems_number_holds_for_every_driver() -> None:
    with pytest.raises(DriverError, match="Failed to transmit") as raised, foreign("send"):
        refuse()
    assert raised.value.meaning(driver("nasty")) is Meaning.FULL
    assert not raised.value.fatal
