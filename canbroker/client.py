"""The user's API: a bus that shares its adapter with every other process of this user.

Follows the Bus API that python-can documents; what is ours beyond it says so.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from canbroker import clock
from canbroker.errors import (
    CanError,
    CanInitializationError,
    CanInterfaceNotImplementedError,
    CanOperationError,
    CanTimeoutError,
)
from canbroker.fabric.requests import ControlError, call
from canbroker.fabric.sockets import Context
from canbroker.filters import CanFilters, FilterSet, validate
from canbroker.frame import Frame
from canbroker.link import attach, lifetime
from canbroker.link.reception import Reception
from canbroker.link.transmitter import Transmitter
from canbroker.link.values import BusState, BusStats, CanProtocol
from canbroker.link.watch import ChannelWatch
from canbroker.message import Message, to_frame
from canbroker.runtime import Runtime
from canbroker.wake import Wake
from canbroker.wire import control
from canbroker.wire.transmit import MAX_FRAMES

_READY_S: Final = 5.0
_SHUTDOWN_S: Final = 10.0
_CONTROL_S: Final = 5.0

_logger = logging.getLogger("canbroker.bus")

__all__ = ["Bus", "BusState", "BusStats", "CanProtocol", "ThreadSafeBus"]

_T = TypeVar("_T")


class Bus:
    """A channel, shared with every other process that opens it.

    One thread may receive while another one sends; see :class:`ThreadSafeBus` for more.
    """

    RECV_LOGGING_LEVEL = 9

    def __init__(
        self,
        channel: Any = None,
        interface: str | None = None,
        *,
        can_filters: CanFilters = None,
        receive_own_messages: bool = False,
        broker: str | None = None,
        **parameters: Any,
    ) -> None:
        """Attaches to a channel, which the broker opens if nobody has yet.

        :param channel: the name of a channel of the broker's configuration; with ``interface``
            what that interface calls a channel (a device, say).
        :param interface: ``slcan`` or ``virtual``.
        :param can_filters: list of ``{"can_id", "can_mask"[, "extended"]}``; ``None``: all.
        :param receive_own_messages: whether :meth:`recv` returns what this bus has sent.
        :param broker: address of the broker; ``None`` is this user's own, which is started if
            it does not run (unless ``CANBROKER_AUTOSTART`` is 0).
        :param parameters: parameters of the interface. What is left out is as it is, if the
            channel is open already.
        :raises CanInterfaceNotImplementedError: no such interface, or nothing given.
        :raises CanInitializationError: the broker, the adapter or a parameter is at fault.
        :raises ValueError: a filter is not valid.
        """
        self._closed: str | None = "the bus was never opened"
        self._unfinished = False
        wanted = validate(can_filters)
        if channel is None:
            raise CanInterfaceNotImplementedError(
                "no channel given: name a channel of the broker's configuration, "
                "or an interface and a channel"
            )
        self._channel = channel
        self._client_id = os.urandom(6).hex()
        self._close_lock = threading.RLock()  # a signal handler may interrupt a shutdown
        self._send_lock = threading.Lock()
        self._sender: int | None = None  # thread that has the lock
        self._runtime = Runtime.at(broker)
        self._wake = Wake()
        self._context = Context()
        self._parts: list[Reception | ChannelWatch | Transmitter] = []
        try:
            self._attach(interface, parameters, wanted, receive_own=receive_own_messages)
        except BaseException:
            self._closed = "the bus was never opened"
            self._detach()
            self._release()
            raise
        lifetime.opened(self)

    def _attach(
        self,
        interface: str | None,
        parameters: dict[str, Any],
        wanted: FilterSet,
        *,
        receive_own: bool,
    ) -> None:
        """Asks the broker for the channel, and waits until our filters are active there."""
        request = attach.request(self._client_id, str(self._channel), interface, parameters)
        self._attached = attach.attach(
            self._context, self._runtime, request, autostart=attach.autostart_wanted()
        )
        name, stream = self._attached.name, self._attached.stream
        self._watch = ChannelWatch(self._context, stream, name)
        self._parts.append(self._watch)
        self._reception = Reception(
            self._context,
            stream,
            name,
            self._client_id,
            label=self._channel,
            receive_own=bool(receive_own),
            wake=self._wake,
            check_open=self._check_open,
            beside=self._watch.silent,
        )
        self._parts.append(self._reception)
        self._closed = None
        try:
            ready = self._reception.subscribe(wanted, clock.deadline_after(_READY_S))
        except CanError as error:
            raise CanInitializationError(str(error)) from error
        self._watch.begin(self._reception.subscriber.epoch, ready.state)
        self._transmitter = Transmitter(
            self._context, self._attached.transmit, self._client_id, self._watch, self._wake
        )
        self._parts.append(self._transmitter)
        self.channel_info = f"{name}: {ready.state.info}"
        self.protocol = CanProtocol.CAN_FD if ready.state.fd else CanProtocol.CAN_20

    def __repr__(self) -> str:
        state = self._closed or self.state.value
        return f"<{type(self).__name__} {self._channel!r} {state}>"

    # ------------------------------------------------------------------------------ receiving

    def recv(self, timeout: float | None = None) -> Message | None:
        """Returns the next message, or ``None`` when ``timeout`` seconds are over.

        :param timeout: ``None`` waits for ever; 0 returns what is there.
        :raises CanOperationError: the bus is closed, or its channel is gone.
        """
        try:
            message = self._reception.receive(timeout)
        except CanOperationError:
            self._finish_shutdown()
            raise
        if message is not None and _logger.isEnabledFor(self.RECV_LOGGING_LEVEL):
            _logger.log(self.RECV_LOGGING_LEVEL, "Received: %s", message)
        return message

    def recv_batch(self, max_messages: int, timeout: float | None = None) -> list[Message]:
        """Returns up to ``max_messages`` messages: waits for the first, takes what is there.

        Ours. :raises CanOperationError: as :meth:`recv`.
        """
        if max_messages < 1:
            raise ValueError(f"max_messages must be at least 1, got {max_messages}")
        first = self.recv(timeout)
        if first is None:
            return []
        messages = [first]
        try:
            while len(messages) < max_messages and (message := self.recv(0)) is not None:
                messages.append(message)
        except CanOperationError as error:
            _logger.debug("%r ends after %d messages: %s", self._channel, len(messages), error)
        return messages

    def __iter__(self) -> Iterator[Message]:
        """Yields messages for as long as the bus is open."""
        while True:
            try:
                message = self.recv()
            except CanOperationError:
                if self._closed:
                    return
                raise
            if message is not None:
                yield message

    def fileno(self) -> int:
        """A descriptor that is readable whenever ``recv(0)`` would return a message.

        It may be readable when there is none, too. -1 where the system has no such thing.
        """
        self._check_open()
        return self._reception.fileno()

    # -------------------------------------------------------------------------------- sending

    def send(self, msg: Message, timeout: float | None = None) -> None:
        """Sends a message, which is copied at once. python-can's own are taken too.

        A frame that the driver refuses later is reported by the next :meth:`send`,
        :meth:`flush` or :meth:`shutdown`; nothing is dropped in silence.

        :param timeout: seconds. ``None`` blocks until the transmit queue has room; a number
            above 0 waits until the driver has taken the frame; 0 never blocks.
        :raises CanTimeoutError: that did not happen in time; the frame is not sent later.
        :raises CanOperationError: not valid, the channel is down or the bus closed, or an
            earlier frame was not sent.
        """
        self._send([to_frame(msg)], clock.deadline_after(timeout), taken=bool(timeout))

    def send_batch(self, messages: Iterable[Message], timeout: float | None = None) -> None:
        """Sends messages in order, many in one request. Ours, for throughput.

        Everything is checked before anything is sent. ``timeout`` as for :meth:`send`, for all.

        :raises CanTimeoutError, CanOperationError: as :meth:`send`; the text names the message.
        """
        frames = [to_frame(message) for message in messages]
        deadline = clock.deadline_after(timeout)
        for start in range(0, len(frames), MAX_FRAMES):
            try:
                self._send(frames[start : start + MAX_FRAMES], deadline, taken=bool(timeout))
            except CanTimeoutError as error:
                before = f"the {start} messages before it are under way"
                raise CanTimeoutError(f"{error}; {before}") from error

    def flush(self, timeout: float | None = None) -> None:
        """Waits until the driver has taken every frame that was sent. Ours.

        :raises CanTimeoutError: it had not within ``timeout`` seconds.
        :raises CanOperationError: a frame was not sent.
        """
        deadline = clock.deadline_after(timeout)
        with self._sending(deadline):
            self._transmitter.flush(deadline)

    def flush_tx_buffer(self) -> int:
        """Discards what was sent and the driver has not taken yet; returns how many frames."""
        with self._sending(None):
            if not self._transmitter.pending():
                return 0
            params = control.Discard(client_id=self._client_id, token=self._transmitter.token)
            return self._control("discard", params, control.Discarded).count

    def _send(self, frames: list[Frame], deadline: int | None, *, taken: bool) -> None:
        with self._sending(deadline):
            if self._watch.epoch != self._reception.subscriber.epoch:
                self._reception.poke()
            self._transmitter.send(frames, deadline, taken=taken)

    @contextmanager
    def _sending(self, deadline: int | None) -> Iterator[None]:
        """The right to send, taken before the caller's deadline."""
        self._check_open()
        left = clock.remaining_ns(deadline)
        if not self._send_lock.acquire(timeout=-1 if left is None else left / clock.SECOND):
            raise CanTimeoutError("another thread is sending")
        try:
            self._check_open()
            self._sender = threading.get_ident()
            yield
        finally:
            self._sender = None
            self._send_lock.release()
            self._finish_shutdown()

    # -------------------------------------------------------------------------------- control

    @property
    def filters(self) -> list[dict[str, int | bool]] | None:
        """The filters in force, normalised; ``None``: every message passes."""
        return self._reception.filters.can_filters()

    @filters.setter
    def filters(self, can_filters: CanFilters) -> None:
        self.set_filters(can_filters)

    def set_filters(self, can_filters: CanFilters = None) -> None:
        """Changes which messages are received; in force in the driver's process on return.

        Messages that wait to be received and do not pass the new filters are dropped.

        :param can_filters: ``None`` or empty: everything.
        :raises ValueError: names the filter that is not valid.
        :raises CanOperationError: the bus is closed, or its channel is gone.
        """
        wanted = validate(can_filters)
        self._check_open()
        self._reception.subscribe(wanted, clock.deadline_after(_READY_S))

    @property
    def state(self) -> BusState:
        """The last known state of the channel. Never waits; ``ERROR`` when the bus is closed."""
        if self._closed or self._watch.problem() is not None:
            return BusState.ERROR
        if self._watch.epoch != self._reception.subscriber.epoch:
            self._reception.poke()
        return BusState(self._watch.state.state)

    @state.setter
    def state(self, state: BusState) -> None:
        """Makes the channel take part (``ACTIVE``) or only listen (``PASSIVE``), for everyone.

        :raises CanOperationError: the adapter cannot.
        """
        self._check_open()
        if state not in {BusState.ACTIVE, BusState.PASSIVE}:
            raise ValueError(f"a bus can be set to ACTIVE or PASSIVE, not to {state}")
        self._control("set_state", control.SetState(state=state.value), control.Nothing)
        self._watch.wait_for(state.value, clock.deadline_after(_CONTROL_S))

    @property
    def stats(self) -> BusStats:
        """The account of this bus up to now. Ours."""
        subscriber, transmitter = self._reception.subscriber, self._transmitter
        return BusStats(
            received=subscriber.received,
            sent=transmitter.sent,
            failed=transmitter.failed,
            lost=subscriber.lost,
            dropped_upstream=subscriber.dropped_upstream,
            restarts=subscriber.restarts,
            interruptions=self._watch.interruptions,
            receive_queue=len(self._reception),
            transmit_queue=transmitter.unanswered,
        )

    def _control(self, method: str, params: control.Params, result: type[_T]) -> _T:
        deadline = clock.deadline_after(_CONTROL_S)
        try:
            answer = call(self._context, self._attached.control, method, params, result, deadline)
        except ControlError as error:
            raise CanOperationError(str(error)) from error
        if answer is None:
            raise CanOperationError(f"channel {self._attached.name!r} does not answer")
        return answer

    # -------------------------------------------------------------------------------- closing

    def shutdown(self) -> None:
        """Closes the bus when the driver has taken what was sent. Idempotent, any thread.

        A :meth:`recv` that waits in another thread ends with :class:`CanOperationError`.

        :raises CanOperationError: a frame was not sent. The bus is closed all the same.
        :raises CanTimeoutError: frames were still on their way after 10 s. As above.
        """
        with self._close_lock:
            if self._closed:
                return
            self._closed = "the bus is shut down"
        lifetime.closed(self)
        self._transmitter.closing.set()
        self._wake.set()
        self._unfinished = True
        self._finish_shutdown()

    def _finish_shutdown(self) -> None:
        """Ends a bus that was shut down.

        Called from a signal handler that has interrupted recv or send of the same thread, it
        leaves that to them: they hold the sockets.
        """
        mine = self._sender == threading.get_ident() or self._reception.turns.mine()
        if mine or not self._unfinished:
            return
        self._unfinished = False
        try:
            with self._send_lock:
                self._transmitter.flush(clock.deadline_after(_SHUTDOWN_S), closing=True)
        finally:
            with self._send_lock:
                self._detach()
                self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()

    def __del__(self) -> None:
        if self._closed is None:
            lifetime.end(self)
        elif self._unfinished:
            self._finish_shutdown()

    def _check_open(self) -> None:
        if self._closed:
            raise CanOperationError(f"{self._closed} ({self._channel!r})")

    def _detach(self) -> None:
        """Tells the broker, so that it need not find out."""
        params = control.Detach(client_id=self._client_id)
        try:
            attach.ask(self._context, self._runtime, "detach", params, control.Nothing, 0.5)
        except CanError as error:
            _logger.debug("the broker did not take the leave of %r: %s", self._channel, error)

    def _release(self) -> None:
        for part in reversed(self._parts):
            part.close()
        self._context.close()
        self._wake.close()

    def _forked(self) -> None:
        """[forked child] The sockets are the parent's: touch nothing, and say so when used."""
        self._closed = "the bus belongs to the process that opened it, not to its forked child"
        self._unfinished = False
        self._close_lock = threading.RLock()
        self._send_lock = threading.Lock()
        self._reception.forget()


class ThreadSafeBus(Bus):
    """A :class:`Bus` for any number of threads.

    Sends take turns, receives take turns, and neither waits for the other. ``state``, ``stats``,
    :meth:`~Bus.set_filters` and :meth:`~Bus.shutdown` never wait behind a blocked ``recv``. A
    :class:`Bus` is made of the same locks; the name is python-can's, for scripts that use it.
    """
