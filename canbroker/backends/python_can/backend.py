"""A bus of python-can as a backend."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

import can

from canbroker.backends.base import Backend, StampClock, Transmit
from canbroker.backends.coalescing import Coalescing
from canbroker.backends.python_can.driver import FD_PROTOCOLS, close_driver, open_driver
from canbroker.backends.python_can.exchange import Exchange
from canbroker.backends.python_can.known import driver
from canbroker.backends.python_can.options import PythonCanOptions
from canbroker.backends.python_can.receiving import DriverReader
from canbroker.backends.python_can.sending import DriverWriter
from canbroker.model.error_counters import ErrorCounters
from canbroker.model.filters import FilterSet
from canbroker.model.frame import Frame
from canbroker.system import clock

_log = logging.getLogger("canbroker.python_can")

#: How long the end waits for the driver's calls to return, including shutdown; the broker waits
#: for 3 s.
_CLOSE_NS: Final = 2 * clock.SECOND


def open_bus(options: PythonCanOptions) -> PythonCanBackend:
    """Opens the interface; see :func:`canbroker.backends.python_can.open`."""
    return PythonCanBackend(open_driver(options), options)


class PythonCanBackend(Backend):
    """An open bus of python-can; :func:`open_bus` makes it.

    Two threads of this object call the driver, and no other thread waits for them: a driver that
    blocks delays only its own reception or sending.
    """

    def __init__(self, bus: can.BusABC, options: PythonCanOptions) -> None:
        parameters = options.parameters
        self._name = f"{options.interface} {options.identity}"
        self.info = f"python-can {options.interface}: {getattr(bus, 'channel_info', 'open')}"
        self.bitrate = _rate(parameters.get("bitrate"))
        self.data_bitrate = _rate(parameters.get("data_bitrate"))
        # A plugin may support FD without reporting it.
        self.fd = parameters.get("fd") is True or bus.protocol in FD_PROTOCOLS
        self._bus = bus
        self._interface = options.interface
        self._exchange = Exchange(self._name)
        coalescing = Coalescing(options.coalesce_ns)
        if driver(options.interface).drains:
            self._reception = DriverReader(bus, self._exchange, options.interface, coalescing)
        else:  # it gives a frame at a time, but the actor can read several
            self._reception = DriverReader(bus, self._exchange, options.interface, self.coalescing)
            self.coalescing = coalescing
        self._closing = threading.Lock()
        self._closed = False
        sending = DriverWriter(bus, self._exchange, self._reception, options.interface)
        self._threads = [
            self._start("recv", self._reception.run),
            self._start("send", sending.run),
        ]

    def __repr__(self) -> str:
        return f"<PythonCanBackend {self._name}{' closed' if self._closed else ''}>"

    def fileno(self) -> int:
        return self._exchange.fileno()

    def read(self) -> Sequence[Frame | Transmit]:
        try:
            return self._exchange.take()
        finally:  # after it has cleared the wake-up: a later change sets it again
            self.dropped = self._exchange.dropped
            self.condition = self._exchange.condition

    def room(self, sender: str) -> int:
        del sender  # the driver has one queue for all senders
        return self._exchange.room()

    def send(self, transmits: Sequence[Transmit]) -> None:
        self._exchange.put(transmits)

    def abandon(self) -> Sequence[Transmit]:
        return self._exchange.abandon()

    def filter(self, filters: FilterSet) -> None:
        self._reception.want(filters)

    def stamp_clock(self) -> StampClock | None:
        return self._reception.stamp_clock()

    def error_counters(self) -> ErrorCounters | None:
        return self._reception.error_counters

    def counters(self) -> dict[str, int]:
        return dict(self._reception.throttle.counts)

    def close(self) -> None:
        """See the base class; waits up to 2 s for the driver, then abandons its threads."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._exchange.lose("it is closed")
        deadline = clock.monotonic_ns() + _CLOSE_NS
        for thread in self._threads:
            # Half of the time: shutting down may wake a call that blocks.
            thread.join(max(0, deadline - _CLOSE_NS // 2 - clock.monotonic_ns()) / clock.SECOND)
        failed: list[str] = []
        threads = [close_driver(self._bus, self._interface, failed), *self._threads]
        for thread in threads:
            thread.join(max(0, deadline - clock.monotonic_ns()) / clock.SECOND)
        self._exchange.close()
        for problem in failed:
            _log.warning("%s: %s", self._name, problem)
        stuck = ", ".join(thread.name for thread in threads if thread.is_alive())
        if stuck:
            _log.error("%s: the driver does not return (%s); abandoned", self._name, stuck)

    def _start(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            finally:  # has an effect only after a bug: otherwise the exchange has ended
                self._exchange.lose(f"its {name} thread has crashed")

        # Daemon: a driver that does not return must not keep the process alive.
        thread = threading.Thread(target=run, name=f"python-can {name}", daemon=True)
        thread.start()
        return thread


def _rate(value: object) -> int | None:
    """The bitrate that the user gave, if it is valid."""
    return value if type(value) is int and value > 0 else None
