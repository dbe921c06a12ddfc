"""The interface ``canbroker`` of python-can: ``can.Bus(interface="canbroker", channel="can0")``.

python-can finds it by its entry point (group ``can.interface``) and imports it when it lists or
opens interfaces, so what talks to a broker is imported by the first bus.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from copy import deepcopy
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import can
from can.broadcastmanager import (
    CyclicSendTaskABC,
    LimitedDurationCyclicSendTaskABC,
    ModifiableCyclicTaskABC,
    RestartableCyclicTaskABC,
)

from canbroker import errors
from canbroker.bus.ownership import Uncopyable, end_block

if TYPE_CHECKING:
    from can.typechecking import AutoDetectedConfig, CanFilters

    from canbroker.client import Bus
    from canbroker.model.message import Message


class CanPermissionError(can.CanOperationError, can.CanInitializationError):
    """As :class:`canbroker.CanPermissionError`, which is its ``__cause__``, to python-can."""


#: Ours and python-can's, the one that says most first.
_ERRORS: Final[Sequence[tuple[type[errors.CanError], type[can.CanError]]]] = (
    (errors.CanPermissionError, CanPermissionError),
    (errors.CanTimeoutError, can.CanTimeoutError),
    (errors.CanOperationError, can.CanOperationError),
    (errors.CanInitializationError, can.CanInitializationError),
    (errors.CanInterfaceNotImplementedError, can.CanInterfaceNotImplementedError),
    (errors.CanError, can.CanError),
)

#: What a modifier_callback may have changed in a message.
_CONTENT: Final = (
    "arbitration_id",
    "is_extended_id",
    "is_remote_frame",
    "is_error_frame",
    "is_fd",
    "bitrate_switch",
    "error_state_indicator",
    "dlc",
    "data",
)


class CanbrokerBus(Uncopyable, can.BusABC):
    """A channel of a broker as a bus of python-can, shared with all others that open it.

    As thread-safe as :class:`canbroker.Bus`, which does the work: filters run in the adapter's
    process, periodic tasks in the broker's scheduler. Errors are python-can's.
    """

    _closer: int | None = None  # thread that has shut it down

    def __init__(
        self,
        channel: Any = None,
        can_filters: CanFilters | None = None,
        *,
        adapter: str | None = None,
        broker: str | None = None,
        receive_own_messages: bool = False,
        exclusive: bool = False,
        **parameters: Any,
    ) -> None:
        """Attaches to a channel, which the broker opens if nobody has yet.

        :param channel: the name of a channel of the broker's configuration; with ``adapter``
            what that interface calls a channel (a device, say).
        :param can_filters: as :meth:`set_filters`.
        :param adapter: interface that the broker shall open the channel with (``slcan``, …).
        :param broker: address of the broker; ``None`` is this user's own, which is started if
            it does not run (unless ``CANBROKER_AUTOSTART`` is 0).
        :param receive_own_messages: whether :meth:`recv` returns what this bus has sent.
        :param exclusive: nobody else may transmit on the channel until this bus is shut down.
        :param parameters: parameters of the interface. What is left out is as it is, if the
            channel is open already.
        :raises can.CanInterfaceNotImplementedError: no such interface, or nothing given.
        :raises can.CanInitializationError: the broker, the adapter or a parameter is at fault.
        :raises ValueError: a filter is not valid.
        """
        from canbroker.client import Bus  # noqa: PLC0415 - only opening a bus needs it

        self._receiving: set[int] = set()  # threads
        with _THEIRS:
            self._bus = Bus(
                channel,
                adapter,
                ignore_config=True,  # python-can has looked already
                can_filters=can_filters,
                receive_own_messages=receive_own_messages,
                exclusive=exclusive,
                broker=broker,
                **parameters,
            )
        try:
            self.channel_info = self._bus.channel_info
            self._can_protocol = can.CanProtocol[self._bus.protocol.name]
            super().__init__(channel=channel, can_filters=can_filters)
        except BaseException:
            self._bus.shutdown()
            raise

    # ---------------------------------------------------------------------- receiving, sending

    def recv(self, timeout: float | None = None) -> can.Message | None:
        """Returns the next message, or ``None`` when ``timeout`` seconds are over.

        ``None`` also when another thread shuts the bus down meanwhile, or has since the last call:
        a Notifier that was told to stop may still be here, and looks when it has returned.

        :raises can.CanOperationError: the bus was closed before, or its channel is gone.
        """
        me = threading.get_ident()
        if self._closer is None:
            self._receiving.add(me)
        try:
            return super().recv(timeout)
        except can.CanOperationError:
            if self._closer not in {None, me} and me in self._receiving:
                self._receiving.discard(me)
                return None
            raise

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        with _THEIRS:
            message = self._bus.recv(timeout)
        return None if message is None else _their_message(message), True

    def set_filters(self, filters: CanFilters | None = None) -> None:
        """Changes which messages are received; in force in the adapter's process on return.

        :raises ValueError: names the filter that is not valid; the others stay in force.
        :raises can.CanOperationError: the bus is closed, or its channel is gone.
        """
        self._bus._connection.filters(
            filters
        )  # python-can would remember filters that are then refused
        super().set_filters(filters)

    def _apply_filters(self, filters: CanFilters | None) -> None:
        with _THEIRS:
            self._bus.set_filters(filters)

    def fileno(self) -> int:
        """A descriptor that is readable whenever ``recv(0)`` would return a message."""
        with _THEIRS:
            return self._bus.fileno()

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        """Sends a message, which is copied at once.

        A frame that the driver refuses later is reported by the next call.

        :param timeout: seconds. ``None`` blocks until the transmit queue has room; a number
            above 0 waits until the driver has taken the frame; 0 never blocks.
        :raises can.CanTimeoutError: that did not happen in time; the frame is not sent later.
        :raises can.CanOperationError: not valid, the channel is down or the bus closed, or an
            earlier frame was not sent.
        """
        with _THEIRS:
            self._bus.send(msg, timeout)  # type: ignore[arg-type] # it has a Message's attributes

    def flush_tx_buffer(self) -> None:
        """Discards what was sent and the driver has not taken yet."""
        with _THEIRS:
            self._bus.flush_tx_buffer()

    def _send_periodic_internal(
        self,
        msgs: Sequence[can.Message] | can.Message,
        period: float,
        duration: float | None = None,
        autostart: bool = True,
        modifier_callback: Callable[[can.Message], None] | None = None,
    ) -> CyclicSendTaskABC:
        return CanbrokerTask(
            self._bus,
            msgs,
            period,
            duration,
            autostart=autostart,
            modifier_callback=modifier_callback,
        )

    # --------------------------------------------------------------------------------- control

    @property
    def state(self) -> can.BusState:
        """The last known state of the channel. Never waits; ``ERROR`` when the bus is closed."""
        return can.BusState[self._bus.state.name]

    @state.setter
    def state(self, new_state: can.BusState) -> None:
        """Makes the channel take part (``ACTIVE``) or only listen (``PASSIVE``), for everyone.

        :raises can.CanOperationError: the adapter cannot.
        """
        from canbroker.client import BusState  # noqa: PLC0415 - as above

        with _THEIRS:
            self._bus.state = BusState[new_state.name]

    def shutdown(self) -> None:
        """Closes the bus when the driver has taken what was sent. Idempotent, any thread.

        :raises can.CanOperationError: a frame was not sent. The bus is closed all the same.
        """
        self._closer = threading.get_ident()
        try:
            with _THEIRS:
                self._bus.shutdown()  # and all its tasks at once
        finally:
            super().shutdown()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        end_block(self.shutdown, exc_val, can.CanError)

    @staticmethod
    def _detect_available_configs() -> Sequence[AutoDetectedConfig]:
        """The channels of this user's broker; none if it does not run."""
        from canbroker.bus.brokers import channel_names  # noqa: PLC0415 - as above
        from canbroker.configuration.bus_settings import PLUGIN  # noqa: PLC0415 - as above

        with _THEIRS:
            return [{"interface": PLUGIN, "channel": name} for name in channel_names(None)]


class CanbrokerTask(
    Uncopyable,
    LimitedDurationCyclicSendTaskABC,
    ModifiableCyclicTaskABC,
    RestartableCyclicTaskABC,
):
    """A periodic task of a :class:`CanbrokerBus`, run by the broker's scheduler.

    One with a ``modifier_callback`` runs in this process. ``messages`` are copies.
    """

    def __init__(
        self,
        bus: Bus,
        messages: Sequence[can.Message] | can.Message,
        period: float,
        duration: float | None,
        *,
        autostart: bool,
        modifier_callback: Callable[[can.Message], None] | None,
    ) -> None:
        """:raises ValueError: an argument; :raises can.CanOperationError: it cannot be started."""
        copied = deepcopy(messages)
        super().__init__(copied, period, duration)
        with _THEIRS:
            self._task = bus.send_periodic(
                copied,  # type: ignore[arg-type] # they have a Message's attributes
                period,
                duration,
                store_task=False,  # python-can's bus does
                autostart=autostart,
                modifier_callback=modifier_callback and _on_their_message(modifier_callback),
            )

    def start(self) -> None:
        """Starts it, from the first message and for the full duration, unless it runs.

        :raises can.CanOperationError: the bus is closed, or a frame was not sent.
        """
        with _THEIRS:
            self._task.start()

    def stop(self) -> None:
        """Ends it, if it runs: once this returns, no more of its frames are sent.

        :raises can.CanOperationError: a frame was not sent.
        """
        with _THEIRS:
            self._task.stop()

    def modify_data(self, messages: Sequence[can.Message] | can.Message) -> None:
        """Sends other messages from the next due time on, or from the next start.

        :raises ValueError: not as many, or another identifier.
        :raises can.CanOperationError: the bus is closed, or a frame was not sent.
        """
        copied, before = deepcopy(messages), self.messages
        super().modify_data(copied)
        try:
            with _THEIRS:
                self._task.modify_data(copied)  # type: ignore[arg-type] # as above
        except BaseException:
            self.messages = before
            raise


class _TheirErrors:
    """Raises python-can's exception for ours. Has no state: one serves all threads."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if isinstance(error, errors.CanError):
            theirs = next(theirs for ours, theirs in _ERRORS if isinstance(error, ours))
            translated = theirs(str(error))
            translated.error_code = error.error_code
            raise translated from error


_THEIRS: Final = _TheirErrors()


def _their_message(message: Message) -> can.Message:
    return can.Message(
        timestamp=message.timestamp,
        arbitration_id=message.arbitration_id,
        is_extended_id=message.is_extended_id,
        is_remote_frame=message.is_remote_frame,
        is_error_frame=message.is_error_frame,
        channel=message.channel,
        dlc=message.dlc,
        data=message.data,
        is_fd=message.is_fd,
        is_rx=message.is_rx,
        bitrate_switch=message.bitrate_switch,
        error_state_indicator=message.error_state_indicator,
    )


def _on_their_message(callback: Callable[[can.Message], None]) -> Callable[[Message], None]:
    """``callback`` for our messages: what it changes in python-can's is changed in ours."""

    def modify(message: Message) -> None:
        theirs = _their_message(message)
        callback(theirs)
        for name in _CONTENT:
            setattr(message, name, getattr(theirs, name))

    return modify
