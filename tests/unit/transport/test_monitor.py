"""Monitors report the events of a socket, however soon one follows another."""

from __future__ import annotations

import zmq

from canbroker.transport.monitor import close_monitor, events_of, open_monitor
from tests.support.brokers import wait_until


def test_a_monitor_reports_the_connections_of_its_socket() -> None:
    with zmq.Context[zmq.Socket[bytes]]() as context, context.socket(zmq.ROUTER) as socket:
        monitor = open_monitor(socket, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        seen: list[tuple[int, int]] = []

        def has_seen(number: int) -> bool:
            seen.extend(events_of(monitor))
            return len(seen) == number

        with context.socket(zmq.DEALER) as peer:
            peer.connect(f"tcp://127.0.0.1:{port}")
            wait_until(lambda: has_seen(1), "it has connected")
        wait_until(lambda: has_seen(2), "it is gone")
        (accepted, connection), (disconnected, the_same) = seen
        assert (accepted, disconnected) == (zmq.EVENT_ACCEPTED, zmq.EVENT_DISCONNECTED)
        assert connection == the_same
        close_monitor(socket, monitor)


def test_a_monitor_opens_right_after_another_was_closed() -> None:
    """libzmq frees the address of a monitor only some time after that is closed."""
    with zmq.Context[zmq.Socket[bytes]]() as context:
        for _ in range(100):
            with context.socket(zmq.DEALER) as socket:
                close_monitor(socket, open_monitor(socket, zmq.EVENT_CONNECTED))
