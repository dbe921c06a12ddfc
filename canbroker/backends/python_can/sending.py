"""The thread that hands frames to a driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import can

from canbroker import clock
from canbroker.backends.base import Transmit
from canbroker.backends.python_can.driver import DriverError, foreign
from canbroker.backends.python_can.exchange import Exchange
from canbroker.backends.python_can.messages import to_message
from canbroker.frame import Frame

#: How long a driver may wait for room, or for the frame to be on the bus, as it pleases.
_SEND_NS: Final = 1 * clock.SECOND


def send_all(bus: can.BusABC, exchange: Exchange, note_sent: Callable[[Frame], None]) -> None:
    """Sends until the exchange ends. ``note_sent`` is told of each frame before it is sent."""
    while (transmit := exchange.next_transmit()) is not None:
        now_ns = clock.monotonic_ns()
        if 0 < transmit.expires_ns <= now_ns:
            exchange.finished(transmit, "expired before the driver took it")
            continue
        note_sent(transmit.frame)
        try:
            with foreign("send"):
                bus.send(to_message(transmit.frame), timeout=_timeout(transmit, now_ns))
        except DriverError as error:
            exchange.finished(transmit, str(error))
            if error.fatal:
                exchange.lose(str(error))
        else:
            exchange.finished(transmit, None)


def _timeout(transmit: Transmit, now_ns: int) -> float:
    """Seconds that the driver may take: not longer than who sends is patient."""
    patience_ns = transmit.expires_ns - now_ns if transmit.expires_ns else _SEND_NS
    return min(patience_ns, _SEND_NS) / clock.SECOND
