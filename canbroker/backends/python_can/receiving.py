"""The thread that reads a driver; it also sets its filters and queries its controller."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import can

from canbroker.backends.base import BusCondition, StampClock
from canbroker.backends.coalescing import Coalescing
from canbroker.backends.python_can.adapter_clock import AdapterClock
from canbroker.backends.python_can.driver import filters_itself
from canbroker.backends.python_can.exchange import Exchange
from canbroker.backends.python_can.failures import DriverError, foreign
from canbroker.backends.python_can.known import Meaning, driver
from canbroker.backends.python_can.messages import MessageError, to_frame
from canbroker.backends.python_can.watch import Watch
from canbroker.model.error_counters import ErrorCounters, counters_in
from canbroker.model.filters import EVERYTHING, Filter, FilterSet, union
from canbroker.model.frame import ERROR, MAX_STANDARD_ID, Frame
from canbroker.system import clock
from canbroker.system.naps import Nap
from canbroker.system.throttle import Throttle

_log = logging.getLogger("canbroker.python_can")

#: How long a driver waits for a frame, and thus how long new filters and the end may have to wait.
RECV_S: Final = 0.05

#: A driver that returns nothing sooner than this has not waited.
_EARLY_NS: Final = round(RECV_S * clock.SECOND / 2)

#: A driver that has not returned by then ignores its timeout.
_LATE_S: Final = 0.5

#: Pauses after a driver that came back early with nothing; longer each time.
_PAUSE_FIRST_S: Final = 0.001
_PAUSE_MAX_S: Final = 0.02

#: A driver that only fails for this long has lost its adapter.
_FAILING_NS: Final = clock.SECOND // 2

#: The most messages to read in one go.
_BATCH: Final = 256

#: No driver has more filters than this; python-can would check them all for each message.
_MAX_FILTERS: Final = 32

#: Interfaces that return what we send as if another node had sent it.
_RETURN_OWN: Final = frozenset({"udp_multicast"})
_RETURNED_NS: Final = clock.SECOND


class DriverReader:
    """Reads a driver into an exchange: :meth:`run` is its thread, the rest is any thread's."""

    def __init__(
        self, bus: can.BusABC, exchange: Exchange, interface: str, coalescing: Coalescing
    ) -> None:
        """``coalescing``: of the driver itself, if all that it has can be read together."""
        self.throttle = Throttle(_log)
        self.error_counters: ErrorCounters | None = None  # as last reported
        self._bus = bus
        self._driver = driver(interface)
        self._exchange = exchange
        self._read = _reader(bus)
        self._watch = Watch(exchange, interface, bus, self.throttle)
        self._clock = AdapterClock() if self._driver.own_clock else None
        self._own = _OwnFrames() if interface in _RETURN_OWN else None
        self._pause_s = _PAUSE_FIRST_S
        self._failing_since: int | None = None
        self._coalescing = coalescing
        self._nap = Nap()
        self._changed = threading.Condition()
        self._filtering = filters_itself(bus)  # False for good once that has failed
        self._wanted = EVERYTHING
        self._in_force = EVERYTHING

    def stamp_clock(self) -> StampClock | None:
        """As of :class:`Backend`."""
        return None if self._clock is None else self._clock.quality

    def note_sent(self, frame: Frame) -> None:
        """A frame is about to be sent; the driver may return it."""
        if self._own is not None:
            self._own.add(frame)

    def note_not_sent(self, frame: Frame) -> None:
        """The frame was not sent: the driver refused it."""
        if self._own is not None:
            self._own.remove(frame)

    def suspect(self) -> None:
        """Something failed: the controller is queried soon."""
        self._watch.suspect()

    def expect(self) -> None:
        """A client has sent a frame, and may wait for an answer."""
        if self._coalescing.expect(clock.monotonic_ns()):
            self._nap.end()

    @property
    def can_ask(self) -> bool:
        """Whether the controller can be queried, and thus will report its recovery."""
        return self._watch.can_ask

    def want(self, filters: FilterSet) -> None:
        """Sets the driver's filters, if it can filter. On return, all of ``filters`` pass.

        A driver that does not return in time for wider filters gets no filters any more.
        """
        with self._changed:
            if not self._filtering:
                return
            self._wanted = filters
            wider = union([self._in_force, filters]) != self._in_force
            if not wider or self._changed.wait_for(self._is_up_to_date, _LATE_S):
                return
            self._filtering = False
            self._wanted = EVERYTHING
        _log.warning("the driver ignores its timeout; it gets no filters any more")

    def run(self) -> None:
        """Reads until the exchange ends."""
        while not self._exchange.ended:
            self._follow_filters()
            self._step()
            self._watch.step()

    # --------------------------------------------------------------------------------- frames

    def _step(self) -> None:
        started_ns = clock.monotonic_ns()
        frames: list[Frame] = []
        count, valid = 0, True
        try:
            with foreign("recv"):
                message = self._read(RECV_S)
                while message is not None:
                    count += 1
                    valid = self._take(message, frames)
                    if not self._driver.drains or count == _BATCH:
                        break
                    message = self._read(0)
        except DriverError as error:
            self._came(count, frames)
            self._failed(error, clock.monotonic_ns() - started_ns)
            return
        self._failing_since = None
        if not count:
            self._nothing(clock.monotonic_ns() - started_ns)
            return
        self._came(count, frames)
        if valid:
            self._pause_s = _PAUSE_FIRST_S
        else:
            self._pause()

    def _take(self, message: can.Message, frames: list[Frame]) -> bool:
        """Adds the frame of a message; ``False`` if the message is invalid."""
        try:
            frame = to_frame(message, clock.wall_ns(), self._driver.error_frames, self._clock)
        except MessageError as error:
            self.throttle.note("invalid_message", f"from the driver: {error}")
            return False
        if frame.flags & ERROR:
            self.error_counters = counters_in(frame) or self.error_counters
        # The actor echoes the frames that we sent, in their place among the others.
        if message.is_rx and not (self._own is not None and self._own.remove(frame)):
            frames.append(frame)
        return True

    def _came(self, count: int, frames: list[Frame]) -> None:
        """Passes on the frames of ``count`` messages; pauses after that at a high rate."""
        if count:
            self._watch.came()
        if not frames:
            return
        self._exchange.received(frames)
        pause_ns = self._coalescing.pause_ns(len(frames), clock.monotonic_ns(), urgent=False)
        if pause_ns:
            self._nap.take(pause_ns / clock.SECOND)

    def _nothing(self, waited_ns: int) -> None:
        if waited_ns >= _EARLY_NS:
            self._watch.waited()
            return
        reason = self._watch.came_early()
        if reason:
            self._exchange.lose(reason)
        else:
            self._pause()

    def _failed(self, error: DriverError, took_ns: int) -> None:
        now_ns = clock.monotonic_ns()
        match error.meaning(self._driver):
            case Meaning.GONE:
                self._exchange.lose(str(error))
                return
            case Meaning.OVERRUN:
                if self._watch.overrun():
                    self.throttle.note("overruns", str(error))
                    self._exchange.lost_frames(1)  # its queue is full: no pause
                else:
                    self._pause()
                self._failing_since = None
                return
            case Meaning.DONE:
                self.throttle.note("warnings", str(error))
                return
            case Meaning.BUS_OFF | Meaning.WARNING as meaning:
                self._watch.raised(BusCondition(meaning is Meaning.BUS_OFF, str(error)))
                self._failing_since = None
                if took_ns < _EARLY_NS:
                    self._pause()
                return
        self._watch.suspect()
        self._failing_since = self._failing_since or now_ns
        if now_ns - self._failing_since > _FAILING_NS:
            self._exchange.lose(str(error))
            return
        self.throttle.note("recv_failed", str(error))
        self._pause()

    def _pause(self) -> None:
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _PAUSE_MAX_S)

    # -------------------------------------------------------------------------------- filters

    def _is_up_to_date(self) -> bool:
        return self._in_force == self._wanted

    def _follow_filters(self) -> None:
        with self._changed:
            wanted = self._wanted
            if wanted == self._in_force:
                return
        try:
            with foreign("set_filters"):
                self._bus.set_filters(driver_filters(wanted))
        except DriverError as error:
            self.throttle.note("filters_failed", str(error))
            with self._changed:  # next time around, the driver is asked for everything
                self._filtering = False
                self._in_force, self._wanted = wanted, EVERYTHING
                self._changed.notify_all()
            return
        with self._changed:
            self._in_force = wanted
            self._changed.notify_all()


def _reader(bus: can.BusABC) -> Callable[[float], Any]:
    """Returns the function that reads one message, or ``None`` after its timeout.

    ``BusABC.recv`` calls the driver again until the timeout is over. A driver whose device is
    gone may return at once, which would be hidden and cost a whole processor. So the driver's
    ``_recv_internal`` is called directly, unless a plugin overrides ``recv``.
    """
    if type(bus).recv is not can.BusABC.recv:
        return bus.recv
    receive = bus._recv_internal
    return lambda timeout: receive(timeout)[0]


class _OwnFrames:
    """Frames that we sent, until they come back or too much time has passed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: deque[tuple[int, tuple[int, int, bytes | int]]] = deque(maxlen=1024)

    def add(self, frame: Frame) -> None:
        with self._lock:
            self._sent.append((clock.monotonic_ns() + _RETURNED_NS, _content(frame)))

    def remove(self, frame: Frame) -> bool:
        """Whether the frame was one of them."""
        now_ns = clock.monotonic_ns()
        with self._lock:
            while self._sent and self._sent[0][0] < now_ns:
                self._sent.popleft()
            for entry in self._sent:
                if entry[1] == _content(frame):
                    self._sent.remove(entry)
                    return True
        return False


def _content(frame: Frame) -> tuple[int, int, bytes | int]:
    return frame.arbitration_id, frame.flags, frame.data


def driver_filters(filters: FilterSet) -> list[can.typechecking.CanFilter] | None:
    """The filters for python-can, which pass ``filters`` or more; ``None`` passes everything.

    Each entry names its format, because some drivers require it.
    """
    if not filters.filters:
        return None  # python-can has no filter that passes nothing
    entries = [entry for item in filters.filters for entry in _entries(item)]
    return entries if len(entries) <= _MAX_FILTERS else None


def _entries(item: Filter) -> list[can.typechecking.CanFilter]:
    entries: list[can.typechecking.CanFilter] = []
    if item.extended is not True:
        mask = item.can_mask & MAX_STANDARD_ID
        entries.append({"can_id": item.can_id, "can_mask": mask, "extended": False})
    if item.extended is not False:
        entries.append({"can_id": item.can_id, "can_mask": item.can_mask, "extended": True})
    return entries
