"""A bus's connection to its channel. :func:`connect` returns it finished, or nothing stays open."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from canbroker.bus import discovery
from canbroker.bus.attachment import Attachment
from canbroker.bus.brokers import Broker, broker_of
from canbroker.bus.channel_watch import ChannelWatch
from canbroker.bus.life import Life
from canbroker.bus.receiving import Reception
from canbroker.bus.sending import Sending
from canbroker.bus.transmitter import Transmitter
from canbroker.bus.values import BusState, BusStats, Membership, Receiving
from canbroker.errors import (
    CanError,
    CanInitializationError,
    CanOperationError,
    CanPermissionError,
    CanTimeoutError,
)
from canbroker.model.filters import CanFilters, FilterSet, validate
from canbroker.system import clock, handles
from canbroker.transport.address import parse_address
from canbroker.transport.calls import Peer, ask
from canbroker.transport.links import open_transmit
from canbroker.wire import control
from canbroker.wire.stream import Holder, StateEvent, locked_by
from canbroker.wire.transmit import MAX_REPLY_BYTES

if TYPE_CHECKING:
    from canbroker.bus.periodic.scheduler_link import TaskLink
    from canbroker.wire.tasks import TaskTrouble

#: The channel answers at once; it may take this long on a busy machine.
ANSWER_S: Final = 5.0

_SHUTDOWN_S: Final = 10.0

#: A channel notices at once that a client has left.
_LEAVING_NS: Final = clock.SECOND // 2

#: For a bus, for ZeroMQ, and to start a broker; not all are kept.
_DESCRIPTORS: Final = 24

_T = TypeVar("_T")


class Wanted(msgspec.Struct, frozen=True):
    """What to open.

    ``label`` is the user's name for the channel. ``exclusive``: nobody else may transmit.
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

    ``attached`` is the broker's answer, ``opening`` the state of the channel when it was opened.
    ``client_id`` names us to the broker, the channel and the scheduler.
    """

    def __init__(
        self,
        life: Life,
        broker: Broker,
        membership: Membership,
        opening: StateEvent,
        watch: ChannelWatch,
        reception: Reception,
        sending: Sending,
    ) -> None:
        self.client_id = membership.client_id
        self.attached = membership.attached
        self.opening = opening
        self.watch = watch
        self.reception = reception
        self.sending = sending
        self.transmitter = sending.transmitter
        self._life = life
        self._broker = broker

    @property
    def closed(self) -> str | None:
        """Why it cannot be used any more; ``None`` while it can."""
        return self._life.closed

    def check_open(self) -> None:
        """:raises CanOperationError: it is closed."""
        self._life.check_open()

    def filters(self, can_filters: CanFilters) -> FilterSet:
        """The filters as the channel's interface understands them.

        :raises ValueError: names the entry and what is wrong with it.
        """
        return _filters(self.attached, can_filters)

    def set_filters(self, can_filters: CanFilters) -> None:
        """As ``Bus.set_filters``."""
        wanted = self.filters(can_filters)
        try:
            self.reception.subscribe(wanted, clock.deadline_after(ANSWER_S))
        finally:
            self._life.finish()

    def state(self) -> BusState:
        """As ``Bus.state``."""
        if self.closed or self.watch.problem() is not None:
            return BusState.ERROR
        self.reception.follow()
        return BusState(self.watch.state.state)

    def set_state(self, state: BusState) -> None:
        """As ``Bus.state``, to set it."""
        self.check_open()
        if state not in {BusState.ACTIVE, BusState.PASSIVE}:
            raise ValueError(f"a bus can be set to ACTIVE or PASSIVE, not to {state}")
        self.control("set_state", control.SetState(state=state.value), control.Nothing)
        self.watch.wait_for(state.value, clock.deadline_after(ANSWER_S))

    def stats(self) -> BusStats:
        """As ``Bus.stats``."""
        subscriber, transmitter = self.reception.subscriber, self.transmitter
        order = subscriber.order
        distance = self._broker.distance()
        return BusStats(
            received=order.received,
            sent=transmitter.sent,
            failed=transmitter.failed,
            lost=order.lost,
            repaired=order.repaired,
            skipped=self.reception.skipped,
            dropped_upstream=subscriber.dropped_upstream,
            restarts=order.restarts,
            interruptions=self.watch.interruptions,
            held_errors=self.watch.held_errors,
            receive_queue=len(self.reception),
            transmit_queue=transmitter.unanswered,
            round_trip=None if distance is None else distance.round_trip_ns / clock.SECOND,
            clock_offset=None if distance is None else distance.clock_offset_ns / clock.SECOND,
        )

    def ask_broker(self, method: str, params: control.Params, result: type[_T]) -> _T:
        """The answer of the broker.

        :raises CanOperationError: the bus is closed, the answer is an error, or there is none.
        """
        self.check_open()
        try:
            return self._broker.ask(method, params, result, ANSWER_S)
        except CanTimeoutError as error:
            raise CanOperationError(str(error)) from error

    def control(
        self, method: str, params: control.Params, result: type[_T], timeout: float = ANSWER_S
    ) -> _T:
        """The answer of the channel actor.

        :raises CanOperationError: the answer is an error, or there is none.
        """
        self.check_open()
        try:
            channel = Peer(parse_address(self.attached.control), f"channel {self.attached.name!r}")
            return ask(self._life.context, channel, method, params, result, timeout)
        except CanPermissionError:
            raise
        except (CanInitializationError, CanTimeoutError) as error:
            raise CanOperationError(str(error)) from error

    def task_link(self, on_trouble: Callable[[TaskTrouble], None]) -> TaskLink:
        """A link to the scheduler, which connects when it is first used."""
        from canbroker.bus.periodic.scheduler_link import (  # noqa: PLC0415 - with the first task
            TaskLink,
        )

        link = TaskLink(self._life, self._broker, self.client_id, on_trouble, self.watch.clock)
        return self._life.keep(link)

    def discard(self) -> int:
        """Takes back the frames that the driver has not taken yet; returns how many."""
        return self.sending.discard(self._discard)

    def _discard(self, token: int) -> int:
        params = control.Discard(client_id=self.client_id, token=token)
        return self.control("discard", params, control.Discarded).count


def connect(life: Life, wanted: Wanted) -> Connection:
    """Asks the broker for the channel, and returns when our filters are active there.

    Everything it opens belongs to ``life``, which the caller ends if this raises.

    :raises CanError: the broker, the adapter or a parameter is at fault.
    :raises ValueError: a filter is not valid.
    """
    try:
        return _connect(life, wanted)
    except CanPermissionError:
        raise
    except CanOperationError as error:
        raise CanInitializationError(_with_limit(error)) from error
    except CanInitializationError as error:
        error.args = (_with_limit(error),)
        raise


def _connect(life: Life, wanted: Wanted) -> Connection:
    handles.require(_DESCRIPTORS, "opening a bus")
    broker = broker_of(life, wanted.broker)
    membership = _attach(life, broker, wanted)
    attached = membership.attached
    filters = _filters(attached, wanted.can_filters)
    watch = life.keep(
        ChannelWatch(life.context, parse_address(attached.stream), attached.name, broker.clock())
    )
    reception = life.keep(Reception(membership, wanted.receiving, life, watch))
    life.at_end(functools.partial(_leave, membership.client_id, watch, reception))
    link = open_transmit(life.context, parse_address(attached.transmit), MAX_REPLY_BYTES)
    transmitter = Transmitter(link, membership.client_id, watch, life.closing)
    sending = life.keep(Sending(transmitter, reception, life))
    life.begin(functools.partial(sending.finish, _SHUTDOWN_S))
    try:
        ready = reception.subscribe(filters, clock.deadline_after(ANSWER_S))
        reception.remember(clock.deadline_after(ANSWER_S))
    except CanPermissionError:
        raise
    except CanError as error:
        raise CanInitializationError(str(error)) from error
    life.check_open()  # a loss may have closed it already
    watch.begin(reception.subscriber.order.epoch, ready.state)
    transmitter.follow()
    if membership.claim is not None:
        _make_sure_of_claim(membership, watch)
    return Connection(life, broker, membership, ready.state, watch, reception, sending)


def _attach(life: Life, broker: Broker, wanted: Wanted) -> Membership:
    """What the broker gives us. It is told when ``life`` ends."""
    client_id = broker.new_id()
    request = discovery.request(client_id, str(wanted.label), wanted.interface, wanted.parameters)
    attachment = Attachment(life, broker, client_id)
    attached = broker.attach(request, attachment.attaching)
    claim = f"process {request.pid}: {request.program}" if wanted.exclusive else None
    return Membership(life.context, attached, client_id, wanted.label, claim)


def _filters(attached: control.Attached, can_filters: CanFilters) -> FilterSet:
    return validate(can_filters, socketcan=attached.interface == "socketcan")


def _make_sure_of_claim(membership: Membership, watch: ChannelWatch) -> None:
    """:raises CanInitializationError: another client has the sole right to transmit."""
    is_us = functools.partial(_is, membership.client_id)
    if not watch.wait_for_holder(is_us, clock.monotonic_ns() + _LEAVING_NS):
        holder = watch.holder()
        why = "did not confirm that it is" if holder is None else locked_by(holder)
        raise CanInitializationError(f"channel {membership.label!r} cannot be exclusive: {why}")


def _leave(client_id: str, watch: ChannelWatch, reception: Reception) -> None:
    """Tells the channel that we leave, and waits until it has noticed.

    A closed connection alone would not tell, as a forked child may still have it open. When the
    channel has noticed, all others may transmit.
    """
    reception.leave()
    watch.wait_until_left(client_id, clock.monotonic_ns() + _LEAVING_NS)


def _is(client_id: str, holder: Holder | None) -> bool:
    return holder is not None and holder.client_id == client_id


def _with_limit(error: CanError) -> str:
    """The text of an error, which mentions it if this process is short of descriptors."""
    text, shortage = str(error), handles.shortage()
    return f"{text} ({shortage})" if shortage and shortage not in text else text
