"""What a bus tells of its channel beside its messages: load, error counters, signals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from canbroker.bus.connection import Connection
from canbroker.model.error_counters import ErrorCounters
from canbroker.wire.stream import StateEvent

if TYPE_CHECKING:
    from canbroker.bus.signal_feed import SignalBus
    from canbroker.bus.signals import Signals


class ObservedBus:
    """The part of a :class:`canbroker.Bus` that observes its channel. ``Bus.__init__`` sets the
    attributes."""

    _connection: Connection

    def signals(
        self: SignalBus, database: Any = None, names: Iterable[str] | None = None
    ) -> Signals:
        """The channel's signals by name: latest values, waiting for one, captures. Ours.

        ``with bus.signals("car.dbc", ["Speed", "Gear"]) as signals:``; arguments and errors are
        those of :class:`canbroker.Signals`. Needs ``canbroker[signals]``.
        """
        from canbroker.bus.signals import Signals  # noqa: PLC0415 - most programs use none

        return Signals(self, database, names)

    @property
    def load(self) -> float | None:
        """The share of the bus's time that frames took during the last half second, 0 to 1. Ours.

        It is counted from the frames that the channel has received and sent, and its bit rates,
        without stuff bits: the true load is up to a fifth higher. Never waits.

        ``None`` if the bit rate is not known (virtual channels without ``bitrate``, some drivers),
        the adapter is not there, or the bus is closed.
        """
        state = self._state_now()
        return None if state is None else state.load

    @property
    def error_counters(self) -> ErrorCounters | None:
        """The transmit and receive error counters of the controller. Ours. Never waits.

        The kernel's drivers (``socketcan``) tell them at any time. Others report them in error
        frames only: they are then those of the last one.

        ``None`` if the adapter has not told any, is not there, or the bus is closed: ``virtual``
        and ``slcan`` have none, and of python-can's drivers only PCAN's and gs_usb's tell them.
        """
        state = self._state_now()
        return None if state is None else state.error_counters

    def _state_now(self) -> StateEvent | None:
        return None if self._connection.closed else self._connection.watch.current()
