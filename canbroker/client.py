"""The user's API: a bus that shares its adapter with every other process of this user.

Follows the Bus API that python-can documents; what is ours beyond it says so.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import canbroker
from canbroker.bus import lifetime
from canbroker.bus.awaiting import AwaitedBus
from canbroker.bus.connection import ANSWER_S, Connection, Wanted, connect
from canbroker.bus.discovery import channel_names
from canbroker.bus.lease import Lease, lease
from canbroker.bus.life import Life
from canbroker.bus.ownership import Uncopyable, end_block
from canbroker.bus.periodic.registry import Periodic
from canbroker.bus.periodic.task import OnError, PeriodicTask
from canbroker.bus.values import BusState, BusStats, CanProtocol, Receiving
from canbroker.configuration import bus_settings
from canbroker.errors import (
    CanError,
    CanInitializationError,
    CanInterfaceNotImplementedError,
    CanLossError,
    CanOperationError,
    CanTimeoutError,
)
from canbroker.model.filters import CanFilters, listed, validate
from canbroker.model.message import Message, to_frame, to_stamped_frame
from canbroker.model.protection import Checksum, Counter
from canbroker.system import clock
from canbroker.wire import control
from canbroker.wire.transmit import MAX_FRAMES

_logger = logging.getLogger("canbroker.bus")

__all__ = [
    "Bus",
    "BusABC",
    "BusState",
    "BusStats",
    "CanProtocol",
    "Lease",
    "ThreadSafeBus",
    "lease",
]


class Bus(Uncopyable, AwaitedBus):
    """A channel, shared with every other process that opens it.

    One thread may receive while another one sends; see :class:`ThreadSafeBus` for more.
    """

    RECV_LOGGING_LEVEL = 9

    _message_type = Message  # of what is received
    _forgotten = False  # its finalizer runs

    def __init__(
        self,
        channel: Any = None,
        interface: str | None = None,
        config_context: str | None = None,
        ignore_config: bool = False,
        *,
        can_filters: CanFilters = None,
        receive_own_messages: bool | None = None,
        preserve_timestamps: bool | None = None,
        exclusive: bool | None = None,
        on_loss: str | None = None,
        on_slow: str | None = None,
        history: float | None = None,
        broker: str | None = None,
        **parameters: Any,
    ) -> None:
        """Attaches to a channel, which the broker opens if nobody has yet.

        What is not given comes from ``canbroker.rc``, environment and files, as in python-can.

        :param channel: the name of a channel of the broker's configuration; with ``interface``
            what that interface calls a channel (a device, say).
        :param interface: ``slcan``, ``socketcan``, ``virtual`` or one of python-can's.
        :param config_context: variables with this suffix, and this section of files, go first.
        :param ignore_config: takes the arguments alone.
        :param can_filters: list of ``{"can_id", "can_mask"[, "extended"]}``; ``None``: all.
        :param receive_own_messages: whether :meth:`recv` returns what this bus has sent.
        :param preserve_timestamps: others receive what this bus sends (but periodic tasks) with
            the ``timestamp`` that the message has, not with that of its sending. ``virtual`` only.
        :param exclusive: nobody else may transmit on the channel until this bus is shut down;
            what others send raises there. Ours.
        :param on_loss: ``count`` frames that were lost on the way (default), or ``raise``
            :class:`CanLossError`, once where each gap is. Ours.
        :param on_slow: when this bus has missed frames because it was slow, ``repair`` that
            (default) or ``disconnect``; or have but the ``latest`` message of each identifier
            whenever it receives, for displays. Ours.
        :param history: begin with the frames of the last so many seconds. Ours.
        :param broker: address of the broker; ``None`` is this user's own, which is started if
            it does not run (unless ``CANBROKER_AUTOSTART`` is 0).
        :param parameters: parameters of the interface, ``timing`` with registers instead of
            ``bitrate`` among them. What is left out is as it is, if the channel is open already.
        :raises CanInterfaceNotImplementedError: no such interface, or nothing given.
        :raises CanInitializationError: broker, adapter, parameter or configuration is at fault,
            or another bus is exclusive.
        :raises ValueError: a filter, or one of our arguments, is not valid.
        """
        given = dict(parameters, channel=channel, interface=interface, broker=broker)
        given |= {"exclusive": exclusive, "on_loss": on_loss}
        given |= {"on_slow": on_slow, "history": history}
        given |= {"can_filters": can_filters, "receive_own_messages": receive_own_messages}
        given |= {"preserve_timestamps": preserve_timestamps}
        found = bus_settings.resolve(
            given, canbroker.rc, config_context, ignore_config=ignore_config, channels=channel_names
        )
        self._channel = found.get("channel")
        wanted = _wanted(found, self._message_type)
        client_id = os.urandom(6).hex()
        self._life = Life(self._channel, client_id)  # owns whatever is opened from here on
        lifetime.needs(self, self._life)
        try:
            self._connection = self._connect(found, client_id, wanted)
            self._to_frame = to_stamped_frame if found.get("preserve_timestamps") else to_frame
            self._reception = self._connection.reception
            self._sending = self._connection.sending
            self._periodic = Periodic(self._connection)
            opening = self._connection.opening
            self.channel_info = f"{self._connection.attached.name}: {opening.info}"
            self.protocol = _protocol(found, self._connection)
            lifetime.opened(self)
        except BaseException:
            self._life.end()
            raise

    def _connect(self, found: bus_settings.Settings, client_id: str, wanted: Wanted) -> Connection:
        try:
            connection = connect(self._life, client_id, wanted)
            if found.get("preserve_timestamps"):
                _check_virtual(connection)
        except (CanInitializationError, CanInterfaceNotImplementedError) as error:
            error.args = (found.explain(str(error)),)
            raise
        return connection

    def __repr__(self) -> str:
        state = self._connection.closed or self.state.value
        return f"<{type(self).__name__} {self._channel!r} {state}>"

    # ------------------------------------------------------------------------------ receiving

    def recv(self, timeout: float | None = None) -> Message | None:
        """Returns the next message, or ``None`` when ``timeout`` seconds are over.

        An exception that a signal handler raises goes through; the bus stays usable, and a
        message that was just being returned is gone.

        :param timeout: ``None`` waits for ever; 0 returns what is there.
        :raises CanOperationError: the bus is closed, or its channel is gone.
        """
        try:
            message = self._reception.receive(timeout)
        except CanOperationError:
            self._life.finish()
            raise
        if message is not None and _logger.isEnabledFor(self.RECV_LOGGING_LEVEL):
            _logger.log(self.RECV_LOGGING_LEVEL, "Received: %s", message)
        return message

    def recv_batch(self, max_messages: int, timeout: float | None = None) -> list[Message]:
        """Returns up to ``max_messages`` messages: waits for the first, takes what is there.

        Ours.

        :raises CanOperationError: as :meth:`recv`.
        """
        if max_messages < 1:
            raise ValueError(f"max_messages must be at least 1, got {max_messages}")
        first = self.recv(timeout)
        if first is None:
            return []
        messages = [first]
        try:
            while room := max_messages - len(messages):
                ready = self._reception.take(room)
                if not ready and (following := self._reception.receive(0)) is not None:
                    ready = [following]
                if not ready:
                    break
                messages += ready
        except CanLossError as loss:
            self._reception.put_back(loss)
        except CanOperationError as error:
            _logger.debug("%r ends after %d messages: %s", self._channel, len(messages), error)
        if _logger.isEnabledFor(self.RECV_LOGGING_LEVEL):
            for message in messages[1:]:
                _logger.log(self.RECV_LOGGING_LEVEL, "Received: %s", message)
        return messages

    def __iter__(self) -> Iterator[Message]:
        """Yields messages for as long as the bus is open."""
        while True:
            try:
                message = self.recv()
            except CanOperationError:
                if self._connection.closed:
                    return
                raise
            if message is not None:
                yield message

    def fileno(self) -> int:
        """A descriptor that is readable whenever ``recv(0)`` would return a message.

        It may be readable when there is none, too. -1 where the system has no such thing.
        """
        try:
            return self._reception.fileno()
        finally:
            self._life.finish()

    # -------------------------------------------------------------------------------- sending

    def send(self, msg: Message, timeout: float | None = None) -> None:
        """Sends a message, which is copied at once. python-can's own are taken too.

        A frame that the driver refuses later is reported by the next :meth:`send`,
        :meth:`flush` or :meth:`shutdown`; nothing is dropped in silence.

        :param timeout: seconds. ``None`` blocks until the transmit queue has room; a number
            above 0 waits until the driver has taken the frame; 0 never blocks.
        :raises CanTimeoutError: that did not happen in time; the frame is not sent later.
        :raises CanOperationError: not valid, the channel is down or the bus closed, or an
            earlier frame, or one of a periodic task, was not sent.
        :raises ValueError: the timestamp is to be preserved, and is not valid.
        """
        if self._periodic.used:
            self._periodic.raise_troubles()
        self._sending.send(
            [self._to_frame(msg)], clock.deadline_after(timeout), taken=bool(timeout)
        )

    def send_batch(self, messages: Iterable[Message], timeout: float | None = None) -> None:
        """Sends messages in order, many in one request. Ours, for throughput.

        Everything is checked before anything is sent. ``timeout`` as for :meth:`send`, for all.

        :raises CanTimeoutError: as :meth:`send`; the text names the message.
        :raises CanOperationError: as :meth:`send`.
        """
        frames = [self._to_frame(message) for message in messages]
        self._periodic.raise_troubles()
        deadline = clock.deadline_after(timeout)
        for start in range(0, len(frames), MAX_FRAMES):
            try:
                self._sending.send(
                    frames[start : start + MAX_FRAMES], deadline, taken=bool(timeout)
                )
            except CanTimeoutError as error:
                before = f"the {start} messages before it are under way"
                raise CanTimeoutError(f"{error}; {before}") from error

    def flush(self, timeout: float | None = None) -> None:
        """Waits until the driver has taken every frame that was sent. Ours.

        :raises CanTimeoutError: it had not within ``timeout`` seconds.
        :raises CanOperationError: a frame was not sent.
        """
        self._sending.flush(clock.deadline_after(timeout))
        self._periodic.raise_troubles()

    def flush_tx_buffer(self) -> int:
        """Discards what was sent and the driver has not taken yet; returns how many frames."""
        return self._connection.discard()

    # ------------------------------------------------------------------------------- periodic

    def send_periodic(
        self,
        msgs: Message | Sequence[Message],
        period: float,
        duration: float | None = None,
        store_task: bool = True,
        autostart: bool = True,
        modifier_callback: Callable[[Message], object] | None = None,
        *,
        phase: float | None = None,
        counter: Counter | None = None,
        checksum: Checksum | None = None,
        on_error: OnError | None = None,
    ) -> PeriodicTask:
        """Sends messages in turn, one of them every ``period`` seconds; returns the task.

        They are copied at once, and sent by the broker's scheduler, not by this process. A task
        ends with :meth:`shutdown`, and with the process, whatever ends that.

        :param duration: seconds after which it ends; ``None`` or 0: never.
        :param store_task: whether :meth:`stop_all_periodic_tasks` stops it, too. The bus keeps
            the tasks that it stops, also when they have ended.
        :param autostart: if not, its ``start()`` starts it.
        :param modifier_callback: is called with each message before it is sent, and may change
            it. Such tasks run in this process, all on one thread.
        :param phase: ours, as all below. Seconds, less than ``period``: when within a period the
            message is due. Tasks with one period and different phases keep their distance.
        :param counter: counts the frames, in their data.
        :param checksum: protects the data.
        :param on_error: is called with the exception if a frame is not sent, on that thread;
            the task goes on if it returns true. Without it, a task with a callback ends with a
            log entry; another goes on, and the next call of :meth:`send`, :meth:`flush` or
            :meth:`shutdown` or of a method of the task raises.
        :raises ValueError: names the argument that is not valid.
        :raises CanOperationError: a message is not valid, there are 10,000 tasks, the bus is
            closed, or the scheduler does not answer.
        """
        self._connection.check_open()
        task = self._periodic.make(
            msgs,
            period,
            duration,
            modifier=modifier_callback,
            phase=phase,
            counter=counter,
            checksum=checksum,
            store=store_task,
            on_error=on_error,
        )
        self._periodic.add(task, autostart=autostart)
        return task

    def stop_all_periodic_tasks(self, remove_tasks: bool = True) -> None:
        """Stops the tasks of :meth:`send_periodic` that are stored.

        :param remove_tasks: whether to store them no longer. Their ``start()`` does again.
        """
        self._periodic.stop_all(remove=remove_tasks)

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
        wanted = self._connection.filters(can_filters)
        try:
            self._reception.subscribe(wanted, clock.deadline_after(ANSWER_S))
        finally:
            self._life.finish()

    @property
    def state(self) -> BusState:
        """The last known state of the channel. Never waits; ``ERROR`` when the bus is closed."""
        watch = self._connection.watch
        if self._connection.closed or watch.problem() is not None:
            return BusState.ERROR
        self._reception.follow()
        return BusState(watch.state.state)

    @state.setter
    def state(self, state: BusState) -> None:
        """Makes the channel take part (``ACTIVE``) or only listen (``PASSIVE``), for everyone.

        :raises CanOperationError: the adapter cannot.
        """
        self._connection.check_open()
        if state not in {BusState.ACTIVE, BusState.PASSIVE}:
            raise ValueError(f"a bus can be set to ACTIVE or PASSIVE, not to {state}")
        wanted = control.SetState(state=state.value)
        self._connection.control("set_state", wanted, control.Nothing)
        self._connection.watch.wait_for(state.value, clock.deadline_after(ANSWER_S))

    @property
    def stats(self) -> BusStats:
        """The account of this bus up to now. Ours."""
        subscriber, transmitter = self._reception.subscriber, self._connection.transmitter
        order = subscriber.order
        return BusStats(
            received=order.received,
            sent=transmitter.sent,
            failed=transmitter.failed,
            lost=order.lost,
            repaired=order.repaired,
            skipped=self._reception.skipped,
            dropped_upstream=subscriber.dropped_upstream,
            restarts=order.restarts,
            interruptions=self._connection.watch.interruptions,
            held_errors=self._connection.watch.held_errors,
            receive_queue=len(self._reception),
            transmit_queue=transmitter.unanswered,
        )

    # -------------------------------------------------------------------------------- closing

    def shutdown(self) -> None:
        """Closes the bus when the driver has taken what was sent. Idempotent, any thread.

        Periodic tasks end first. A :meth:`recv` that waits in another thread ends with
        :class:`CanOperationError`.

        :raises CanOperationError: a frame was not sent. The bus is closed all the same.
        :raises CanTimeoutError: frames were still on their way after 10 s. As above.
        """
        if not self._forgotten:
            self._shut_down()

    def _shut_down(self) -> None:
        try:
            self._periodic.close()
            closing = self._life.close()
            if closing:
                lifetime.closed(self)
            try:
                self._life.finish()  # which may have been left to us
            finally:
                if closing:
                    self._periodic.raise_troubles()
        finally:
            self._life.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        end_block(self.shutdown, exc, CanError)

    def __del__(self) -> None:
        life = getattr(self, "_life", None)  # there is none if the configuration was wrong
        if life is None or life.over:
            return
        if life.closed is not None:
            lifetime.end_later(life.end_forgotten)
            return
        self._forgotten = True
        try:
            self.shutdown()  # of a subclass, perhaps; ours leaves it to what follows
        finally:
            name = f"<{type(self).__name__} {self._channel!r}>"
            lifetime.forgotten(self, name, self._end_forgotten, "shut down")

    def _abandon(self) -> None:
        lifetime.end(self, self._end, "shut down")

    def _end(self) -> None:
        try:
            self.shutdown()
        finally:  # a subclass may have a shutdown() that does not
            self._life.end_forgotten()

    def _end_forgotten(self) -> None:
        try:
            self._shut_down()
        finally:
            self._life.end_forgotten()

    def _forked(self) -> None:
        """[forked child]"""
        self._life.forked()
        self._periodic.forget()


def _wanted(found: bus_settings.Settings, message_type: type[Message]) -> Wanted:
    """:raises ValueError: a filter, or another argument, is not valid."""
    can_filters = listed(found.get("can_filters"))
    validate(can_filters)  # before a broker is started for it
    return Wanted(
        label=found.get("channel"),
        interface=found.get("interface"),
        parameters=found.parameters(),
        can_filters=can_filters,
        receiving=Receiving(
            own=bool(found.get("receive_own_messages")),
            on_loss=found.get("on_loss") or "count",
            on_slow=found.get("on_slow") or "repair",
            history=found.get("history") or 0.0,
            message_type=message_type,
        ),
        broker=found.get("broker"),
        exclusive=bool(found.get("exclusive")),
    )


def _protocol(found: bus_settings.Settings, connection: Connection) -> CanProtocol:
    """What the channel was opened for.

    A virtual channel accepts CAN FD frames by default. Programs decide by the protocol whether
    to send them, and python-can's virtual bus reports CAN 2.0. So does ours, unless ``fd`` or
    ``data_bitrate`` was given, or the channel was opened by its name.
    """
    attached = connection.attached
    is_plain = (
        attached.interface == "virtual"
        and found.get("interface") is not None
        and not found.get("fd")
        and attached.parameters.get("data_bitrate") is None
    )
    return CanProtocol.CAN_FD if connection.opening.fd and not is_plain else CanProtocol.CAN_20


def _check_virtual(connection: Connection) -> None:
    """:raises CanInitializationError: the channel is that of an adapter."""
    attached = connection.attached
    if attached.interface != "virtual":
        raise CanInitializationError(
            f"preserve_timestamps is for interface virtual; {attached.name!r} is a channel of "
            f"{attached.interface}"
        )


class ThreadSafeBus(Bus):
    """A :class:`Bus` for any number of threads.

    Sends take turns, receives take turns, and neither waits for the other. ``state``, ``stats``,
    :meth:`~Bus.set_filters` and :meth:`~Bus.shutdown` never wait behind a blocked ``recv``. A
    :class:`Bus` is made of the same locks; the name is python-can's, for scripts that use it.
    """


#: python-can's name for what all buses are. Here they are of one class, whatever the interface.
BusABC = Bus
