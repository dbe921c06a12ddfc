"""Compares the requested options with the kernel's interface."""

from __future__ import annotations

import errno
import logging
from typing import Final

from canbroker.backends.base import BusCondition
from canbroker.backends.socketcan import netlink
from canbroker.backends.socketcan.codec import CAN_MTU, CANFD_MTU
from canbroker.backends.socketcan.netlink import NetDevice
from canbroker.backends.socketcan.options import SocketcanOptions
from canbroker.errors import CanInitializationError
from canbroker.model.error_counters import ErrorCounters

_ERROR_STATES: Final = {"warning", "passive"}

_log = logging.getLogger("canbroker.socketcan")


def prepare(options: SocketcanOptions) -> NetDevice:
    """The interface, up and as requested; with ``configure``, it is set up if necessary.

    :raises CanInitializationError: names the interface, what it is, and the command to change it.
    """
    link = _look_up(options.channel)
    wrong = mismatch(options, link)
    if wrong is not None and options.configure:
        _configure(options, link)
        link = _look_up(options.channel)
        wrong = mismatch(options, link)
    if wrong is not None:
        raise CanInitializationError(wrong)
    if link.mtu >= CANFD_MTU and not options.fd:
        _log.warning(
            "interface %s has CAN FD (MTU %d), but was opened without fd=True: FD frames of others"
            " are counted (fd_frame), not received",
            link.name, link.mtu,
        )  # fmt: skip
    return link


def mismatch(options: SocketcanOptions, link: NetDevice) -> str | None:
    """How the interface differs from the request, and the command to change it; ``None`` if not.

    An interface without a controller (vcan) has no rates: it agrees with any.
    """
    name = link.name
    for what, asked, has in (
        ("bitrate", options.bitrate, link.bitrate),
        ("data_bitrate", options.data_bitrate, link.data_bitrate),
    ):
        if asked is not None and link.kind == "can" and asked != has:
            problem = f"has {what} {has}, not {asked}" if has else f"has no {what}, not {asked}"
            return f"interface {name} {problem}; {command(options, link)}"
    if options.fd and link.mtu < CANFD_MTU:
        return (
            f"interface {name} is not set to CAN FD (its MTU is {link.mtu});"
            f" {command(options, link)}"
        )
    if options.listen_only and link.kind == "can" and not link.listen_only:
        return f"interface {name} is not in listen-only mode; {command(options, link)}"
    if not link.up:
        return f"interface {name} is down; ip link set {name} up"
    return None


def command(options: SocketcanOptions, link: NetDevice) -> str:
    """The shell command that sets up the interface as requested."""
    name = link.name
    if link.kind != "can":
        change = f"ip link set {name} mtu {CANFD_MTU}"
    else:
        words = [f"ip link set {name} type can"]
        bitrate, data_bitrate = _rates(options, link)
        if bitrate is not None:
            words.append(f"bitrate {bitrate}")
        if data_bitrate is not None:
            words.append(f"dbitrate {data_bitrate}")
        if options.fd:
            words.append("fd on")
        if options.listen_only:
            words.append("listen-only on")
        change = " ".join(words)
    return f"ip link set {name} down && {change} && ip link set {name} up"


def condition_of(link: NetDevice) -> BusCondition:
    """The condition of the controller when the interface is opened."""
    if link.state == "bus-off":
        return BusCondition(off=True, reason="bus-off")
    return BusCondition(reason=f"error {link.state}" if link.state in _ERROR_STATES else "")


def describe(link: NetDevice) -> str:
    """A line for people."""
    parts = [link.kind, f"MTU {link.mtu}"]
    if link.listen_only:
        parts.append("listen-only")
    if link.restart_ms:
        parts.append(f"restart-ms {link.restart_ms}")
    if link.device:
        parts.append(f"at {link.device}")
    return f"socketcan {link.name} ({', '.join(parts)})"


def sent_since(link: NetDevice) -> int:
    """Frames of all programs that the interface has sent since it was looked up, as its driver
    counts them; 0 if the kernel cannot be asked."""
    try:
        now = netlink.look_again(link)
    except OSError:
        return 0
    return now.transmitted - link.transmitted if now else 0


def errors_now(link: NetDevice) -> ErrorCounters | None:
    """The controller's error counters, as its driver tells them; ``None`` if it does not."""
    if link.errors is None:
        return None
    try:
        now = netlink.look_again(link)
    except OSError:
        return None
    return now.errors if now else None


def _look_up(name: str) -> NetDevice:
    try:
        link = netlink.find_link(name)
    except OSError as error:
        raise CanInitializationError(
            f"cannot ask the kernel about interface {name!r}: {error.strerror}"
        ) from error
    if link is None:
        raise CanInitializationError(f"there is no CAN interface {name!r}; ip link show lists them")
    return link


def _rates(options: SocketcanOptions, link: NetDevice) -> tuple[int | None, int | None]:
    """What to set the rates to. The kernel takes CAN FD only together with both of them."""
    if not options.fd:
        return options.bitrate, None
    return options.bitrate or link.bitrate, options.data_bitrate or link.data_bitrate


def _configure(options: SocketcanOptions, link: NetDevice) -> None:
    if link.kind == "can" and options.fd and None in _rates(options, link):
        raise CanInitializationError(
            f"cannot configure interface {link.name}: CAN FD needs bitrate and data_bitrate"
        )
    try:
        netlink.set_up(link, up=False)
        try:
            _set(options, link)
        except OSError:
            netlink.set_up(link, up=link.up)  # others may be using it as it is
            raise
        netlink.set_up(link, up=True)
    except OSError as error:
        if error.errno == errno.EPERM:
            why = "configure=True needs the capability CAP_NET_ADMIN"
        else:
            why = f"the kernel refuses it: {error.strerror}"
        raise CanInitializationError(
            f"cannot configure interface {link.name}: {why}; {command(options, link)}"
        ) from error


def _set(options: SocketcanOptions, link: NetDevice) -> None:
    if link.kind == "can":
        bitrate, data_bitrate = _rates(options, link)
        netlink.set_controller(
            link, bitrate, data_bitrate, fd=options.fd, listen_only=options.listen_only
        )
    elif options.fd and link.mtu == CAN_MTU:
        netlink.set_mtu(link, CANFD_MTU)
