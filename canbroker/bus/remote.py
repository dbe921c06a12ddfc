"""A broker behind a gateway, and the one connection to it that a client keeps."""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

import msgspec

from canbroker.bus.brokers import Distance
from canbroker.bus.channel_clock import ChannelClock
from canbroker.bus.turns import Turn
from canbroker.errors import CanError, CanInitializationError, CanOperationError
from canbroker.keys.first_use import keys_of
from canbroker.keys.identity import load_identity
from canbroker.keys.offer import ask_for_key
from canbroker.model.key import PublicKey
from canbroker.system import clock
from canbroker.system.locks import Rank
from canbroker.transport.address import Address, TcpAddress
from canbroker.transport.calls import (
    ControlError,
    NoAnswerError,
    ShuttingDownError,
    documented,
    result_of,
)
from canbroker.transport.place import RemotePlace
from canbroker.transport.remote_links import RemoteControlLink
from canbroker.transport.sockets import Context
from canbroker.wire import WireError, control
from canbroker.wire.ids import new_id, owner_of_key

#: A connection takes five round trips. What keeps it from being made is told within this time; a
#: machine that is far away or busy gets this long.
_CONNECT_S: Final = 10.0

#: The broker gives an adapter 20 s to open.
_OPEN_S: Final = 25.0

#: A request is lost when the connection is cut. It is repeated; each may arrive twice.
_AGAIN_NS: Final = 2 * clock.SECOND

#: A broker that answers with another key than we know may say its key within this time.
_OFFER_S: Final = 1.0

#: How often a waiting thread looks at what the connection does.
_LOOK_NS: Final = clock.SECOND // 5

_logger = logging.getLogger("canbroker.bus")

_T = TypeVar("_T")


class Met(NamedTuple):
    """The broker's answer to ``hello``, and our clocks at about the time when it was made."""

    hello: control.HelloResult
    round_trip_ns: int
    monotonic_ns: int
    wall_ns: int

    @property
    def wall_ahead_ns(self) -> int:
        """What the wall clock there shows more than ours, give or take half a round trip."""
        return self.hello.wall_ns - self.wall_ns


class RemoteBroker:
    """A broker that is reached by TCP. Any number of threads, which take turns.

    A program may not start it: it runs, or that is an error.
    """

    def __init__(self, gateway: TcpAddress, context: Context) -> None:
        """Opens the connection, without waiting for it.

        :raises CanInitializationError: we have no key, or do not know the broker's.
        :raises CanOperationError: no descriptors are left.
        """
        self._owner = ""
        keys: tuple[PublicKey | None, ...] = (None,)
        if gateway.encrypted:
            identity = load_identity()
            context.identity = identity.secret
            self._owner = owner_of_key(identity.public.raw)
            keys = keys_of(gateway)
        self.met: Met | None = None
        self._context = context
        self._is_reached = False
        self._is_closed = False
        self._turn = Turn("talking to the broker", Rank.BROKER)
        self._keys = deque(keys)
        self._try(gateway)
        self._hello_ns: dict[int, tuple[int, int]] = {}  # by request: when it was sent

    def __repr__(self) -> str:
        return f"<RemoteBroker {self.place.gateway.endpoint}>"

    def new_id(self) -> str:
        """An id for a client or a lease of ours: it begins with our key, or is refused."""
        return new_id(self._owner)

    def meet(self) -> Met:
        """Waits until the broker has answered; the round trip is measured then.

        :raises CanInitializationError: it cannot be reached; says why.
        """
        if self.met is None:
            self._run(_CONNECT_S, self._reach)
            self._run(_CONNECT_S, self._measure)
        if self.met is None:
            raise CanInitializationError(f"{self.place.describe_broker()} does not answer")
        return self.met

    def attach(
        self, request: control.Attach, attaching: Callable[[bool], None]
    ) -> control.Attached:
        """As :func:`canbroker.bus.discovery.attach`; addresses are those by which we reach them.

        :raises CanError: likewise.
        """
        self._run(_CONNECT_S, self._reach)
        attaching(True)
        deadline = clock.deadline_after(_OPEN_S)
        while True:
            try:
                attached = self._run(
                    _OPEN_S,
                    functools.partial(self._attach, request, deadline),
                )
            except ShuttingDownError:
                if clock.remaining_ns(deadline):
                    continue
                raise
            except NoAnswerError as error:
                raise CanInitializationError(
                    f"{self.place.describe_broker()} did not open channel {request.channel!r} "
                    "in time"
                ) from error
            except CanError:
                attaching(False)
                raise
            return msgspec.structs.replace(
                attached,
                stream=str(self.reached(attached.stream)),
                transmit=str(self.reached(attached.transmit)),
                control=str(self.reached(attached.control)),
            )

    def ask(self, method: str, params: control.Params, result: type[_T], timeout: float) -> _T:
        """The broker's answer.

        :raises NoAnswerError: there is none within ``timeout`` seconds.
        :raises CanInitializationError: it cannot be reached; says why.
        :raises CanError: the answer is an error.
        """
        deadline = clock.deadline_after(timeout)
        return self._run(timeout, functools.partial(self._ask, method, params, result, deadline))

    def tell(self, method: str, params: control.Params, timeout: float) -> None:
        """Sends a request without a result, and waits until the broker confirms it.

        :raises CanError: as :meth:`ask`.
        """
        self.ask(method, params, control.Nothing, timeout)

    def reached(self, told: str) -> Address:
        """How we reach a socket that the broker has named."""
        return self.place.reached(told)

    def clock(self) -> ChannelClock:
        """A new clock, for a channel of this broker."""
        met = self.meet()
        clock_there = ChannelClock(is_ours=False, round_trip_ns=met.round_trip_ns)
        if met.hello.monotonic_ns:
            clock_there.set(met.hello.monotonic_ns, met.monotonic_ns)
        return clock_there

    def distance(self) -> Distance | None:
        """How far away it is, as measured a moment ago. Never waits."""
        try:
            self._turn.run(0, self._look)
        except CanError as error:  # another thread has the turn, or the connection is away
            _logger.debug("%r: not measured: %s", self, error)
        met = self.met
        return None if met is None else Distance(met.round_trip_ns, met.wall_ahead_ns)

    def close(self) -> None:
        """Ends what other threads are waiting for. Idempotent."""
        self._is_closed = True
        if self._turn.mine():  # a signal handler has interrupted this thread, and ends the bus
            self._link.close()
        else:
            self._turn.run(None, self._link.close)

    def _check_open(self) -> None:
        """:raises CanOperationError: it is closed."""
        if self._is_closed:
            raise CanOperationError("the connection to the broker is closed")

    def _run(self, timeout: float, job: Callable[[], _T]) -> _T:
        return self._turn.run(clock.deadline_after(timeout), job)

    def _try(self, gateway: TcpAddress) -> None:
        """Connects with the next key."""
        self.place = RemotePlace(msgspec.structs.replace(gateway, key=self._keys.popleft()))
        self._link = RemoteControlLink(self._context, self.place.broker)

    def _reach(self) -> None:
        """Makes sure that the broker answers, with one of its keys.

        :raises CanInitializationError: it does not; says why.
        """
        while not self._is_reached:
            deadline = clock.deadline_after(_CONNECT_S)
            try:
                self._ask("hello", control.Params(), control.HelloResult, deadline)
            except NoAnswerError as error:
                raise CanInitializationError(str(error)) from error
            except CanInitializationError as error:
                if not self._link.has_other_key:
                    raise
                if not self._keys:
                    raise CanInitializationError(f"{error}{self._offered()}") from error
                self._link.close()
                self._try(self.place.gateway)
            else:
                self._is_reached = True

    def _offered(self) -> str:
        """What the broker says of its key now, if anything."""
        gateway = self.place.gateway
        key = ask_for_key(gateway.host, gateway.port, _OFFER_S)
        return "" if key is None else f"; it says that its key is {key} now"

    def _attach(self, request: control.Attach, deadline: int | None) -> control.Attached:
        if self.met is None:  # the connection is made by now: measured beside the request
            self._say_hello()
        attached = self._ask("attach", request, control.Attached, deadline)
        self._measure()
        return attached

    def _ask(
        self, method: str, params: control.Params, result: type[_T], deadline: int | None
    ) -> _T:
        self._check_open()
        number = self._link.request(method, params)
        again_ns = clock.monotonic_ns() + _AGAIN_NS
        while True:
            reply = self._awaited(number, min(filter(None, (again_ns, deadline))))
            if reply is not None:
                try:
                    return result_of(reply, result, method)
                except (ControlError, WireError) as error:
                    raise documented(error, self.place.describe_broker()) from error
            if not clock.remaining_ns(deadline):
                raise NoAnswerError(f"{self.place.describe_broker()} does not answer")
            self._link.repeat(number, method, params)
            again_ns = clock.monotonic_ns() + _AGAIN_NS

    def _awaited(self, number: int, until_ns: int) -> control.Reply | None:
        """The reply to a request, if it arrives in time.

        :raises CanInitializationError: there is no connection; says why.
        :raises CanOperationError: it was closed meanwhile.
        """
        while True:
            self._check_open()
            try:
                while (reply := self._link.reply()) is not None:
                    if reply.id == number:
                        return reply
                    self._note_hello(reply)
            except WireError as error:
                raise documented(error, self.place.describe_broker()) from error
            left = until_ns - clock.monotonic_ns()
            if left <= 0:
                return None
            problem = self._link.problem()
            if problem is not None:
                raise CanInitializationError(problem)
            self._link.wait(None, min(left, _LOOK_NS))

    def _look(self) -> None:
        """Reads answers that have arrived, and asks for the next measurement."""
        self._check_open()
        while (reply := self._link.reply()) is not None:
            self._note_hello(reply)
        now = clock.monotonic_ns()
        recent = max((sent_ns for sent_ns, _ in self._hello_ns.values()), default=0)
        if self.met is not None:
            recent = max(recent, self.met.monotonic_ns)
        if now - recent > _AGAIN_NS:
            self._hello_ns.clear()
            self._say_hello()

    def _say_hello(self) -> None:
        number = self._link.request("hello", control.Params())
        self._hello_ns[number] = clock.monotonic_ns(), clock.wall_ns()

    def _measure(self) -> None:
        """Waits until the round trip is measured."""
        if not self._hello_ns and self.met is None:
            self._say_hello()
        for number in self._hello_ns:
            reply = self._awaited(number, clock.monotonic_ns() + _AGAIN_NS)
            if reply is not None:
                self._note_hello(reply)
            return

    def _note_hello(self, reply: control.Reply) -> None:
        sent = self._hello_ns.pop(reply.id, None)
        if sent is None:
            return
        round_trip_ns = clock.monotonic_ns() - sent[0]
        try:
            hello = result_of(reply, control.HelloResult, "hello")
        except (ControlError, WireError):  # of another version; the next request will say so
            return
        half = round_trip_ns // 2
        self.met = Met(hello, round_trip_ns, sent[0] + half, sent[1] + half)
