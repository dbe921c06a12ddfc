"""What only Linux has: its sockets for CAN, and a descriptor for several. All others refuse.

So the modules beside this one can be imported, and their types checked, on every system.
"""

from __future__ import annotations

import errno
import select
import socket
import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from canbroker.system.handles import Descriptor

#: As ``socket.recvmsg`` returns it.
Received: TypeAlias = "tuple[bytes, list[tuple[int, int, bytes]], int, Any]"


class Polled(Protocol):
    """A set of descriptors that is readable when one of them is."""

    @property
    def closed(self) -> bool: ...

    def fileno(self) -> int: ...

    def close(self) -> None: ...


if sys.platform == "linux":

    def raw_socket() -> socket.socket:
        """:raises OSError: the kernel has no CAN, or the system is not Linux."""
        return socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)

    def broadcast_socket() -> socket.socket:
        """:raises OSError: the kernel has no module can_bcm, or the system is not Linux."""
        return socket.socket(socket.AF_CAN, socket.SOCK_DGRAM, socket.CAN_BCM)

    def netlink_socket() -> socket.socket:
        """:raises OSError: the system is not Linux."""
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)

    def receiver(raw: socket.socket) -> Callable[[int, int], Received]:
        """The method ``recvmsg`` of a socket."""
        return raw.recvmsg

    def ancillary_size(size: int) -> int:
        """The room for one message beside the data."""
        return socket.CMSG_SPACE(size)

    def polled(one: socket.socket, other: Descriptor) -> Polled:
        """:raises OSError: no descriptor is left."""
        found = select.epoll(2)
        found.register(one, select.EPOLLIN)
        found.register(other, select.EPOLLIN)
        return found

else:

    def raw_socket() -> socket.socket:
        raise _refusal()

    def broadcast_socket() -> socket.socket:
        raise _refusal()

    def netlink_socket() -> socket.socket:
        raise _refusal()

    def receiver(raw: socket.socket) -> Callable[[int, int], Received]:  # noqa: ARG001
        raise _refusal()

    def ancillary_size(size: int) -> int:
        return size

    def polled(one: socket.socket, other: Descriptor) -> Polled:  # noqa: ARG001
        raise _refusal()

    def _refusal() -> OSError:
        return OSError(errno.EPROTONOSUPPORT, "only Linux has SocketCAN")
