"""The parameters of a network interface of the kernel."""

from __future__ import annotations

import re
from typing import ClassVar

from canbroker.backends.base import Options
from canbroker.backends.socketcan.netlink import find_link

#: Neither `/` nor white space is allowed (dev_valid_name); ALTIFNAMSIZ (linux/if.h) is 128 with
#: the final NUL.
_NAME = re.compile(r"[^/\s:]{1,127}")


class SocketcanOptions(Options, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Parameters of the interface ``socketcan``.

    ``channel`` is the kernel's name (``can0``), or an alternative name that was set with
    ``ip link property add`` (``altname``). Rates are in bit/s. The parameters are compared with
    the interface's settings. With ``configure``, the interface is set to them and brought up; this
    requires the capability CAP_NET_ADMIN.
    """

    instead: ClassVar[dict[str, str]] = {
        "local_loopback": "other programs on this machine always receive what is sent",
        "ignore_rx_error_frames": "skip the messages whose is_error_frame is true",
    }

    bitrate: int | None = None
    data_bitrate: int | None = None
    fd: bool = False
    listen_only: bool = False
    configure: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _NAME.fullmatch(self.channel) or len(self.channel.encode()) > 127:
            raise ValueError(
                f"channel must name a network interface such as can0, got {self.channel!r}"
            )
        for name in ("bitrate", "data_bitrate"):
            rate = getattr(self, name)
            if rate is not None and not 0 < rate < 1 << 32:
                raise ValueError(f"{name} must be above 0 bit/s, got {rate}")
        if self.data_bitrate is not None and not self.fd:
            raise ValueError("data_bitrate needs fd=True")

    @property
    def identity(self) -> str:
        """The interface's own name, even if ``channel`` is an alternative one."""
        try:
            link = find_link(self.channel)
        except OSError:  # opening it says so, too
            return self.channel
        return link.name if link else self.channel
