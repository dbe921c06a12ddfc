"""Opens and closes python-can's bus, and checks that it is the requested one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from typing import Any, Final

import can
from can.interfaces import BACKENDS as KNOWN

from canbroker.backends.python_can.failures import DriverError, foreign, told
from canbroker.backends.python_can.known import driver, is_pcan_name
from canbroker.backends.python_can.options import PythonCanOptions
from canbroker.configuration.bus_settings import PLUGIN
from canbroker.errors import CanInitializationError, CanInterfaceNotImplementedError
from canbroker.model import bit_timing

FD_PROTOCOLS: Final = frozenset({can.CanProtocol.CAN_FD, can.CanProtocol.CAN_FD_NON_ISO})

#: How long to wait for a socketcand server before its driver connects.
_CONNECT_S: Final = 2.0


def open_driver(options: PythonCanOptions) -> can.BusABC:
    """Opens python-can's bus; own messages are off, and no configuration is read.

    :raises CanInterfaceNotImplementedError: python-can does not know the interface.
    :raises CanInitializationError: the driver is not installed or fails, in its own words; or it
        would open something other than requested.
    """
    if options.interface not in KNOWN:
        raise CanInterfaceNotImplementedError(
            f"python-can does not have it either, but {', '.join(sorted(KNOWN.keys() - {PLUGIN}))}"
        )
    where = f"{options.interface} {options.identity}"
    fault = _fault(options)
    if fault is not None:
        raise CanInitializationError(f"python-can cannot open {where}: {fault}")
    channel = _channel(options.channel)
    try:
        bus = can.Bus(
            channel=channel,
            interface=options.interface,
            ignore_config=True,
            receive_own_messages=False,
            **_with_timing(options.parameters),
        )
    except (Exception, SystemExit) as error:
        unknown = isinstance(error, KeyError) and error.args == (channel,)
        text = f"its driver knows no channel {channel!r}" if unknown else told(error)
        raise CanInitializationError(f"python-can cannot open {where}: {text}") from error
    if not isinstance(bus, can.BusABC):
        raise CanInitializationError(
            f"python-can opened {options.interface} as {type(bus).__name__}, "
            "which is not a can.BusABC"
        )
    fault = _misfit(bus, options)
    if fault is not None:
        close_driver(bus, options.interface, []).join(_CONNECT_S)
        raise CanInitializationError(f"python-can cannot open {where}: {fault}")
    return bus


def close_driver(bus: can.BusABC, interface: str, failed: list[str]) -> threading.Thread:
    """Starts to shut the bus down, in a thread because a driver may never return.

    What it raises is appended to ``failed``.
    """

    def shut_down() -> None:
        try:
            with foreign("shutdown"):
                bus.shutdown()
        except DriverError as error:
            failed.append(str(error))
            if interface == "kvaser":
                failed.extend(_close_kvaser(bus))

    thread = threading.Thread(target=shut_down, name="python-can shutdown", daemon=True)
    thread.start()
    return thread


def _close_kvaser(bus: Any) -> list[str]:
    """Closes the handles of a device that is gone. python-can's ``shutdown`` takes them off the
    bus first; if that fails, it leaves them open. Returns the errors."""
    from can.interfaces.kvaser import canlib  # noqa: PLC0415 - of this driver alone

    failed: list[str] = []
    for handle in (bus._read_handle, bus._write_handle):
        try:
            with foreign("canClose"):
                canlib.canClose(handle)
        except DriverError as error:
            failed.append(str(error))
    return failed


def filters_itself(bus: can.BusABC) -> bool:
    """Whether the driver itself filters.

    For the others, python-can filters message by message, more slowly than we do.
    """
    return type(bus)._apply_filters is not can.BusABC._apply_filters


# ------------------------------------------------------------------------- before it is opened


def _fault(options: PythonCanOptions) -> str | None:
    """Why the driver cannot open what was asked for, where it would not say so itself."""
    parameters = options.parameters
    bitrate = parameters.get("bitrate")
    timed = parameters.get("fd") is True or bit_timing.complete(parameters)
    if bitrate is not None and not timed:
        check = _BITRATE_FAULTS.get(options.interface)
        if check is not None and (fault := check(int(bitrate))) is not None:
            return f"no bit rate of {bitrate} bit/s; {fault}"
    if options.interface == "socketcand" and {"host", "port"} <= parameters.keys():
        return _no_server(str(parameters["host"]), int(parameters["port"]))
    return None


def _pcan_fault(bitrate: int) -> str | None:
    """The driver uses 500 kbit/s for every rate that is not in its table."""
    from can.interfaces.pcan.basic import PCAN_BITRATES  # noqa: PLC0415 - of this driver alone

    if bitrate in PCAN_BITRATES:
        return None
    return f"its driver has {', '.join(map(str, sorted(PCAN_BITRATES)))}"


def _usb2can_fault(bitrate: int) -> str | None:
    """The driver rounds down to kbit/s, and limits the rate to 1,000."""
    if bitrate % 1000 == 0 and bitrate <= 1_000_000:
        return None
    return "its driver has whole kbit/s, 1000 at most"


_BITRATE_FAULTS: Final = {"pcan": _pcan_fault, "usb2can": _usb2can_fault}


def _no_server(host: str, port: int) -> str | None:
    """Why no server answers; checked first, as the driver retries for 10 s without a pause."""
    try:
        socket.create_connection((host, port), _CONNECT_S).close()
    except OSError as error:
        return f"{host}:{port}: {told(error)}"
    return None


# -------------------------------------------------------------------------- after it was opened


def _misfit(bus: can.BusABC, options: PythonCanOptions) -> str | None:
    """Why the bus is not the requested one; ``None`` if it is."""
    is_fd = bus.protocol in FD_PROTOCOLS or not driver(options.interface).tells_protocol
    if options.parameters.get("fd") is True and not is_fd:
        return "its driver has no CAN FD (fd=True)"
    serial = options.parameters.get("serial")
    if options.interface == "kvaser" and serial is not None:  # its driver ignores it
        found = str(getattr(bus, "channel_info", ""))
        if f"S/N {serial} " not in found:
            return f"channel {options.channel} is {found}, not S/N {serial}"
    if options.interface == "pcan" and "device_id" in options.parameters:
        # The driver opened the first channel with that number and ignored the name.
        found = str(getattr(bus, "channel_info", ""))
        if is_pcan_name(options.channel) and options.channel != found:
            return f"device_id {options.parameters['device_id']} is {found}; name one of the two"
    return None


def _with_timing(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """``parameters``, with a complete set of registers replaced by the object that drivers expect.

    :raises ValueError: python-can refuses a register.
    """
    names = bit_timing.complete(parameters)
    if not names:
        return dict(parameters)
    kind = can.BitTimingFd if names == bit_timing.FD else can.BitTiming
    others = {key: value for key, value in parameters.items() if key not in names}
    return {**others, "timing": kind(**{name: parameters[name] for name in names})}


def _channel(text: str) -> str | int:
    """Drivers that number their channels expect a number; clients send it as text."""
    return int(text) if text.isdecimal() and text.isascii() else text
