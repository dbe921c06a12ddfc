"""The raw CAN socket and its options."""

from __future__ import annotations

import errno
import logging
import socket
import struct
from typing import Final

from canbroker.backends.socketcan.error_frames import ALL_CLASSES
from canbroker.backends.socketcan.linux import raw_socket
from canbroker.errors import CanInitializationError

# linux/can/raw.h
_SOL_CAN_RAW: Final = 101
_CAN_RAW_FILTER: Final = 1
_CAN_RAW_ERR_FILTER: Final = 2
_CAN_RAW_LOOPBACK: Final = 3
_CAN_RAW_RECV_OWN_MSGS: Final = 4
_CAN_RAW_FD_FRAMES: Final = 5

# asm-generic/socket.h
_SO_RCVBUFFORCE: Final = 33
SO_TIMESTAMPING: Final = 37
_SO_MEMINFO: Final = 55
_SK_MEMINFO_DROPS: Final = 8  # linux/sock_diag.h: its place in nine u32

# linux/net_tstamp.h: SOF_TIMESTAMPING_RX_HARDWARE, _RX_SOFTWARE, _SOFTWARE, _RAW_HARDWARE
_TIMESTAMPS: Final = 1 << 2 | 1 << 3 | 1 << 4 | 1 << 6

_U32 = struct.Struct("=I")

#: Bytes that a frame costs in the receive buffer: what vcan was seen to take, and a margin.
_FRAME_COST: Final = 1024
#: The shortest frame has 47 bits (SOF to intermission, no stuff bits).
_SHORTEST_BITS: Final = 47
_BUFFER_MS: Final = 100

_log = logging.getLogger("canbroker.socketcan")


def open_socket(name: str, *, fd: bool, bitrate: int | None) -> socket.socket:
    """A non-blocking raw socket on interface ``name`` that receives everything, its own frames
    and all error frames too.

    :raises CanInitializationError: names the interface.
    """
    try:
        raw = raw_socket()
    except OSError as error:
        raise CanInitializationError(
            f"no CAN socket for interface {name}: {error.strerror} (kernel module can_raw)"
        ) from error
    try:
        raw.setblocking(False)
        raw.setsockopt(_SOL_CAN_RAW, _CAN_RAW_LOOPBACK, 1)
        raw.setsockopt(_SOL_CAN_RAW, _CAN_RAW_RECV_OWN_MSGS, 1)
        raw.setsockopt(_SOL_CAN_RAW, _CAN_RAW_ERR_FILTER, ALL_CLASSES)
        if fd:
            raw.setsockopt(_SOL_CAN_RAW, _CAN_RAW_FD_FRAMES, 1)
        raw.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, _TIMESTAMPS)
        _enlarge_buffer(raw, name, bitrate or 1_000_000)
        raw.bind((name,))
    except OSError as error:
        raw.close()
        raise CanInitializationError(f"cannot open interface {name}: {error.strerror}") from error
    return raw


def set_filter(raw: socket.socket, packed: bytes) -> None:
    """Replaces the filter; frames that pass the old and the new one are neither lost nor doubled.

    :raises OSError: the interface is gone.
    """
    raw.setsockopt(_SOL_CAN_RAW, _CAN_RAW_FILTER, packed)


def drops(raw: socket.socket) -> int:
    """Frames that its receive buffer had no room for, modulo 2^32."""
    values = raw.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 9 * _U32.size)
    number: int = _U32.unpack_from(values, _SK_MEMINFO_DROPS * _U32.size)[0]
    return number


def _enlarge_buffer(raw: socket.socket, name: str, bitrate: int) -> None:
    """Makes room for 100 ms of a full bus, as far as we may."""
    frames = max(1_000_000, bitrate) // _SHORTEST_BITS * _BUFFER_MS // 1000
    wanted = frames * _FRAME_COST  # the kernel doubles what it is told
    try:
        raw.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted // 2)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted // 2)
    got = raw.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    if got < wanted // 2 * 2:
        needed = bitrate // _SHORTEST_BITS * _FRAME_COST // 1000
        _log.info(
            "the receive buffer of %s holds %d ms of a full bus; for %d ms: sysctl -w"
            " net.core.rmem_max=%d, or the capability CAP_NET_ADMIN",
            name, got // needed, _BUFFER_MS, wanted // 2,
        )  # fmt: skip
