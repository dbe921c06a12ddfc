"""What happens to the connections of a socket, as libzmq reports it (zmq_socket_monitor(3))."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import Final, cast

import zmq

from canbroker.transport.sockets import Socket, readable

#: An event and its value: a connection's descriptor, for most.
_EVENT: Final = struct.Struct("=Hi")

#: Each monitor has an address of its own: libzmq frees one some time after its socket is closed.
_numbers = itertools.count()


def open_monitor(socket: Socket, events: int) -> Socket:
    """A socket that reports these ``events`` of ``socket``; see :func:`events_of`.

    :raises zmq.ZMQError: no descriptors are left.
    """
    where = f"inproc://monitor-{next(_numbers)}"
    socket.monitor(where, events)
    try:
        monitor = cast("zmq.Context[Socket]", socket.context).socket(zmq.PAIR)
    except zmq.ZMQError:
        socket.disable_monitor()
        raise
    monitor.setsockopt(zmq.RCVHWM, 0)  # libzmq would do nothing else until there is room
    monitor.connect(where)
    return monitor


def events_of(monitor: Socket) -> Iterator[tuple[int, int]]:
    """The events that have been reported, each with its value. Never waits."""
    while readable(monitor):
        event, value = _EVENT.unpack(monitor.recv_multipart(zmq.NOBLOCK)[0])
        yield event, value


def close_monitor(socket: Socket, monitor: Socket) -> None:
    """Ends the reports of ``socket``, which may be closed already."""
    if not socket.closed:
        socket.disable_monitor()
    monitor.close(linger=0)
