"""The thread that hands frames to a driver."""

from __future__ import annotations

from typing import Final

import can

from canbroker import clock
from canbroker.backends.base import Transmit
from canbroker.backends.python_can.driver import DriverError, foreign
from canbroker.backends.python_can.exchange import Exchange
from canbroker.backends.python_can.messages import to_message
from canbroker.backends.python_can.receiving import Reception

#: How long a driver may wait for room, or for the frame to be on the bus, as it pleases.
_SEND_NS: Final = 1 * clock.SECOND

#: Pauses after a driver said that its queue is full; longer each time.
_RETRY_FIRST_NS: Final = 1 * clock.MILLISECOND
_RETRY_MAX_NS: Final = 10 * clock.MILLISECOND


class Sending:
    """Sends what an exchange has with a driver: :meth:`run` is its thread."""

    def __init__(
        self, bus: can.BusABC, exchange: Exchange, reception: Reception, interface: str
    ) -> None:
        """``reception`` is told of each frame before it is sent."""
        self._bus = bus
        self._exchange = exchange
        self._reception = reception
        self._interface = interface

    def run(self) -> None:
        """Sends until the exchange ends."""
        while (transmit := self._exchange.next_transmit()) is not None:
            failure = self._send(transmit)
            if isinstance(failure, DriverError) and failure.fatal:
                self._exchange.lose(str(failure))  # and with it this frame, and all behind it
            else:
                self._exchange.finished(transmit, None if failure is None else str(failure))

    def _send(self, transmit: Transmit) -> DriverError | str | None:
        """Why the driver has not taken it, waiting for room in its queue; ``None`` if it has."""
        pause_ns = _RETRY_FIRST_NS
        late = "expired before the driver took it"
        while not _is_late(transmit):
            error = self._try(transmit)
            if error is None or not error.queue_is_full(self._interface):
                return error
            late = "expired while the driver's transmit queue was full"
            if self._exchange.wait_for_end(_no_longer_than(transmit, pause_ns) / clock.SECOND):
                return error
            pause_ns = min(2 * pause_ns, _RETRY_MAX_NS)
        return late

    def _try(self, transmit: Transmit) -> DriverError | None:
        self._reception.note_sent(transmit.frame)
        timeout_s = _no_longer_than(transmit, _SEND_NS) / clock.SECOND
        try:
            with foreign("send"):
                self._bus.send(to_message(transmit.frame), timeout=timeout_s)
        except DriverError as error:
            self._reception.note_not_sent(transmit.frame)
            return error
        return None


def _is_late(transmit: Transmit) -> bool:
    return 0 < transmit.expires_ns <= clock.monotonic_ns()


def _no_longer_than(transmit: Transmit, time_ns: int) -> int:
    """``time_ns``, or less if whoever sends is not patient for so long."""
    if not transmit.expires_ns:
        return time_ns
    return max(0, min(time_ns, transmit.expires_ns - clock.monotonic_ns()))
