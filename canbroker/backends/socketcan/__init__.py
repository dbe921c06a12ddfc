"""CAN interfaces of the Linux kernel, by the standard library's sockets.

:mod:`.options` are the parameters, :mod:`.netlink` reads and sets the kernel's interfaces,
:mod:`.interface` compares the two, :mod:`.sockets` opens the raw socket, :mod:`.codec` converts its
frames, :mod:`.error_frames` explains error frames, :mod:`.passing` computes the kernel's filter,
:mod:`.queue` tracks transmits and their confirmations, :mod:`.bcm` makes the kernel send periodic
frames, :mod:`.rhythm` corrects their timers. :mod:`.backend` puts all of it together.
"""

from canbroker.backends.socketcan.backend import SocketcanBackend, open_interface
from canbroker.backends.socketcan.options import SocketcanOptions

__all__ = ["OPTIONS", "SocketcanBackend", "SocketcanOptions", "open"]

OPTIONS = SocketcanOptions
open = open_interface  # noqa: A001 - the name that every backend module has
