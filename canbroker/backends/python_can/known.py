"""A table of python-can's drivers and their peculiarities. Does not import python-can.

Each entry was read from python-can 4.6's driver of that name and from its vendor's manual or
header. Third-party plugins are not in the table and get the defaults.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

Parameters = Mapping[str, Any]


class Meaning(enum.Enum):
    """The meaning of a driver's error, as far as the backend acts on it."""

    UNKNOWN = enum.auto()
    GONE = enum.auto()  # the device cannot be used any more
    FULL = enum.auto()  # the transmit queue has no room, and nothing was queued
    LATE = enum.auto()  # waited in vain for the acknowledgement of a frame that may still be sent
    BUS_OFF = enum.auto()
    WARNING = enum.auto()  # the bus is not well, but works
    OVERRUN = enum.auto()  # received frames were lost
    DONE = enum.auto()  # a warning: what was asked for was done


class ErrorFrames(enum.Enum):
    """The coding of identifiers in a driver's error frames."""

    SOCKETCAN = enum.auto()  # the kernel's error classes
    PCAN = enum.auto()
    UNKNOWN = enum.auto()  # not documented, or none


class Room(enum.Enum):
    """A timeout of ``send`` limits the wait for room in the transmit queue."""

    ROOM = enum.auto()


ROOM: Final = Room.ROOM


class Driver(NamedTuple):
    """One driver. The defaults apply to third-party plugins.

    ``identifying``: parameters that distinguish adapters whose channels have the same name.
    ``identity``: computes the adapter's identity if it is not channel plus these parameters.
    ``needed``: parameters to keep of what its detection reports; ``None`` keeps all.
    ``tells_protocol``: its ``protocol`` says whether it was opened for CAN FD.
    ``codes``, ``texts``: meanings of ``error_code`` (also of causes), and of parts of messages.
    ``send_timeout``: passed to ``send`` if any other would wait for an acknowledgement.
    ``drains``: ``recv(0)`` is safe and cheap, so everything received can be read in one go.
    ``sticky_overrun``: once frames were lost, every idle read reports it.
    ``own_clock``: time stamps come from the adapter's clock.
    """

    identifying: frozenset[str] = frozenset(
        {
            *("serial", "unique_hardware_id", "device_id", "device_number", "device"),
            *("index", "bus", "address", "host", "port"),
        }
    )
    identity: Callable[[str, Parameters], str] | None = None
    needed: frozenset[str] | None = None
    tells_protocol: bool = False
    codes: Mapping[int, Meaning] = MappingProxyType({})
    texts: tuple[tuple[str, Meaning], ...] = ()
    send_timeout: float | Room | None = Room.ROOM
    drains: bool = False
    sticky_overrun: bool = False
    error_frames: ErrorFrames = ErrorFrames.SOCKETCAN
    own_clock: bool = False


def driver(interface: str) -> Driver:
    """Returns the entry of an interface, or the defaults."""
    return DRIVERS.get(interface, _PLUGIN)


# ---------------------------------------------------------------------------------- identities

#: Names of PCAN's channels by the number of the first one (PCANBasic.h), and how many there are.
_PCAN_CHANNELS: Final = (
    ("PCAN_ISABUS", 1, 0x21, 8),
    ("PCAN_DNGBUS", 1, 0x31, 1),
    ("PCAN_PCIBUS", 1, 0x41, 8),
    ("PCAN_PCIBUS", 9, 0x409, 8),
    ("PCAN_USBBUS", 1, 0x51, 8),
    ("PCAN_USBBUS", 9, 0x509, 8),
    ("PCAN_PCCBUS", 1, 0x61, 2),
    ("PCAN_LANBUS", 1, 0x801, 16),
)


def is_pcan_name(channel: str) -> bool:
    """Whether it is PCAN-Basic's name of a channel; others only label a ``device_id``."""
    return channel.startswith("PCAN_")


def _pcan(channel: str, parameters: Parameters) -> str:
    """The driver follows ``device_id`` and ignores the channel; opening compares them."""
    if is_pcan_name(channel):
        return channel
    if "device_id" in parameters:
        return f"device_id={parameters['device_id']}"
    number = int(channel) if channel.isdecimal() else 0
    for name, first, handle, count in _PCAN_CHANNELS:
        if handle <= number < handle + count:
            return f"{name}{first + number - handle}"
    return channel


def _gs_usb(channel: str, parameters: Parameters) -> str:
    """Without ``index``, ``bus`` and ``address`` the driver uses the channel as the index."""
    if "index" in parameters:
        return str(parameters["index"])
    place = [f"{key}={parameters[key]}" for key in ("bus", "address") if key in parameters]
    return ",".join(place) or channel


def _usb2can(channel: str, parameters: Parameters) -> str:
    return str(parameters.get("serial") or channel)


def _vector(channel: str, parameters: Parameters) -> str:
    """The driver prefers a global index, then a serial number, then the application's entry in
    Vector's hardware configuration."""
    if "channel_index" in parameters:
        return f"channel_index={parameters['channel_index']}"
    if "serial" in parameters:
        return f"{channel},serial={parameters['serial']}"
    name = parameters.get("app_name", _VECTOR_APPLICATION)
    return channel if name == _VECTOR_APPLICATION else f"{channel},app_name={name}"


#: The driver's default.
_VECTOR_APPLICATION: Final = "CANalyzer"


# ------------------------------------------------------------------------------------ the table

_PLUGIN: Final = Driver()

_NOTHING: Final[frozenset[str]] = frozenset()


def _known(*identifying: str, **others: Any) -> Driver:
    """An entry for one of python-can's own drivers."""
    names = frozenset(identifying)
    defaults = {"needed": names, "tells_protocol": True, "own_clock": True}
    return Driver(identifying=names, **{**defaults, **others})


DRIVERS: Final[Mapping[str, Driver]] = {
    # Texts: the driver asks for English ones. They are PCAN-Basic's (its manual: error codes).
    "pcan": _known(
        "device_id",
        identity=_pcan,
        needed=_NOTHING,
        texts=(
            ("bus-off state", Meaning.BUS_OFF),
            ("transmit queue is full", Meaning.FULL),
            ("transmit buffer in can controller is full", Meaning.FULL),
            ("was read too late", Meaning.OVERRUN),
            ("pcan-hardware handle is invalid", Meaning.GONE),
            ("pcan-client) is invalid", Meaning.GONE),
            ("has not been initialized yet", Meaning.GONE),
            ("driver is not loaded", Meaning.GONE),
        ),
        drains=True,
        error_frames=ErrorFrames.PCAN,
    ),
    # CANlib's canstat.h. `send` with a timeout waits until the bus has taken the whole queue.
    "kvaser": _known(
        codes={
            -13: Meaning.FULL,  # canERR_TXBUFOFL
            -7: Meaning.LATE,  # canERR_TIMEOUT
            -3: Meaning.GONE,  # canERR_NOTFOUND
            -10: Meaning.GONE,  # canERR_INVHANDLE
            -15: Meaning.GONE,  # canERR_HARDWARE
            -26: Meaning.GONE,  # canERR_NOCARD
        },
        send_timeout=0,
        drains=True,
        error_frames=ErrorFrames.UNKNOWN,
    ),
    # Vector XL driver library, vxlapi.h.
    "vector": _known(
        *("serial", "app_name", "channel_index"),
        identity=_vector,
        needed=frozenset({"serial"}),
        codes={11: Meaning.FULL, 129: Meaning.GONE},  # XL_ERR_QUEUE_IS_FULL, _HW_NOT_PRESENT
        error_frames=ErrorFrames.UNKNOWN,
    ),
    # The driver raises these at each read that finds nothing. `send` waits for room.
    "ixxat": _known(
        "unique_hardware_id",
        texts=(
            ("bus off status", Meaning.BUS_OFF),
            ("data overrun occurred", Meaning.OVERRUN),
            ("error warning limit exceeded", Meaning.WARNING),
            ("bus coupling error", Meaning.WARNING),
            ("canchannelsendmessage timed out", Meaning.FULL),
        ),
        sticky_overrun=True,
        error_frames=ErrorFrames.UNKNOWN,
    ),
    # `send` with any timeout but 0 waits for the acknowledgement.
    "neovi": _known("serial", send_timeout=0, error_frames=ErrorFrames.UNKNOWN),
    # CANAL's codes, as python-can lists them. `send` with a timeout is CanalBlockingSend.
    "usb2can": _known(
        "serial",
        identity=_usb2can,
        needed=_NOTHING,
        codes={
            2: Meaning.BUS_OFF,
            9: Meaning.FULL,  # FIFO_FULL
            18: Meaning.OVERRUN,
            21: Meaning.FULL,  # TRM_FULL
            32: Meaning.LATE,  # TIMEOUT
            33: Meaning.GONE,  # NOT_OPEN
            37: Meaning.GONE,  # COMMUNICATION
        },
        send_timeout=0,
        error_frames=ErrorFrames.UNKNOWN,
    ),
    # USB-CANmodul's return codes, as python-can lists them; warnings are raised after the fact.
    # With a timeout the firmware deletes whatever waits to be sent when it is over.
    "systec": _known(
        "device_number",
        codes={
            0x05: Meaning.GONE,  # ERR_ILLHW: not connected
            0x06: Meaning.GONE,  # ERR_ILLHANDLE
            0x0B: Meaning.FULL,  # ERR_DLL_TXFULL
            0x0E: Meaning.GONE,  # ERR_DISCONECT
            0x81: Meaning.OVERRUN,  # WARN_SYS_RXOVERRUN
            0x82: Meaning.OVERRUN,  # WARN_DLL_RXOVERRUN
            0x85: Meaning.DONE,  # WARN_FW_TXOVERRUN
            0x86: Meaning.OVERRUN,  # WARN_FW_RXOVERRUN
        },
        send_timeout=None,
        error_frames=ErrorFrames.UNKNOWN,
    ),
    "gs_usb": _known("index", "bus", "address", identity=_gs_usb),
    "socketcand": _known("host", "port", drains=True, own_clock=False),
    "udp_multicast": _known("port", own_clock=False),
    # `send` with a timeout waits until the device has sent everything.
    "canalystii": _known("device", send_timeout=None, error_frames=ErrorFrames.UNKNOWN),
    "nixnet": _known(error_frames=ErrorFrames.UNKNOWN),
    "neousys": _known("device", error_frames=ErrorFrames.UNKNOWN),
    "nican": _known(error_frames=ErrorFrames.UNKNOWN),
    "iscan": _known(error_frames=ErrorFrames.UNKNOWN),
    "etas": _known(error_frames=ErrorFrames.UNKNOWN),
    "cantact": _known(),
    "robotell": _known(),
    "seeedstudio": _known(),
    "serial": _known(),
    "slcan": _known(),
    "socketcan": _known(),
    "virtual": _known(tells_protocol=False),
}
