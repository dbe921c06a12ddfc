"""The kernel's network interfaces, read and set through rtnetlink.

Layouts and numbers: ``linux/netlink.h``, ``linux/rtnetlink.h``, ``linux/if_link.h``,
``linux/can/netlink.h``.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from canbroker.backends.socketcan.linux import netlink_socket
from canbroker.model.error_counters import ErrorCounters

_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLM_F_REQUEST: Final = 0x1
_NLM_F_ACK: Final = 0x4
_NLM_F_DUMP: Final = 0x300
_RTM_NEWLINK: Final = 16
_RTM_GETLINK: Final = 18

_IFLA_IFNAME: Final = 3
_IFLA_MTU: Final = 4
_IFLA_TXQLEN: Final = 13
_IFLA_LINKINFO: Final = 18
_IFLA_STATS64: Final = 23
_IFLA_ALT_IFNAME: Final = 53
_IFLA_INFO_KIND: Final = 1
_IFLA_INFO_DATA: Final = 2
_IFLA_PARENT_DEV_NAME: Final = 56
_IFLA_CAN_BITTIMING: Final = 1
_IFLA_CAN_STATE: Final = 4
_IFLA_CAN_CTRLMODE: Final = 5
_IFLA_CAN_RESTART_MS: Final = 6
_IFLA_CAN_BERR_COUNTER: Final = 8
_IFLA_CAN_DATA_BITTIMING: Final = 9

_ARPHRD_CAN: Final = 280  # linux/if_arp.h
_IFNAMSIZ: Final = 16  # linux/if.h
_IFF_UP: Final = 0x1  # linux/if.h
_IFF_ECHO: Final = 0x40000
_LISTENONLY: Final = 0x02
_FD: Final = 0x20
_STATES: Final = ("active", "warning", "passive", "bus-off", "stopped", "sleeping")
_TYPE_MASK: Final = 0x3FFF  # without NLA_F_NESTED, NLA_F_NET_BYTEORDER

_MESSAGE = struct.Struct("=IHHII")  # struct nlmsghdr
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")
_U64 = struct.Struct("=Q")
_BITTIMING_SIZE: Final = 32  # struct can_bittiming: eight u32, the bitrate first

#: A dump sends messages of at most 32 KiB (NETLINK_ROUTE's own limit).
_BUFFER: Final = 65_536
_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True)
class NetDevice:
    """A CAN interface as the kernel describes it. Rates in bit/s, ``None`` where it has none."""

    index: int
    name: str
    kind: str  # "can" for controllers, "vcan", "vxcan"
    up: bool
    mtu: int
    queue_length: int = 0  # frames that wait for the controller at most
    echoes: bool = False  # the driver hands back what it has sent; else the kernel, before that
    transmitted: int = 0  # frames that it has sent, whoever sent them
    bitrate: int | None = None
    data_bitrate: int | None = None
    fd: bool = False
    listen_only: bool = False
    state: str | None = None  # of the controller
    restart_ms: int | None = None
    errors: ErrorCounters | None = None  # if the driver tells them
    device: str | None = None  # where it is attached (1-2:1.0), if the kernel tells


def find_link(name: str) -> NetDevice | None:
    """The CAN interface of this name, which may be an alternative one; ``None`` if there is none,
    or it is of another sort.

    :raises OSError: the kernel cannot be asked.
    """
    if sys.platform != "linux":
        return None
    # The kernel looks for any of an interface's names; one of the first kind has at most 15 bytes.
    kind = _IFLA_IFNAME if len(name.encode()) < _IFNAMSIZ else _IFLA_ALT_IFNAME
    return _one(_request(_RTM_GETLINK, 0, _link_header(0), _attribute(kind, _text(name))))


def look_again(link: NetDevice) -> NetDevice | None:
    """The interface as it is now, whatever its name; ``None`` if it is gone.

    :raises OSError: the kernel cannot be asked.
    """
    return _one(_request(_RTM_GETLINK, 0, _link_header(link.index)))


def list_links() -> list[NetDevice]:
    """Every CAN interface of this network namespace, in the kernel's order.

    :raises OSError: the kernel cannot be asked.
    """
    return list(_links(_exchange(_request(_RTM_GETLINK, _NLM_F_DUMP, _link_header(0)))))


def set_up(link: NetDevice, up: bool) -> None:
    """Brings an interface up, or takes it down.

    :raises OSError: ``EPERM`` without CAP_NET_ADMIN; ``EINVAL`` without a bitrate.
    """
    flags = _IFF_UP if up else 0
    _exchange(_request(_RTM_NEWLINK, _NLM_F_ACK, _link_header(link.index, flags, _IFF_UP)))


def set_mtu(link: NetDevice, mtu: int) -> None:
    """Sets the MTU of an interface that is down.

    :raises OSError: ``EPERM`` without CAP_NET_ADMIN; ``EINVAL`` if it cannot have that one.
    """
    attribute = _attribute(_IFLA_MTU, _U32.pack(mtu))
    _exchange(_request(_RTM_NEWLINK, _NLM_F_ACK, _link_header(link.index), attribute))


def set_controller(
    link: NetDevice, bitrate: int | None, data_bitrate: int | None, *, fd: bool, listen_only: bool
) -> None:
    """Sets a controller that is down; rates that are ``None`` stay as they are. CAN FD needs both.

    :raises OSError: ``EPERM`` without CAP_NET_ADMIN; ``EOPNOTSUPP``, ``EINVAL`` and others where
        the controller cannot do it.
    """
    modes = (_FD if fd else 0) | (_LISTENONLY if listen_only else 0)
    # What is not in the mask stays. A controller without FD refuses even to be told not to; one
    # that has it takes a data bitrate only together with FD, even if that is on.
    mask = (_FD if fd or link.fd else 0) | (_LISTENONLY if listen_only != link.listen_only else 0)
    settings = [_attribute(_IFLA_CAN_CTRLMODE, struct.pack("=II", mask, modes & mask))]
    if bitrate is not None:
        settings.append(_attribute(_IFLA_CAN_BITTIMING, _bittiming(bitrate)))
    if data_bitrate is not None:
        settings.append(_attribute(_IFLA_CAN_DATA_BITTIMING, _bittiming(data_bitrate)))
    info = _attribute(_IFLA_INFO_KIND, _text(link.kind)) + _attribute(
        _IFLA_INFO_DATA, b"".join(settings)
    )
    request = _request(
        _RTM_NEWLINK, _NLM_F_ACK, _link_header(link.index), _attribute(_IFLA_LINKINFO, info)
    )
    _exchange(request)


def parse_link(payload: bytes) -> NetDevice | None:
    """The CAN interface that an RTM_NEWLINK message describes; ``None`` for any other sort.

    :raises ValueError: it is not such a message.
    """
    if len(payload) < _LINK.size:
        raise ValueError(f"{len(payload)} bytes are not a link message")
    _, hardware, index, flags, _ = _LINK.unpack_from(payload)
    if hardware != _ARPHRD_CAN:
        return None
    attributes = parse_attributes(payload[_LINK.size :])
    info = parse_attributes(attributes.get(_IFLA_LINKINFO, b""))
    kind = _string(info.get(_IFLA_INFO_KIND)) or "can"
    # Each kind has its own attributes; vxcan's, say, are something else.
    can = parse_attributes(info.get(_IFLA_INFO_DATA, b"")) if kind == "can" else {}
    modes = _u32(can.get(_IFLA_CAN_CTRLMODE), at=4) or 0
    state = _u32(can.get(_IFLA_CAN_STATE))
    return NetDevice(
        index=index,
        name=_string(attributes.get(_IFLA_IFNAME)) or "",
        kind=kind,
        up=bool(flags & _IFF_UP),
        mtu=_u32(attributes.get(_IFLA_MTU)) or 0,
        queue_length=_u32(attributes.get(_IFLA_TXQLEN)) or 0,
        echoes=bool(flags & _IFF_ECHO),
        transmitted=_u64(attributes.get(_IFLA_STATS64), at=8) or 0,
        bitrate=_u32(can.get(_IFLA_CAN_BITTIMING)) or None,
        data_bitrate=_u32(can.get(_IFLA_CAN_DATA_BITTIMING)) or None,
        fd=bool(modes & _FD),
        listen_only=bool(modes & _LISTENONLY),
        state=_STATES[state] if state is not None and state < len(_STATES) else None,
        restart_ms=_u32(can.get(_IFLA_CAN_RESTART_MS)),
        errors=_errors(can.get(_IFLA_CAN_BERR_COUNTER)),
        device=_string(attributes.get(_IFLA_PARENT_DEV_NAME)),
    )


def parse_attributes(data: bytes) -> dict[int, bytes]:
    """Attribute type -> value.

    :raises ValueError: a length that does not fit.
    """
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if not _ATTRIBUTE.size <= length <= len(data) - at:
            raise ValueError(f"attribute of {length} bytes where {len(data) - at} are left")
        found[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)
    return found


def _one(request: bytes) -> NetDevice | None:
    try:
        return next(_links(_exchange(request)), None)
    except OSError as error:
        if error.errno in {errno.ENODEV, errno.EINVAL}:
            return None
        raise


def _exchange(request: bytes) -> list[bytes]:
    """Asks the kernel; returns the payloads of the answer's link messages."""
    answers: list[bytes] = []
    with netlink_socket() as netlink:
        netlink.settimeout(_TIMEOUT_S)
        netlink.sendto(request, (0, 0))
        wants_more = bool(_MESSAGE.unpack_from(request)[2] & _NLM_F_DUMP)
        while True:
            for kind, payload in _messages(netlink.recv(_BUFFER)):
                if kind == _NLMSG_DONE:
                    return answers
                if kind == _NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", payload)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return answers
                answers.append(payload)
            if answers and not wants_more:
                return answers


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _MESSAGE.size <= len(data):
        length, kind, _, _, _ = _MESSAGE.unpack_from(data, at)
        if not _MESSAGE.size <= length <= len(data) - at:
            raise OSError(errno.EBADMSG, f"netlink message of {length} bytes")
        yield kind, data[at + _MESSAGE.size : at + length]
        at += _aligned(length)


def _links(payloads: list[bytes]) -> Iterator[NetDevice]:
    for payload in payloads:
        try:
            link = parse_link(payload)
        except ValueError as error:
            raise OSError(errno.EBADMSG, f"netlink: {error}") from error
        if link is not None:
            yield link


def _request(kind: int, flags: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return _MESSAGE.pack(_MESSAGE.size + len(body), kind, flags | _NLM_F_REQUEST, 1, 0) + body


def _link_header(index: int, flags: int = 0, change: int = 0) -> bytes:
    return _LINK.pack(socket.AF_UNSPEC, 0, index, flags, change)


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value.ljust(_aligned(length) - _ATTRIBUTE.size, b"\0")


def _bittiming(bitrate: int) -> bytes:
    return _U32.pack(bitrate).ljust(_BITTIMING_SIZE, b"\0")  # the driver computes the rest


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _text(text: str) -> bytes:
    return text.encode() + b"\0"


def _string(value: bytes | None) -> str | None:
    return value.split(b"\0", 1)[0].decode(errors="replace") if value else None


def _errors(value: bytes | None) -> ErrorCounters | None:
    """The ``struct can_berr_counter`` of linux/can/netlink.h."""
    transmit, receive = _number(_U16, value, 0), _number(_U16, value, 2)
    return None if transmit is None or receive is None else ErrorCounters(transmit, receive)


def _u32(value: bytes | None, at: int = 0) -> int | None:
    return _number(_U32, value, at)


def _u64(value: bytes | None, at: int = 0) -> int | None:
    return _number(_U64, value, at)


def _number(layout: struct.Struct, value: bytes | None, at: int) -> int | None:
    if value is None or len(value) < at + layout.size:
        return None
    number: int = layout.unpack_from(value, at)[0]
    return number
