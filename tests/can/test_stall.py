"""Interfaces that do not confirm what they send: a vcan that echoes as a controller's driver does
(drivers/net/can/vcan.c, module parameter ``echo``), whose frames ``tc`` loses, delays, or marks as
not to be echoed. Run with ``tools/can-vm --echo``."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from canbroker import Bus, BusState, CanOperationError, Message
from canbroker.backends.base import Repetition
from canbroker.backends.socketcan.queue import STALLED, WINDOW
from canbroker.model.frame import EchoFrame, Frame
from canbroker.transport.runtime import Runtime
from tests.can.conftest import Open
from tests.support.benches import collect, transmit
from tests.support.brokers import status_of, wait_until
from tests.support.vcan import needs_admin, needs_can

_ECHO = Path("/sys/module/vcan/parameters/echo")

pytestmark = [
    needs_can,
    needs_admin,
    pytest.mark.skipif(
        not _ECHO.exists() or _ECHO.read_text().strip() != "Y",
        reason="vcan does not echo itself: tools/can-vm --echo",
    ),
]


def tc(*words: str) -> None:
    subprocess.run(["tc", *words], check=True, capture_output=True, text=True)  # noqa: S607


def lose(interface: str) -> None:
    """What is sent from now on is never heard of again."""
    tc("qdisc", "add", "dev", interface, "root", "blackhole")


def restore(interface: str) -> None:
    tc("qdisc", "del", "dev", interface, "root")


def mute(interface: str) -> None:
    """What is sent is sent, but not handed back: vcan looks for PACKET_LOOPBACK, as all do."""
    tc("qdisc", "add", "dev", interface, "clsact")
    action = ("action", "skbedit", "ptype", "host")
    tc("filter", "add", "dev", interface, "egress", "matchall", *action)


def frame(number: int) -> Frame:
    return Frame(0, number, 0, b"\x01")


def test_what_is_never_confirmed_is_told_and_the_channel_sends_again(
    open_interface: Open, own_interface: str
) -> None:
    backend = open_interface(own_interface)
    lose(own_interface)
    lost = [transmit(frame(number)) for number in range(WINDOW)]
    backend.send(lost)
    assert backend.room("c") == 0
    assert collect(backend, lambda items: len(items) >= WINDOW) == lost
    assert all(item.unknown for item in lost)
    assert {item.failure for item in lost} == {STALLED}
    assert (backend.condition.off, backend.condition.reason) == (False, STALLED)
    assert backend.counters()["stalled"] == 1
    # One frame at a time is tried; the others wait here, and are told with it.
    assert backend.room("c") == WINDOW
    tried = [transmit(frame(number)) for number in range(3)]
    backend.send(tried)
    assert collect(backend, lambda items: len(items) >= 3) == tried
    assert [item.unknown for item in tried] == [True, False, False]
    assert {item.failure for item in tried} == {STALLED}
    restore(own_interface)
    sent = [transmit(frame(number)) for number in range(WINDOW)]
    backend.send(sent)
    assert collect(backend, lambda items: len(items) >= WINDOW) == sent
    assert {item.failure for item in sent} == {None}
    assert backend.condition.reason == ""


def test_clients_are_told_and_go_on(runtime: Runtime, own_interface: str) -> None:
    message = Message(arbitration_id=1, is_extended_id=False)
    with Bus(own_interface, "socketcan") as bus, Bus(own_interface, "socketcan") as other:
        bus.send(message, timeout=10)
        assert other.recv(10) is not None
        lose(own_interface)
        with pytest.raises(CanOperationError, match="is not known to be sent: transmission stalls"):
            bus.send(message, timeout=10)

        def reason() -> str:
            (channel,) = status_of(runtime).channels
            return channel.state.reason if channel.state else ""

        wait_until(lambda: reason() == STALLED, "the state says so")
        assert bus.state is BusState.ACTIVE, "it receives, and tries to send"
        assert bus.stats.failed == 1
        restore(own_interface)
        bus.send(message, timeout=10)
        wait_until(lambda: reason() == "", "that is over")
        assert other.recv(10) is not None
        assert other.recv(0) is None


def test_what_is_sent_after_it_was_given_up_is_received(
    open_interface: Open, own_interface: str
) -> None:
    backend = open_interface(own_interface)
    tc("qdisc", "add", "dev", own_interface, "root", "netem", "delay", "4s")
    given_up = transmit(frame(1))
    backend.send([given_up])
    assert collect(backend, bool) == [given_up]
    assert given_up.unknown
    [late] = collect(backend, bool)
    assert isinstance(late, EchoFrame)
    assert (late.arbitration_id, late.origin) == (1, given_up.origin)
    assert backend.condition.reason == ""
    assert "unexpected_confirmation" not in backend.counters()


def test_a_stall_of_what_the_kernel_repeats_is_told(
    open_interface: Open, own_interface: str
) -> None:
    backend = open_interface(own_interface)
    task = Repetition(key=("c", 1), frames=[frame(1)], period_ns=10_000_000, due_ns=0)
    assert backend.repeat(task) is None
    collect(backend, bool)
    lose(own_interface)
    collect(backend, lambda _: backend.condition.reason == STALLED)
    assert backend.repeats, "it has echoed before"
    restore(own_interface)
    collect(backend, lambda _: backend.condition.reason == "")
    assert backend.repeated()


def test_a_driver_that_never_echoes_is_served_without(
    open_interface: Open, own_interface: str
) -> None:
    backend = open_interface(own_interface)
    mute(own_interface)
    for _ in range(3):  # the first ones take until that is found out
        sent = [transmit(frame(number)) for number in range(WINDOW)]
        backend.send(sent)
        assert collect(backend, lambda items: len(items) >= WINDOW) == sent
        assert {item.failure for item in sent} == {None}
        assert all(item.timestamp_ns for item in sent)
    assert backend.condition.reason == ""
    assert not backend.repeats


def test_clients_share_a_driver_that_never_echoes(runtime: Runtime, own_interface: str) -> None:
    mute(own_interface)
    with Bus(own_interface, "socketcan") as bus, Bus(own_interface, "socketcan") as other:
        task = bus.send_periodic(Message(arbitration_id=2, is_extended_id=False), 0.01)
        wait_until(lambda: status_of(runtime).channels[0].state is not None, "it is open")
        for _ in range(20):
            received = other.recv(20)
            assert received is not None, "the task is the scheduler's"
            assert received.arbitration_id == 2
        task.stop()
        bus.send(Message(arbitration_id=1, is_extended_id=False), timeout=10)
        wait_until(
            lambda: 1 in {m.arbitration_id for m in other.recv_batch(1000, 0)}, "it is received"
        )
        assert bus.stats.failed == 0
