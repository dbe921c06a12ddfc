"""The sockets of the send thread: where requests come in and replies go out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Set
from typing import Final, TypeAlias

import msgspec

from canbroker.system import clock
from canbroker.system.throttle import Throttle
from canbroker.transport.address import IpcAddress
from canbroker.transport.replier import Caller, Handler, Replier
from canbroker.transport.routers import REST_NS, router
from canbroker.transport.sockets import Context
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
        self._intake = router(context, transmit, self.refused)
        try:
            self._control = Replier(context, controls, _METHODS, handlers, self.refused, _UNREAD)
        except BaseException:
            self._intake.close()
            raise
        #: What the waiter reports when there are requests to :meth:`receive`.
        self.transmit: object = self._intake.socket
        #: What the waiter reports when there are control requests to :meth:`serve`.
        self.control: object = self._control.socket
        self._intake.watch(self.waiter)
        self._control.watch(self.waiter)

    def serve(self) -> None:
        """Handles the control requests that have arrived."""
        self._control.serve(self.waiter)

    def receive(
        self, accept: Accept, until_ns: int | None = None, *, is_last: bool = False
    ) -> bool:
        """Hands a limited number of transmit requests to ``accept``; whether those were all.

        :param until_ns: when there is something more urgent to do (monotonic).
        :param is_last: also those that the waiter would report soon.
        """
        garbage = 0
        for number in range(_DRAIN):
            # One is there, as a rule, and no other: asking costs less than looking.
            if number == 1 and not is_last and not self._intake.has_more:
                return True
            received = self._intake.receive()
            if received is None:
                return True
            identity, parts = received
            try:
                request = decode_request(parts[0] if len(parts) == 1 else b"")
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
        return False

    def receive_all(self, accept: Accept) -> None:
        """Hands all transmit requests that have arrived to ``accept``; at most CREDIT of them, as
        many as a client may have unanswered."""
        for _ in range(CREDIT // _DRAIN):
            if self.receive(accept, is_last=True):
                return

    def reply(self, identity: bytes, reply: bytes) -> None:
        """Answers a transmit request."""
        self._intake.reply(identity, reply)

    def answer(self, caller: Caller, result: msgspec.Struct) -> None:
        """Answers a control request."""
        self._control.reply(caller, result)

    def look(self) -> bool:
        """Ends the use of the sockets; whether the waiter has to report requests that it cannot
        see, so that its thread has to be woken."""
        return self._intake.look(self.waiter) | self._control.look(self.waiter)

    def attend(self, ready: Set[object]) -> None:
        """Looks after the listening sockets."""
        self._intake.listening.attend(ready)
        self._control.listening.attend(ready)

    def close(self) -> None:
        self._intake.close()
        self._control.close()

    def _refuse(self, identity: bytes, error: WireError) -> None:
        self.refused.note("transmit request refused", str(error))
        self._intake.reply(identity, encode_reply(0, Status.MALFORMED, 0, 0, str(error)))
        self.waiter.rest(self.transmit, REST_NS)
        self._intake.refuse()
