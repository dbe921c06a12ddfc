"""The broker that a bus or a lease uses: one of this host, or one behind a gateway."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import msgspec

from canbroker.bus import discovery, starting
from canbroker.bus.channel_clock import ChannelClock
from canbroker.bus.life import Life
from canbroker.bus.line import leave_line, line_to
from canbroker.system import clock, handles
from canbroker.transport.address import Address, parse_address
from canbroker.transport.calls import NoAnswerError
from canbroker.transport.place import remote_address
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context, SharedContext
from canbroker.wire import control, ids

if TYPE_CHECKING:
    from canbroker.bus.remote import RemoteBroker

#: On a busy machine, a broker that was found running answers within this time.
_ANSWER_S: Final = 15.0

#: A broker that ends may have closed its socket, so this soon it is checked whether it still runs.
_LOOK_AGAIN_S: Final = 0.5

#: For ZeroMQ and one socket.
_DESCRIPTORS: Final = 8

_T = TypeVar("_T")


class Distance(msgspec.Struct, frozen=True):
    """How far away a broker is: the round trip, and what its wall clock shows more than ours."""

    round_trip_ns: int
    clock_offset_ns: int


class Broker(Protocol):
    """What a bus needs of its broker."""

    def attach(
        self, request: control.Attach, attaching: Callable[[bool], None]
    ) -> control.Attached:
        """As :func:`canbroker.bus.discovery.attach`; addresses are those by which we reach them.

        :raises CanError: likewise.
        """

    def ask(self, method: str, params: control.Params, result: type[_T], timeout: float) -> _T:
        """The broker's answer.

        :raises NoAnswerError: there is none within ``timeout`` seconds.
        :raises CanError: the answer is an error.
        """

    def tell(self, method: str, params: control.Params, timeout: float) -> None:
        """Sends a request without a result, and waits until the broker confirms it.

        :raises CanError: as :meth:`ask`.
        """

    def reached(self, told: str) -> Address:
        """How we reach a socket that the broker has named."""

    def clock(self) -> ChannelClock:
        """A new clock, for a channel of this broker."""

    def new_id(self) -> str:
        """A fresh id for a client or a lease of ours."""

    def distance(self) -> Distance | None:
        """How far away it is; ``None``: on this host. Never waits."""


class LocalBroker:
    """The broker of a runtime directory of this host, for one bus."""

    def __init__(self, runtime: Runtime, life: Life) -> None:
        """Opens what is needed to tell the broker of the end, before the broker is told of us.

        :raises CanError: there are no descriptors left.
        """
        self._runtime = runtime
        self._context = life.context
        # Before the line is taken: a signal handler may raise when that returns.
        life.at_end(functools.partial(leave_line, runtime.address, life.context))
        self._line = line_to(runtime.address, life.context)

    def attach(
        self, request: control.Attach, attaching: Callable[[bool], None]
    ) -> control.Attached:
        attached = discovery.attach(
            self._context,
            self._runtime,
            request,
            autostart=starting.autostart_wanted(),
            attaching=attaching,
        )
        self._line.reach()
        return attached

    def ask(self, method: str, params: control.Params, result: type[_T], timeout: float) -> _T:
        return discovery.ask(self._context, self._runtime, method, params, result, timeout)

    def tell(self, method: str, params: control.Params, timeout: float) -> None:
        self._line.tell(method, params, timeout)

    def reached(self, told: str) -> Address:
        return parse_address(told)

    def clock(self) -> ChannelClock:
        return ChannelClock(is_ours=True)

    def new_id(self) -> str:
        return ids.new_id()

    def distance(self) -> Distance | None:
        return None


def broker_of(life: Life, address: str | None) -> Broker:
    """The broker at ``address``, for a bus with this ``life``, which ends the connection.

    :raises CanError: the address is not one, a key is missing, or no descriptors are left.
    """
    remote = remote_broker(address, life.context)
    if remote is None:
        return LocalBroker(Runtime.at(address), life)
    life.at_end(remote.close)
    return remote


def remote_broker(address: str | None, context: Context) -> RemoteBroker | None:
    """The broker behind the gateway at ``address``; ``None`` if it is one of this host.

    :raises CanError: as :func:`broker_of`.
    """
    gateway = remote_address(address)
    if gateway is None:
        return None
    from canbroker.bus.remote import RemoteBroker  # noqa: PLC0415 - not loaded for local ones

    return RemoteBroker(gateway, context)


def channel_names(address: str | None) -> list[str]:
    """Names of the channels of the broker at ``address``; none if one of this host does not run.

    :param address: ``None`` is this user's own. It is not started.
    :raises CanError: it runs, and does not answer or answers with an error.
    """
    handles.require(_DESCRIPTORS, "asking a broker")  # and the file of a module
    from canbroker.wire.status import BrokerStatus  # noqa: PLC0415 - few programs ask for it

    context = SharedContext()
    nothing = control.Params()
    try:
        remote = remote_broker(address, context)
        if remote is not None:
            status = remote.ask("status", nothing, BrokerStatus, _ANSWER_S)
            return [channel.name for channel in status.channels]
    finally:
        context.close()
    runtime = Runtime.at(address)
    deadline = clock.deadline_after(_ANSWER_S)
    while starting.is_running(runtime):
        context = SharedContext()
        try:
            status = discovery.ask(context, runtime, "status", nothing, BrokerStatus, _LOOK_AGAIN_S)
        except NoAnswerError:
            if not clock.remaining_ns(deadline):
                raise
        else:
            return [channel.name for channel in status.channels]
        finally:
            context.close()
    return []
