"""Queries the state of a CAN controller, for the drivers that allow it.

Most drivers raise once or never when something goes wrong, and do not report recovery.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import can

from canbroker.backends.base import BusCondition
from canbroker.backends.python_can.failures import DriverError, foreign
from canbroker.system.libraries import loaded

_log = logging.getLogger("canbroker.python_can")


class Health(NamedTuple):
    """``gone``: the reason if the device is unusable; ``overruns``: the number since opening."""

    condition: BusCondition = BusCondition()
    gone: str = ""
    overruns: int = 0


Probe = Callable[[], Health]


def probe_of(interface: str, bus: can.BusABC) -> Probe | None:
    """Returns a function that queries the controller without waiting; ``None`` if the driver
    offers none.

    The function raises whatever the driver raises. Only the reading thread may call it.
    """
    make = _PROBES.get(interface)
    if make is None:
        return None
    try:
        with foreign("asking how it is"):
            probe = make(bus)
            probe()
    except DriverError as error:  # another version of the driver
        _log.warning("%s is not asked any more: %s", interface, error)
        return None
    return probe


# ---------------------------------------------------------------------------------------- PCAN

#: PCAN-Basic's TPCANStatus (PCANBasic.h).
_OVERRUN: Final = 0x2 | 0x40  # OVERRUN, QOVERRUN
_LIGHT, _HEAVY, _OFF, _PASSIVE = 0x4, 0x8, 0x10, 0x40000
_INVALID: Final = 0x1C00 | 0x200 | 0x4000000  # ILLHANDLE, NODRIVER, INITIALIZE


def _pcan(bus: Any) -> Probe:
    overruns = 0
    was_overrun = False

    def ask() -> Health:
        nonlocal overruns, was_overrun
        status = int(bus.status())
        if status & _INVALID:
            return Health(gone=f"its status is {status:#x}")
        is_overrun = bool(status & _OVERRUN)
        overruns += is_overrun and not was_overrun
        was_overrun = is_overrun
        return Health(_pcan_condition(status), overruns=overruns)

    return ask


def _pcan_condition(status: int) -> BusCondition:
    if status & _OFF:
        return BusCondition(
            off=True, reason="bus-off; PCAN recovers by itself if opened with auto_reset=True"
        )
    if status & (_PASSIVE | _HEAVY):
        return BusCondition(reason="error passive" if status & _PASSIVE else "error warning")
    return BusCondition(reason="error warning" if status & _LIGHT else "")


# -------------------------------------------------------------------------------------- Kvaser

#: CANlib's canSTAT_... (canstat.h).
_STAT_PASSIVE, _STAT_OFF, _STAT_WARNING = 0x1, 0x2, 0x4
_STAT_OVERRUN: Final = 0x200 | 0x400


def _kvaser(bus: Any) -> Probe:
    """python-can does not wrap canReadStatus; the library is loaded already."""
    library = loaded(windows="canlib32", elsewhere="libcanlib.so")
    read_status = library.canReadStatus
    read_status.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_ulong)]
    read_status.restype = ctypes.c_int
    handle = bus._read_handle

    def ask() -> Health:
        flags = ctypes.c_ulong()
        error = read_status(handle, ctypes.byref(flags))
        if error < 0:
            return Health(gone=f"canReadStatus says {error}")
        overruns = bus.get_stats().overruns if flags.value & _STAT_OVERRUN else 0
        return Health(_kvaser_condition(flags.value), overruns=overruns)

    return ask


def _kvaser_condition(flags: int) -> BusCondition:
    if flags & _STAT_OFF:
        return BusCondition(off=True, reason="bus-off")
    if flags & _STAT_PASSIVE:
        return BusCondition(reason="error passive")
    return BusCondition(reason="error warning" if flags & _STAT_WARNING else "")


# --------------------------------------------------------------------------------------- IXXAT


def _ixxat(bus: can.BusABC) -> Probe:
    def ask() -> Health:
        off = bus.state is can.BusState.ERROR
        return Health(BusCondition(off=True, reason="bus-off") if off else BusCondition())

    return ask


_PROBES: Final[dict[str, Callable[[Any], Probe]]] = {
    "pcan": _pcan,
    "kvaser": _kvaser,
    "ixxat": _ixxat,
}
