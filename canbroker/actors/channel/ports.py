"""The sockets of the send thread: where requests come in and replies go out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Set
from typing import Final, TypeAlias

import msgspec

from canbroker.system import clock
from canbroker.system.throttle import Throttle
from canbroker.transport.address import IpcAddress
from canbroker.transport.listening import LOOK_NS
from canbroker.transport.replier import Caller, Handler, Replier
from canbroker.transport.routers import Intake
from canbroker.transport.sockets import Context, Socket, readable
from canbroker.transport.waiter import SharedWaiter
from canbroker.wire import WireError, control
from canbroker.wire.replay import REPLAY_METHODS
from canbroker.wire.tasks import REPEAT_METHODS
from canbroker.wire.transmit import CREDIT, Request, Status, decode_request, encode_reply

#: Requests taken from the socket before the backend and the replies get their turn.
_DRAIN: Final = 256

#: Malformed requests before the socket rests. Connections take turns, so the second one may be
#: from another client.
_GARBAGE: Final = 2

#: Control replies that are kept for a peer that does not read: those with frames have half a MiB.
_UNREAD: Final = 128

_METHODS: Final = {**control.CHANNEL_METHODS, **REPEAT_METHODS, **REPLAY_METHODS}

#: Gets the connection, the request, and when it was received (monotonic ns).
Accept: TypeAlias = Callable[[bytes, Request, int], None]

_logger = logging.getLogger(__name__)


class Ports:
    """The ROUTERs for transmit requests and for control requests. One thread at a time."""

    def __init__(
        self,
        context: Context,
        transmit: IpcAddress,
        controls: IpcAddress,
        handlers: Mapping[str, Handler],
    ) -> None:
        """``transmit``, ``controls``: their addresses; ``handlers``: of the control methods.

        :raises CanInitializationError: an address cannot be bound.
        """
        self.refused = Throttle(_logger)
        self.waiter = SharedWaiter()
        self._used: set[Socket] = set()  # sockets that may have messages, unseen
        self._intake = Intake(context, transmit, self.refused)
        try:
            self._control = Replier(context, controls, _METHODS, handlers, self.refused, _UNREAD)
        except BaseException:
            self._intake.close()
            raise
        self._listening = (self._intake.listening, self._control.listening)
        self._monitors: set[object] = {listening.monitor for listening in self._listening}
        self._attend_ns = 0
        #: What the waiter reports when there are requests to :meth:`receive`.
        self.transmit: object = self._intake.socket
        #: What the waiter reports when there are control requests to :meth:`serve`.
        self.control: object = self._control.socket
        for router in (self._intake, self._control):
            self.waiter.add(router.socket)
            self.waiter.add(router.listening.monitor)

    def serve(self) -> None:
        """Handles the control requests that have arrived."""
        self._used.add(self._control.socket)
        self._control.serve(self.waiter)

    def receive(self, accept: Accept, until_ns: int | None = None) -> bool:
        """Hands a limited number of transmit requests to ``accept``; whether those were all.

        ``until_ns``: when there is something more urgent to do (monotonic).
        """
        garbage = 0
        for number in range(_DRAIN):
            # The first one is there, as a rule. For the others asking costs less than an exception.
            if number == 1 and not readable(self._intake.socket):
                return True
            received = self._intake.receive()
            if received is None:
                return True
            identity, body = received
            if body is None:
                continue
            try:
                request = decode_request(body)
            except WireError as error:
                self._refuse(identity, error)
                garbage += 1
                if garbage == _GARBAGE:
                    break
                continue
            now_ns = clock.monotonic_ns()
            accept(identity, request, now_ns)
            if until_ns is not None and now_ns >= until_ns:
                break
        self._used.add(self._intake.socket)
        return False

    def receive_all(self, accept: Accept) -> None:
        """Hands all transmit requests that have arrived to ``accept``; at most CREDIT of them, as
        many as a client may have unanswered."""
        for _ in range(CREDIT // _DRAIN):
            if self.receive(accept):
                return

    def reply(self, identity: bytes, reply: bytes) -> None:
        """Answers a transmit request."""
        self._used.add(self._intake.socket)
        self._intake.reply(identity, reply)

    def answer(self, caller: Caller, result: msgspec.Struct) -> None:
        """Answers a control request."""
        self._used.add(self._control.socket)
        self._control.reply(caller, result)

    def look(self) -> bool:
        """Ends the use of the sockets; whether there are requests, which the waiter reports."""
        if not self._used:
            return False
        used, self._used = self._used, set()
        return self.waiter.look(*used)

    def attend(self, ready: Set[object], now_ns: int) -> None:
        """Looks after the listening sockets."""
        if now_ns < self._attend_ns and self._monitors.isdisjoint(ready):
            return
        self._attend_ns = now_ns + LOOK_NS
        for listening in self._listening:
            listening.attend(ready)
        self._used |= {self._intake.socket, self._control.socket}

    def close(self) -> None:
        self._intake.close()
        self._control.close()

    def _refuse(self, identity: bytes, error: WireError) -> None:
        self.refused.note("transmit request refused", str(error))
        reply = encode_reply(0, Status.MALFORMED, 0, 0, str(error))
        self._intake.refuse(identity, reply, self.waiter)
