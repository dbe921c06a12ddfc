"""CAN interfaces of the Linux kernel, by the standard library's sockets.

:mod:`.options` what a user says, :mod:`.netlink` what the kernel says of its interfaces,
:mod:`.interface` the one against the other, :mod:`.sockets` the raw socket, :mod:`.codec` its
frames, :mod:`.error_frames` what a controller reports, :mod:`.passing` the kernel's filter,
:mod:`.queue` transmits and their confirmations, :mod:`.bcm` what the kernel repeats by itself,
:mod:`.rhythm` the timers of that, :mod:`.backend` all of it together.
"""

from canbroker.backends.socketcan.backend import SocketcanBackend, open_interface
from canbroker.backends.socketcan.options import SocketcanOptions

__all__ = ["OPTIONS", "SocketcanBackend", "SocketcanOptions", "open"]

OPTIONS = SocketcanOptions
open = open_interface  # noqa: A001 - the name that every backend module has
