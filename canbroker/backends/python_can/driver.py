"""The edge to python-can: opens a bus, and turns whatever its drivers raise into our errors."""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import can
from can.interfaces import BACKENDS as KNOWN

from canbroker import bit_timing
from canbroker.backends.python_can.options import PythonCanOptions
from canbroker.errors import CanInitializationError, CanInterfaceNotImplementedError
from canbroker.settings import PLUGIN

#: What the system says when a device has been unplugged, or its descriptor closed.
_GONE: Final = frozenset({errno.ENODEV, errno.ENXIO, errno.EIO, errno.EBADF, errno.ENOTCONN})


#: What the system says when a transmit queue has no room.
_FULL: Final = frozenset({errno.ENOBUFS, errno.EAGAIN})

#: What vendors' libraries say then, as python-can passes it on in ``error_code``.
_FULL_CODES: Final[Mapping[str, int]] = {
    "kvaser": -13,  # canERR_TXBUFOFL (Kvaser CANlib, canstat.h)
    "vector": 11,  # XL_ERR_QUEUE_IS_FULL (Vector XL driver library, vxlapi.h)
}

_ERRNO: Final = re.compile(r"\[Errno -?\d+\] ")


class DriverError(Exception):
    """A driver raised something. ``fatal``: trying again is of no use."""

    def __init__(self, doing: str, error: BaseException) -> None:
        super().__init__(f"{doing} failed: {told(error)}")
        self._codes = {getattr(cause, "errno", None) for cause in _causes(error)}
        self._vendors = getattr(error, "error_code", None)
        self.fatal = not self._codes.isdisjoint(_GONE)

    def queue_is_full(self, interface: str) -> bool:
        """Whether the driver of ``interface`` took nothing, because its queue is full.

        Not every driver can be understood. A CanTimeoutError does not say it: python-can lets
        drivers wait for the acknowledgement by then, of a frame that may still be sent.
        """
        return not self._codes.isdisjoint(_FULL) or (
            self._vendors is not None and self._vendors == _FULL_CODES.get(interface)
        )


@contextmanager
def foreign(doing: str) -> Iterator[None]:
    """Maps what a driver raises while ``doing``; a plugin may raise anything at all.

    For threads that only serve drivers: it leaves nobody else's SystemExit through.

    :raises DriverError: whatever was raised.
    """
    try:
        yield
    except BaseException as error:
        raise DriverError(doing, error) from error


def told(error: BaseException) -> str:
    """Type and text of a foreign exception, in one line and without the system's numbers."""
    text = _ERRNO.sub("", f"{type(error).__name__}: {error}")
    return " ".join(text.split()).removesuffix(":")


def open_driver(options: PythonCanOptions) -> can.BusABC:
    """Opens python-can's bus; own messages are off, and no configuration is read.

    :raises CanInterfaceNotImplementedError: python-can does not know the interface.
    :raises CanInitializationError: the driver is not installed or refuses; its own words.
    """
    if options.interface not in KNOWN:
        raise CanInterfaceNotImplementedError(
            f"python-can does not have it either, but {', '.join(sorted(KNOWN.keys() - {PLUGIN}))}"
        )
    try:
        bus = can.Bus(
            channel=_channel(options.channel),
            interface=options.interface,
            ignore_config=True,
            receive_own_messages=False,
            **_with_timing(options.parameters),
        )
    except (Exception, SystemExit) as error:
        raise CanInitializationError(
            f"python-can cannot open {options.interface} {options.identity}: {told(error)}"
        ) from error
    if not isinstance(bus, can.BusABC):
        raise CanInitializationError(
            f"python-can opened {options.interface} as {type(bus).__name__}, which is no can.BusABC"
        )
    return bus


def close_driver(bus: can.BusABC, failed: list[str]) -> threading.Thread:
    """Starts to shut the bus down, in a thread because a driver may never return.

    What it raises is appended to ``failed``.
    """

    def shut_down() -> None:
        try:
            with foreign("shutdown"):
                bus.shutdown()
        except DriverError as error:
            failed.append(str(error))

    thread = threading.Thread(target=shut_down, name="python-can shutdown", daemon=True)
    thread.start()
    return thread


def filters_itself(bus: can.BusABC) -> bool:
    """Whether the driver does something about filters.

    The ones that do not are filtered by python-can, message by message, which we do better.
    """
    return type(bus)._apply_filters is not can.BusABC._apply_filters


def _with_timing(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """``parameters`` with complete registers made the object that drivers take.

    :raises ValueError: python-can refuses a register.
    """
    names = bit_timing.complete(parameters)
    if not names:
        return dict(parameters)
    kind = can.BitTimingFd if names == bit_timing.FD else can.BitTiming
    others = {key: value for key, value in parameters.items() if key not in names}
    return {**others, "timing": kind(**{name: parameters[name] for name in names})}


def _channel(text: str) -> str | int:
    """Drivers that number their channels want a number, which a client's word is not any more."""
    return int(text) if text.isdecimal() and text.isascii() else text


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
