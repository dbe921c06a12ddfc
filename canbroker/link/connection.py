"""A bus's connection to its channel: made as a whole, and ended as a whole."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from canbroker import clock
from canbroker.errors import CanError, CanInitializationError, CanOperationError
from canbroker.fabric.requests import ControlError, call
from canbroker.fabric.sockets import Context
from canbroker.filters import FilterSet
from canbroker.link import attach
from canbroker.link.reception import Reception
from canbroker.link.sending import Sending
from canbroker.link.tasks import TaskLink
from canbroker.link.transmitter import Transmitter
from canbroker.link.values import Receiving
from canbroker.link.watch import ChannelWatch
from canbroker.runtime import Runtime
from canbroker.wake import Wake
from canbroker.wire import WireError, control
from canbroker.wire.stream import Holder, StateEvent, locked_by
from canbroker.wire.tasks import TaskTrouble

#: The channel answers at once; this long it may take on a busy machine.
ANSWER_S: Final = 5.0

_SHUTDOWN_S: Final = 10.0
_DETACH_S: Final = 0.5

#: A channel sees at once that a client has left.
_LEAVING_NS: Final = clock.SECOND // 2
_NEVER_OPENED: Final = "the bus was never opened"

_logger = logging.getLogger("canbroker.bus")

_T = TypeVar("_T")


class Connection:
    """Everything that a bus has open. Any thread.

    ``closed`` says why it cannot be used (any more); ``None`` while it can. ``opening`` is the
    state of the channel when it was opened. ``tasks``: to the scheduler, if it was needed.
    ``client_id``: our name for the broker, the channel and the scheduler.
    """

    def __init__(
        self,
        label: Any,
        interface: str | None,
        parameters: Mapping[str, Any],
        *,
        wanted: FilterSet,
        receiving: Receiving,
        broker: str | None,
        exclusive: bool = False,
    ) -> None:
        """Asks the broker for the channel, and waits until our filters are active there.

        ``label`` is what the user calls the channel. ``exclusive``: nobody else may transmit.

        :raises CanError: the broker, the adapter or a parameter is at fault. Nothing stays open.
        """
        self.closed: str | None = _NEVER_OPENED
        self._unfinished = False
        self._label = label
        self.client_id = os.urandom(6).hex()
        self._close_lock = threading.RLock()  # a signal handler may interrupt a shutdown
        self._runtime = Runtime.at(broker)
        self._wake = Wake()
        self._context = Context()
        self._parts: list[Reception | ChannelWatch | Transmitter | TaskLink] = []
        self.tasks: TaskLink | None = None
        self._claims = exclusive
        try:
            request = attach.request(self.client_id, str(label), interface, parameters)
            self.attached = attach.attach(
                self._context, self._runtime, request, autostart=attach.autostart_wanted()
            )
            claim = f"process {request.pid}: {request.program}" if exclusive else None
            self.opening = self._open(wanted, receiving, claim)
        except BaseException:
            self.closed = _NEVER_OPENED
            self._end()
            raise

    def _open(self, wanted: FilterSet, receiving: Receiving, claim: str | None) -> StateEvent:
        name, stream = self.attached.name, self.attached.stream
        self.watch = ChannelWatch(self._context, stream, name)
        self._parts.append(self.watch)
        self.reception = Reception(
            self._context,
            stream,
            self.attached.control,
            name,
            self.client_id,
            label=self._label,
            receiving=receiving,
            check_open=self.check_open,
            disconnect=self.close,
            watch=self.watch,
            claim=claim,
        )
        self._parts.append(self.reception)
        self.closed = None
        try:
            ready = self.reception.subscribe(wanted, clock.deadline_after(ANSWER_S))
            self.reception.remember(clock.deadline_after(ANSWER_S))
        except CanError as error:
            raise CanInitializationError(str(error)) from error
        self.watch.begin(self.reception.subscriber.order.epoch, ready.state)
        if claim is not None:
            self._make_sure_of_claim()
        self.transmitter = Transmitter(
            self._context, self.attached.transmit, self.client_id, self.watch, self._wake
        )
        self._parts.append(self.transmitter)
        self.sending = Sending(
            self.transmitter, self.reception, check_open=self.check_open, finish=self.finish
        )
        return ready.state

    def _make_sure_of_claim(self) -> None:
        """:raises CanInitializationError: another client has the sole right to transmit."""
        if not self.watch.wait_for_holder(self._is_us, clock.monotonic_ns() + _LEAVING_NS):
            holder = self.watch.holder()
            why = "did not confirm that it is" if holder is None else locked_by(holder)
            raise CanInitializationError(f"channel {self._label!r} cannot be exclusive: {why}")

    def _is_us(self, holder: Holder | None) -> bool:
        return holder is not None and holder.client_id == self.client_id

    def check_open(self) -> None:
        """:raises CanOperationError: it is closed."""
        if self.closed:
            raise CanOperationError(f"{self.closed} ({self._label!r})")

    def control(self, method: str, params: control.Params, result: type[_T]) -> _T:
        """The answer of the channel actor.

        :raises CanOperationError: it is an error, or there is none.
        """
        deadline = clock.deadline_after(ANSWER_S)
        try:
            answer = call(self._context, self.attached.control, method, params, result, deadline)
        except ControlError as error:
            raise CanOperationError(str(error)) from error
        except WireError as error:
            raise CanOperationError(f"channel {self.attached.name!r}: {error}") from error
        if answer is None:
            raise CanOperationError(f"channel {self.attached.name!r} does not answer")
        return answer

    def schedule(self, on_trouble: Callable[[TaskTrouble], None]) -> TaskLink:
        """The connection to the scheduler, which is made by its first use.

        :raises CanOperationError: the bus is closed.
        """
        with self._close_lock:
            self.check_open()
            if self.tasks is None:
                link = TaskLink(
                    self._context,
                    self._runtime,
                    self.client_id,
                    check_open=self.check_open,
                    finish=self.finish,
                    on_trouble=on_trouble,
                )
                self._parts.append(link)  # first: what is used is closed, whatever interrupts us
                self.tasks = link
            return self.tasks

    def discard(self) -> int:
        """Takes back what the driver has not taken yet; returns how many frames."""
        return self.sending.discard(
            lambda token: (
                self.control(
                    "discard",
                    control.Discard(client_id=self.client_id, token=token),
                    control.Discarded,
                ).count
            )
        )

    def close(self, reason: str = "the bus is shut down") -> bool:
        """Lets nobody use it any more, and wakes who waits; :meth:`finish` does the rest.

        Returns whether it was open.
        """
        with self._close_lock:
            if self.closed:
                return False
            self.closed = reason
            self._unfinished = True
        self.transmitter.closing.set()
        self._wake.set()
        self.reception.wake.set()
        if self.tasks is not None:
            self.tasks.wake.set()
        return True

    def finish(self) -> None:
        """Ends a connection that was closed, when the driver has taken what was sent.

        Called from a signal handler that has interrupted a call of the same thread, it leaves
        that to whoever uses or drops the bus next: that call holds the sockets.

        :raises CanOperationError: a frame was not sent.
        :raises CanTimeoutError: frames were still on their way after 10 s.
        """
        if not self._unfinished or self._in_use_by_this_thread():
            return
        self._unfinished = False
        try:
            self.sending.turn.take(None, self._flush)
        finally:
            self.sending.turn.take(None, self._end)

    def forked(self) -> None:
        """[forked child] The sockets are the parent's: touch nothing, and say so when used."""
        self.closed = "the bus belongs to the process that opened it, not to its forked child"
        self._unfinished = False
        self._close_lock = threading.RLock()
        self.reception.forget()

    def _in_use_by_this_thread(self) -> bool:
        return (
            self.sending.turn.mine()
            or self.reception.turns.mine()
            or (self.tasks is not None and self.tasks.turn.mine())
        )

    def _flush(self) -> None:
        self.transmitter.flush(clock.deadline_after(_SHUTDOWN_S), closing=True)

    def _end(self) -> None:
        try:
            self._detach()
        finally:
            self._release()

    def _detach(self) -> None:
        """Tells the broker, so that it need not find out."""
        params = control.Detach(client_id=self.client_id)
        try:
            attach.ask(self._context, self._runtime, "detach", params, control.Nothing, _DETACH_S)
        except CanError as error:
            _logger.debug("the broker did not take the leave of %r: %s", self._label, error)

    def _release(self) -> None:
        for part in reversed(self._parts):
            if part is self._parts[0] and self._claims:
                # Our presence is over by now; when the channel has seen that, all may transmit.
                until = clock.monotonic_ns() + _LEAVING_NS
                self.watch.wait_for_holder(lambda holder: not self._is_us(holder), until)
            part.close()
        self._context.close()
        self._wake.close()
