"""The thread that hands frames to a driver."""

from __future__ import annotations

from typing import Final

import can

from canbroker.backends.base import BusCondition, Transmit
from canbroker.backends.python_can.exchange import Exchange
from canbroker.backends.python_can.failures import DriverError, foreign
from canbroker.backends.python_can.known import ROOM, Meaning, driver
from canbroker.backends.python_can.messages import to_message
from canbroker.backends.python_can.receiving import DriverReader
from canbroker.system import clock

#: How long a driver may wait for room.
_SEND_NS: Final = 1 * clock.SECOND

#: Pauses after a driver reported that its queue is full; longer each time.
_RETRY_FIRST_NS: Final = 1 * clock.MILLISECOND
_RETRY_MAX_NS: Final = 10 * clock.MILLISECOND


class DriverWriter:
    """Sends what an exchange has with a driver: :meth:`run` is its thread."""

    def __init__(
        self, bus: can.BusABC, exchange: Exchange, reception: DriverReader, interface: str
    ) -> None:
        """``reception`` is told of each frame before it is sent."""
        self._bus = bus
        self._exchange = exchange
        self._reception = reception
        self._driver = driver(interface)

    def run(self) -> None:
        """Sends until the exchange ends."""
        while (transmit := self._exchange.next_transmit()) is not None:
            failure = self._send(transmit)
            if isinstance(failure, DriverError):
                self._reception.suspect()
                meaning = failure.meaning(self._driver)
                if meaning is Meaning.GONE:
                    # And with it this frame, and all behind it.
                    self._exchange.lose(str(failure))
                    continue
                if meaning is Meaning.FULL:
                    continue  # the exchange ended meanwhile, and returns it with those behind it
                transmit.unknown = meaning is Meaning.LATE
            if transmit.sender == transmit.origin and not self._exchange.has_more:
                self._reception.expect()
            self._exchange.finished(transmit, None if failure is None else str(failure))

    def _send(self, transmit: Transmit) -> DriverError | str | None:
        """Sends it, waiting for room in the driver's queue; returns why that failed, if it did."""
        pause_ns = _RETRY_FIRST_NS
        late = "expired before the driver took it"
        while not _is_late(transmit):
            condition = self._exchange.condition
            if condition.off:
                return condition.reason
            error = self._try(transmit)
            if error is None:
                return None
            match error.meaning(self._driver):
                case Meaning.DONE:
                    return None
                case Meaning.FULL:
                    late = "expired while the driver's transmit queue was full"
                case Meaning.BUS_OFF if self._reception.can_ask:
                    self._exchange.tell(BusCondition(off=True, reason=str(error)))
                    return error
                case _:
                    return error
            self._reception.suspect()
            if self._exchange.wait_for_end(_no_longer_than(transmit, pause_ns) / clock.SECOND):
                return error
            pause_ns = min(2 * pause_ns, _RETRY_MAX_NS)
        return late

    def _try(self, transmit: Transmit) -> DriverError | None:
        self._reception.note_sent(transmit.frame)
        try:
            with foreign("send"):
                self._bus.send(to_message(transmit.frame), timeout=self._timeout_s(transmit))
        except DriverError as error:
            self._reception.note_not_sent(transmit.frame)
            return error
        return None

    def _timeout_s(self, transmit: Transmit) -> float | None:
        """How long the driver may wait for room. It must not wait for an acknowledgement, which may
        never come and would delay every other frame."""
        timeout = self._driver.send_timeout
        if timeout is ROOM:
            return _no_longer_than(transmit, _SEND_NS) / clock.SECOND
        return timeout


def _is_late(transmit: Transmit) -> bool:
    return 0 < transmit.expires_ns <= clock.monotonic_ns()


def _no_longer_than(transmit: Transmit, time_ns: int) -> int:
    """``time_ns``, or the time until the transmit expires if that is less."""
    if not transmit.expires_ns:
        return time_ns
    return max(0, min(time_ns, transmit.expires_ns - clock.monotonic_ns()))
