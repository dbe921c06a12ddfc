"""Tracks whether the device is present, and the condition of its bus."""

from __future__ import annotations

import threading
from typing import Final

import can
from can.interfaces import BACKENDS as KNOWN

from canbroker.backends.base import BusCondition
from canbroker.backends.python_can.exchange import Exchange
from canbroker.backends.python_can.failures import DriverError, foreign
from canbroker.backends.python_can.health import Health, Probe, probe_of
from canbroker.backends.python_can.known import driver
from canbroker.system import clock
from canbroker.system.throttle import Throttle

#: Interval of queries to the controller, and the least one after a failure.
_ASK_NS: Final = clock.SECOND
_SUSPECT_NS: Final = clock.SECOND // 20

#: A driver that used to wait, and now returns nothing immediately for this long, has lost its
#: device: some drivers swallow the system's error.
_EMPTY_NS: Final = clock.SECOND

_FINE: Final = BusCondition()


class Watch:
    """Keeps the condition of an exchange. Methods without [any] belong to the reading thread."""

    def __init__(
        self, exchange: Exchange, interface: str, bus: can.BusABC, throttle: Throttle
    ) -> None:
        self._exchange = exchange
        self._throttle = throttle
        self._probe = probe_of(interface, bus)
        # python-can's own drivers wait for their timeout; a plugin that never does may be polling.
        self._waits = KNOWN[interface][0].startswith("can.") if interface in KNOWN else False
        self._empty_since: int | None = None
        self._suspected = threading.Event()
        self._asked_ns = 0
        self._asked: Health | None = None
        self._raised = _FINE
        self._driver = driver(interface)
        self._overrun = False  # was raised last
        self._overruns_told = 0  # the controller's count when it was last reported
        self.step()

    @property
    def can_ask(self) -> bool:
        """[any] Whether the controller can be asked."""
        return self._probe is not None

    def suspect(self) -> None:
        """[any] Something failed: queries the controller soon."""
        self._suspected.set()

    def step(self) -> None:
        """Queries the controller if it is time to."""
        since_ns = clock.monotonic_ns() - self._asked_ns
        patience_ns = _SUSPECT_NS if self._suspected.is_set() else _ASK_NS
        if self._probe is not None and since_ns >= patience_ns:
            self._ask(self._probe)

    # ------------------------------------------------------------------------ results of reading

    def came(self) -> None:
        """Messages came."""
        self._empty_since = None
        if not self._driver.sticky_overrun:
            self._overrun = False

    def waited(self) -> None:
        """The driver waited until its timeout and returned nothing."""
        self._waits = True
        self._empty_since = None
        self._overrun = False
        if self._raised != _FINE:  # else it would have been raised again
            self._raised = _FINE
            if self._probe is None or not self._suspected.is_set():  # else it is asked right away
                self._tell()

    def came_early(self) -> str:
        """The driver returned nothing too early. Returns a reason if the device is lost."""
        now_ns = clock.monotonic_ns()
        self._empty_since = self._empty_since or now_ns
        if not self._waits or now_ns - self._empty_since < _EMPTY_NS:
            return ""
        if self._probe is not None:  # the controller itself can be asked
            self.suspect()
            return ""
        return "its driver returns nothing, and does not wait for it any more"

    def raised(self, condition: BusCondition) -> None:
        """The driver raised an error that concerns the bus, not the device."""
        self._empty_since = None
        self._raised = condition
        self._tell()
        self.suspect()

    def overrun(self) -> bool:
        """The driver reported lost frames. Returns whether to count it.

        A report is a repetition if nothing was read since the last one, or if the driver reports
        a sticky flag at every idle read.
        """
        if self._overrun:
            return False
        self._overrun = True
        self._overruns_told += 1  # the controller may count it, too
        return True

    # -------------------------------------------------------------------------------- internals

    def _ask(self, probe: Probe) -> None:
        self._suspected.clear()
        self._asked_ns = clock.monotonic_ns()
        try:
            with foreign("asking how it is"):
                health = probe()
        except DriverError as error:
            self._throttle.note("status_failed", str(error))
            self._tell()
            return
        if health.gone:
            self._exchange.lose(health.gone)
            return
        more = 0 if self._asked is None else health.overruns - self._asked.overruns
        self._asked = health
        told = min(more, self._overruns_told)
        self._overruns_told = 0
        if more > told:
            self._throttle.note("overruns", "the controller has lost frames")
            self._exchange.lost_frames(more - told)
        self._tell()

    def _tell(self) -> None:
        asked = _FINE if self._asked is None else self._asked.condition
        self._exchange.tell(asked if asked != _FINE else self._raised)
