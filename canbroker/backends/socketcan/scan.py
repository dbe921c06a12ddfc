"""Which CAN interfaces this machine has."""

from __future__ import annotations

import socket

from canbroker.backends.socketcan.netlink import NetDevice, list_links


def interfaces() -> list[NetDevice]:
    """Every CAN interface with its state, by name; none where the system is not Linux.

    :raises OSError: the kernel cannot be asked.
    """
    if not hasattr(socket, "AF_NETLINK"):
        return []
    return sorted(list_links(), key=lambda link: link.name)
