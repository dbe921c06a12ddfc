"""The user's API: a bus that shares its adapter with every other process of this user.

Follows the Bus API that python-can documents. What canbroker adds says "Ours". Every documented
method is here; what takes more than a few lines to do is done in :mod:`canbroker.bus`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import canbroker
from canbroker.bus import lifetime, opening
from canbroker.bus.brokers import channel_names
from canbroker.bus.ending import EndingBus
from canbroker.bus.life import Life
from canbroker.bus.observed import ObservedBus
from canbroker.bus.tasks import Tasks
from canbroker.bus.values import BusState, BusStats, CanProtocol
from canbroker.configuration import bus_settings
from canbroker.errors import CanOperationError
from canbroker.model.error_counters import ErrorCounters
from canbroker.model.filters import CanFilters
from canbroker.model.message import Message, to_frame, to_stamped_frame
from canbroker.system import clock

if TYPE_CHECKING:
    from canbroker.bus.periodic.task import OnError, PeriodicTask
    from canbroker.model.protection import Checksum, Counter

_logger = logging.getLogger("canbroker.bus")

__all__ = [
    "Bus",
    "BusABC",
    "BusState",
    "BusStats",
    "CanProtocol",
    "ErrorCounters",
    "ThreadSafeBus",
]


class Bus(ObservedBus, EndingBus):
    """A channel, shared with every other process that opens it.

    One thread may receive while another one sends; see :class:`ThreadSafeBus` for more.
    """

    RECV_LOGGING_LEVEL = 9

    _message_type = Message  # the class of received messages

    def __init__(  # noqa: PLR0913 - python-can's arguments and ours
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
        """Attaches to a channel, which the broker opens if it is not open yet.

        Arguments that are not given come from ``canbroker.rc``, the environment and
        configuration files, as in python-can.

        :param channel: the name of a channel in the broker's configuration; with ``interface``,
            the interface's own name for the channel (a device, say).
        :param interface: ``slcan``, ``socketcan``, ``virtual`` or one of python-can's.
        :param config_context: environment variables with this suffix, and this section of the
            configuration files, take precedence.
        :param ignore_config: use the arguments only.
        :param can_filters: list of ``{"can_id", "can_mask"[, "extended"]}``; ``None``: all.
        :param receive_own_messages: whether :meth:`recv` returns what this bus has sent.
        :param preserve_timestamps: other programs receive what this bus sends (except periodic
            tasks) with the message's own ``timestamp`` instead of the time of sending.
            ``virtual`` only.
        :param exclusive: only this bus may transmit on the channel until it is shut down; other
            programs' sends raise. Ours.
        :param on_loss: ``count`` frames that were lost on the way (default), or ``raise``
            :class:`CanLossError`, once at each gap. Ours.
        :param on_slow: when this bus has missed frames because it was slow, ``repair`` the gap
            (default) or ``disconnect``. ``latest`` returns only the latest message of each
            identifier, always; for displays. Ours.
        :param history: begin with the frames of the last ``history`` seconds. Ours.
        :param broker: address of the broker, ``ipc:///…/broker`` or ``tcp://HOST:PORT``;
            ``None`` is this user's own, which is started if it does not run (unless
            ``CANBROKER_AUTOSTART`` is 0).
        :param parameters: parameters of the interface. ``timing`` gives registers instead of
            ``bitrate``. If the channel is already open, omitted parameters stay as they are.
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
        wanted = opening.wanted_by(found, self._message_type)
        self._life = Life(self._channel)  # owns whatever is opened from here on
        lifetime.needs(self, self._life)
        try:
            self._connection = opening.open_connection(self._life, wanted, found)
            self._reception = self._connection.reception
            self._sending = self._connection.sending
            self._periodic = Tasks(self._connection)
            self._to_frame = to_stamped_frame if found.get("preserve_timestamps") else to_frame
            self._place = wanted.broker
            name, about = self._connection.attached.name, self._connection.opening
            self.channel_info = f"{name}: {about.info}"
            self.protocol = opening.protocol_of(self._connection, found)
            lifetime.opened(self)
        except BaseException:
            self._life.end()
            raise

    def __repr__(self) -> str:
        state = self._connection.closed or self.state.value
        return f"<{type(self).__name__} {self._channel!r} {state}>"

    def _another(self, can_filters: CanFilters) -> Bus:
        """A bus of its own on the same channel."""
        name, place = self._connection.attached.name, self._place
        return Bus(name, ignore_config=True, can_filters=can_filters, broker=place)

    # ------------------------------------------------------------------------------ receiving

    def recv(self, timeout: float | None = None) -> Message | None:
        """Returns the next message, or ``None`` when ``timeout`` seconds are over.

        An exception that a signal handler raises passes through. The bus stays usable, but a
        message that was just being returned is lost.

        :param timeout: ``None`` waits for ever; 0 does not wait.
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
        """Waits for a message, then returns it with those that have arrived behind it. Ours.

        :param max_messages: the most to return.
        :param timeout: as for :meth:`recv`. The list is empty when it is over.
        :raises CanOperationError: as :meth:`recv`.
        """
        if max_messages < 1:
            raise ValueError(f"max_messages must be at least 1, got {max_messages}")
        first = self.recv(timeout)
        if first is None:
            return []
        following = self._reception.receive_ready(max_messages - 1)
        if _logger.isEnabledFor(self.RECV_LOGGING_LEVEL):
            for message in following:
                _logger.log(self.RECV_LOGGING_LEVEL, "Received: %s", message)
        return [first, *following]

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

    async def arecv(self, timeout: float | None = None) -> Message | None:
        """As :meth:`recv`, for a task of an event loop. Ours.

        If the task is cancelled, it has not taken a message. Other tasks run first, even if a
        message is already there. Any number of tasks and event loops may wait at a time.
        """
        from canbroker.bus import awaiting  # noqa: PLC0415 - most programs have no event loop

        return await awaiting.receive(self, timeout)

    def __aiter__(self) -> AsyncIterator[Message]:
        """Messages for as long as the bus is open. Ours."""
        from canbroker.bus import awaiting  # noqa: PLC0415 - as above

        return awaiting.messages(self)

    def fileno(self) -> int:
        """A descriptor that is readable whenever ``recv(0)`` would return a message.

        It may also be readable when there is none. -1 where the system has no such descriptor.
        """
        try:
            return self._reception.fileno()
        finally:
            self._life.finish()

    # -------------------------------------------------------------------------------- sending

    def send(self, msg: Message, timeout: float | None = None) -> None:
        """Sends a message, which is copied at once. python-can's messages are accepted, too.

        A frame that the driver refuses later is reported by the next :meth:`send`,
        :meth:`flush` or :meth:`shutdown`. No frame is dropped silently.

        :param timeout: seconds. ``None`` blocks until the transmit queue has room; a number
            above 0 waits until the driver has taken the frame; 0 never blocks.
        :raises CanTimeoutError: that did not happen in time; the frame is not sent later.
        :raises CanOperationError: the message is not valid, the channel is down, the bus is
            closed, or an earlier frame, or one of a periodic task, was not sent.
        :raises ValueError: the timestamp is to be preserved, and is not valid.
        """
        if self._periodic.used:
            self._periodic.raise_troubles()
        self._sending.send(
            [self._to_frame(msg)], clock.deadline_after(timeout), taken=bool(timeout)
        )

    def send_batch(self, messages: Iterable[Message], timeout: float | None = None) -> None:
        """Sends messages in order, many in one request. Ours, for throughput.

        All messages are checked before the first is sent. ``timeout`` is as for :meth:`send`,
        for all of them together.

        :raises CanTimeoutError: as :meth:`send`; the text names the message.
        :raises CanOperationError: as :meth:`send`.
        """
        frames = [self._to_frame(message) for message in messages]
        self._periodic.raise_troubles()
        self._sending.send_many(frames, clock.deadline_after(timeout), taken=bool(timeout))

    async def asend(self, msg: Any, timeout: float | None = None) -> None:
        """As :meth:`send`, for a task of an event loop. Ours.

        If the task is cancelled, the frame is not sent. With a ``timeout`` above 0, a thread
        waits for the driver; if the task is cancelled during that time, the frame may still be
        sent until ``timeout`` is over.
        """
        from canbroker.bus import awaiting  # noqa: PLC0415 - as above

        await awaiting.send(self, msg, timeout)

    def flush(self, timeout: float | None = None) -> None:
        """Waits until the driver has taken every frame that was sent. Ours.

        :raises CanTimeoutError: it had not within ``timeout`` seconds.
        :raises CanOperationError: a frame was not sent.
        """
        self._sending.flush(clock.deadline_after(timeout))
        self._periodic.raise_troubles()

    def flush_tx_buffer(self) -> int:
        """Discards sent frames that the driver has not taken yet; returns how many."""
        return self._connection.discard()

    # ------------------------------------------------------------------------------- periodic

    def send_periodic(  # noqa: PLR0913 - python-can's arguments and ours
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
        """Sends the messages in turn, one every ``period`` seconds; returns the task.

        They are copied at once, and sent by the broker's scheduler, not by this process. A task
        ends with :meth:`shutdown`, and with the process, however that ends.

        :param duration: seconds after which it ends; ``None`` or 0: never.
        :param store_task: whether :meth:`stop_all_periodic_tasks` stops it, too. The bus keeps
            such a task even after it has ended.
        :param autostart: if false, the task's ``start()`` starts it.
        :param modifier_callback: is called with each message before it is sent, and may change
            it. Such tasks run in this process, all on one thread.
        :param phase: seconds, less than ``period``: when within a period the message is due.
            Tasks with one period and different phases keep their distance. Ours, as are all
            parameters below.
        :param counter: counts the frames, in their data.
        :param checksum: protects the data.
        :param on_error: is called with the exception if a frame is not sent, on that thread;
            the task continues if it returns true. Without it, a task with a callback ends with
            a log entry. Other tasks continue, and the next call of :meth:`send`, :meth:`flush`
            or :meth:`shutdown`, or of a method of the task, raises.
        :raises ValueError: names the argument that is not valid.
        :raises CanOperationError: a message is not valid, there are 10,000 tasks, the bus is
            closed, or the scheduler does not answer.
        """
        self._connection.check_open()
        return self._periodic.add(
            msgs,
            period,
            duration,
            autostart=autostart,
            store=store_task,
            modifier=modifier_callback,
            phase=phase,
            counter=counter,
            checksum=checksum,
            on_error=on_error,
        )

    def stop_all_periodic_tasks(self, remove_tasks: bool = True) -> None:
        """Stops the stored tasks of :meth:`send_periodic`.

        :param remove_tasks: whether to remove them from the store. Their ``start()`` stores them
            again.
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

        Waiting messages that do not pass the new filters are dropped.

        :param can_filters: ``None`` or empty: everything.
        :raises ValueError: names the filter that is not valid.
        :raises CanOperationError: the bus is closed, or its channel is gone.
        """
        self._connection.set_filters(can_filters)

    @property
    def state(self) -> BusState:
        """The last known state of the channel. Never waits; ``ERROR`` when the bus is closed."""
        return self._connection.state()

    @state.setter
    def state(self, state: BusState) -> None:
        """Makes the channel active (``ACTIVE``) or listen-only (``PASSIVE``), for everyone.

        :raises CanOperationError: the adapter cannot.
        """
        self._connection.set_state(state)

    @property
    def stats(self) -> BusStats:
        """The account of this bus up to now. Ours."""
        return self._connection.stats()

    # -------------------------------------------------------------------------------- closing

    def shutdown(self) -> None:
        """Closes the bus when the driver has taken what was sent. Idempotent, any thread.

        Periodic tasks end first. A :meth:`recv` that waits in another thread ends with
        :class:`CanOperationError`.

        :raises CanOperationError: a frame was not sent. The bus is closed all the same.
        :raises CanTimeoutError: frames were still on their way after 10 s. As above.
        """
        super().shutdown()


class ThreadSafeBus(Bus):
    """A :class:`Bus` for any number of threads.

    Sends take turns, receives take turns, and neither waits for the other. ``state``, ``stats``,
    :meth:`~Bus.set_filters` and :meth:`~Bus.shutdown` never wait behind a blocked ``recv``. A
    :class:`Bus` has the same locks; the name is python-can's, for scripts that use it.
    """


#: python-can's name for the base class of all buses. Here one class serves every interface.
BusABC = Bus
