"""A bus's connection to its channel: opened as a whole."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from canbroker.bus import discovery
from canbroker.bus.channel_watch import ChannelWatch
from canbroker.bus.life import Life
from canbroker.bus.periodic.scheduler_link import TaskLink
from canbroker.bus.receiving import Reception
from canbroker.bus.sending import Sending
from canbroker.bus.transmitter import Transmitter
from canbroker.bus.values import Receiving
from canbroker.errors import (
    CanError,
    CanInitializationError,
    CanOperationError,
    CanTimeoutError,
)
from canbroker.model.filters import CanFilters, FilterSet, validate
from canbroker.system import clock, handles
from canbroker.transport.address import parse_address
from canbroker.transport.calls import Peer, ask
from canbroker.transport.runtime import Runtime
from canbroker.wire import control
from canbroker.wire.stream import Holder, StateEvent, locked_by
from canbroker.wire.tasks import TaskTrouble

#: The channel answers at once; this long it may take on a busy machine.
ANSWER_S: Final = 5.0

_SHUTDOWN_S: Final = 10.0

#: A channel sees at once that a client has left.
_LEAVING_NS: Final = clock.SECOND // 2

#: Of a bus, of ZeroMQ, and of a broker that has to be started; not all are kept.
_DESCRIPTORS: Final = 24

_T = TypeVar("_T")


class Wanted(NamedTuple):
    """What is to be opened.

    ``label`` is what the user calls the channel. ``exclusive``: nobody else may transmit.
    """

    label: Any
    interface: str | None
    parameters: Mapping[str, Any]
    can_filters: CanFilters
    receiving: Receiving
    broker: str | None
    exclusive: bool = False


class Connection:
    """An open channel. Any thread. Made by :func:`connect`; its :class:`Life` ends it.

    ``opening`` is the state of the channel when it was opened. ``tasks``: to the scheduler, if it
    was needed. ``client_id``: our name for the broker, the channel and the scheduler.
    """

    def __init__(
        self,
        life: Life,
        runtime: Runtime,
        client_id: str,
        attached: control.Attached,
        opening: StateEvent,
        watch: ChannelWatch,
        reception: Reception,
        transmitter: Transmitter,
    ) -> None:
        self.client_id = client_id
        self.attached = attached
        self.opening = opening
        self.watch = watch
        self.reception = reception
        self.transmitter = transmitter
        self.sending = Sending(
            transmitter, reception, check_open=life.check_open, finish=life.finish
        )
        self.tasks: TaskLink | None = None
        self._life = life
        self._runtime = runtime

    @property
    def closed(self) -> str | None:
        """Why it cannot be used any more; ``None`` while it can."""
        return self._life.closed

    def filters(self, can_filters: CanFilters) -> FilterSet:
        """What they mean to the channel's interface.

        :raises ValueError: names the entry and what is wrong with it.
        """
        return _filters(self.attached, can_filters)

    def check_open(self) -> None:
        """:raises CanOperationError: it is closed."""
        self._life.check_open()

    def control(self, method: str, params: control.Params, result: type[_T]) -> _T:
        """The answer of the channel actor.

        :raises CanOperationError: it is an error, or there is none.
        """
        self.check_open()
        try:
            channel = Peer(parse_address(self.attached.control), f"channel {self.attached.name!r}")
            return ask(self._life.context, channel, method, params, result, ANSWER_S)
        except (CanInitializationError, CanTimeoutError) as error:
            raise CanOperationError(str(error)) from error

    def schedule(self, on_trouble: Callable[[TaskTrouble], None]) -> TaskLink:
        """The connection to the scheduler, which is made by its first use.

        :raises CanOperationError: the bus is closed.
        """
        if self.tasks is None:
            self.check_open()
            link = TaskLink(self._life, self._runtime, self.client_id, on_trouble, self.watch.clock)
            self.tasks = self._life.keep(link)
        return self.tasks

    def discard(self) -> int:
        """Takes back what the driver has not taken yet; returns how many frames."""
        return self.sending.discard(self._discard)

    def flush(self) -> None:
        """Waits until the driver has taken what was sent, while the bus is being closed."""
        deadline = clock.deadline_after(_SHUTDOWN_S)
        job = functools.partial(self.transmitter.flush, deadline, closing=True)
        self.sending.turn.take(None, job)

    def _discard(self, token: int) -> int:
        params = control.Discard(client_id=self.client_id, token=token)
        return self.control("discard", params, control.Discarded).count


def connect(life: Life, client_id: str, wanted: Wanted) -> Connection:
    """Asks the broker for the channel, and waits until our filters are active there.

    What it has opened belongs to ``life``, which the caller ends if this raises.

    :raises CanError: the broker, the adapter or a parameter is at fault.
    :raises ValueError: so is a filter.
    """
    try:
        return _connect(life, client_id, wanted)
    except CanOperationError as error:
        raise CanInitializationError(_with_limit(error)) from error
    except CanInitializationError as error:
        error.args = (_with_limit(error),)
        raise


def _connect(life: Life, client_id: str, wanted: Wanted) -> Connection:
    runtime = Runtime.at(wanted.broker)
    handles.require(_DESCRIPTORS, "opening a bus")
    request = discovery.request(client_id, str(wanted.label), wanted.interface, wanted.parameters)
    life.connect_to(runtime.address)
    attached = discovery.attach(
        life.context,
        runtime,
        request,
        autostart=discovery.autostart_wanted(),
        attaching=life.attaching,
    )
    filters = _filters(attached, wanted.can_filters)
    claim = f"process {request.pid}: {request.program}" if wanted.exclusive else None
    watch = life.keep(ChannelWatch(life.context, parse_address(attached.stream), attached.name))
    reception = life.keep(
        Reception(
            life.context,
            parse_address(attached.stream),
            parse_address(attached.control),
            attached.name,
            client_id,
            label=wanted.label,
            receiving=wanted.receiving,
            check_open=life.check_open,
            disconnect=life.close,
            watch=watch,
            claim=claim,
        )
    )
    transmit = parse_address(attached.transmit)
    transmitter = Transmitter(life.context, transmit, client_id, watch, life.closing)
    life.on_leaving(functools.partial(_leave, client_id, watch, reception))
    life.begin()
    try:
        ready = reception.subscribe(filters, clock.deadline_after(ANSWER_S))
        reception.remember(clock.deadline_after(ANSWER_S))
    except CanError as error:
        raise CanInitializationError(str(error)) from error
    life.check_open()  # a loss may have ended it already
    watch.begin(reception.subscriber.order.epoch, ready.state)
    transmitter.follow()
    if claim is not None:
        _make_sure_of_claim(client_id, wanted.label, watch)
    connection = Connection(
        life, runtime, client_id, attached, ready.state, watch, reception, transmitter
    )
    life.keep(connection.sending)
    life.on_finishing(connection.flush)
    return connection


def _filters(attached: control.Attached, can_filters: CanFilters) -> FilterSet:
    return validate(can_filters, socketcan=attached.interface == "socketcan")


def _make_sure_of_claim(client_id: str, label: Any, watch: ChannelWatch) -> None:
    """:raises CanInitializationError: another client has the sole right to transmit."""
    is_us = functools.partial(_is, client_id)
    if not watch.wait_for_holder(is_us, clock.monotonic_ns() + _LEAVING_NS):
        holder = watch.holder()
        why = "did not confirm that it is" if holder is None else locked_by(holder)
        raise CanInitializationError(f"channel {label!r} cannot be exclusive: {why}")


def _leave(client_id: str, watch: ChannelWatch, reception: Reception) -> None:
    """Says that we leave, and waits for the channel to have heard it.

    The connection alone would not tell, if a forked child has it, too. When the channel has seen
    that we have left, all others may transmit.
    """
    reception.leave()
    watch.wait_until_left(client_id, clock.monotonic_ns() + _LEAVING_NS)


def _is(client_id: str, holder: Holder | None) -> bool:
    return holder is not None and holder.client_id == client_id


def _with_limit(error: CanError) -> str:
    """The text of an error; if this process is short of descriptors, it says so."""
    text, shortage = str(error), handles.shortage()
    return f"{text} ({shortage})" if shortage and shortage not in text else text
