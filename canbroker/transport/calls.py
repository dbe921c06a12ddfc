"""Requests and replies: control calls, and the transmit path of clients and actors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import zmq

from canbroker.system import clock
from canbroker.system.throttle import Throttle
from canbroker.transport.guard import Guard
from canbroker.transport.listening import Listening
from canbroker.transport.sockets import (
    REQUEST_HIGH_WATER,
    Context,
    Descriptor,
    Messages,
    Socket,
    Waiter,
    readable,
)
from canbroker.wire import DECODE_ERRORS, WireError, control

_logger = logging.getLogger(__name__)

#: Requests that are handled before the process does something else.
_AT_ONCE: Final = 64

#: Where garbage is sent to is not looked at for so long: each costs an exception, its text and a
#: reply, and nobody who sends requests shall wait for that.
_REST_NS: Final = clock.MILLISECOND // 5

#: Garbage of a connection, within a second, that is answered.
MAX_REFUSED: Final = 64


#: Events of a channel's state that are kept for who does not read them: a minute of them.
_UNREAD_STATES: Final = 128

_T = TypeVar("_T")


class ControlError(Exception):
    """A control request was answered with an error: ``code`` to act on, text to show."""

    def __init__(self, error: control.ErrorResult) -> None:
        super().__init__(error.message)
        self.code = error.code


def call(
    context: Context,
    endpoint: str,
    method: str,
    params: control.Params,
    result: type[_T],
    deadline: int | None,
) -> _T | None:
    """As :meth:`ControlLink.call`, over a connection for this call alone.

    :raises CanOperationError, CanInitializationError: it cannot be made.
    """
    link = ControlLink(context, endpoint)
    try:
        return link.call(method, params, result, deadline)
    finally:
        link.close()


class Caller(NamedTuple):
    """Who asked, to answer now or later."""

    identity: bytes
    request_id: int


Handler = Callable[[Caller, Any], msgspec.Struct | None]


class _Router:
    """A ROUTER that hangs up on who floods it with garbage."""

    def __init__(
        self, context: Context, endpoint: str, refused: Throttle, unread: int = REQUEST_HIGH_WATER
    ) -> None:
        self.socket: Socket = context.replier(endpoint, unread)
        self.listening = Listening(self.socket, endpoint)
        self._guard = Guard(context.gate, MAX_REFUSED, refused)

    def close(self) -> None:
        self.listening.close()
        self.socket.close()

    def _refuse(self, message: zmq.Frame, size: int, waiter: Waiter) -> None:
        """Counts garbage, and has the socket rest for it."""
        waiter.rest(self.socket, _REST_NS)
        self._guard.refuse(message, size)


class Replier(_Router):
    """A ROUTER that serves control methods. Made, used and closed by one thread.

    A handler returns the result, or ``None`` to answer later with :meth:`reply`.
    """

    def __init__(
        self,
        context: Context,
        endpoint: str,
        methods: Mapping[str, type[control.Params]],
        handlers: Mapping[str, Handler],
        refused: Throttle,
        unread: int = REQUEST_HIGH_WATER,
    ) -> None:
        """``unread``: as of :meth:`Context.replier`."""
        self._methods = methods
        self._handlers = handlers
        self._refused = refused
        super().__init__(context, endpoint, refused, unread)

    def serve(self, waiter: Waiter, at_most: int = _AT_ONCE) -> None:
        """Handles the requests that have arrived; ``at_most`` so many, the rest the next time.

        ``waiter``, which has told of them, lets the socket rest if there was garbage.
        """
        for _ in range(at_most):
            try:
                identity, *parts = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            last = parts[-1] if parts else identity
            if self._guard.has_ended(last):
                continue
            if not self._request(identity.bytes, parts):
                self._refuse(last, sum(map(len, parts)), waiter)
                return

    def reply(self, caller: Caller, result: msgspec.Struct) -> None:
        self.socket.send_multipart(
            [caller.identity, control.encode_reply(caller.request_id, result)]
        )

    def is_connected(self, identity: bytes) -> bool:
        """Whether a peer with that identity is there. It gets a reply to nothing, which peers
        pass over: libzmq only tells when something is sent."""
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            self.socket.send_multipart([identity, control.NOTHING], zmq.NOBLOCK)
        except zmq.Again:  # it does not read what it has
            return True
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        finally:
            self.socket.setsockopt(zmq.ROUTER_MANDATORY, 0)
        return True

    def _request(self, identity: bytes, parts: Sequence[zmq.Frame]) -> bool:
        """Handles a request; whether it is one."""
        caller = Caller(identity, 0)
        try:
            request = control.decode_request(b"".join(part.bytes for part in parts))
            caller = Caller(identity, request.id)
            params = control.decode_params(request, self._methods)
        except WireError as error:
            self._refused.note("control request refused", str(error))
            self.reply(caller, control.ErrorResult("malformed", str(error)))
            return False
        try:
            result = self._handlers[request.method](caller, params)
        except Exception as error:  # one request must not end what serves all the others
            _logger.exception("method %r failed", request.method)
            result = control.ErrorResult("internal", f"{request.method}: {error!r}")
        if result is not None:
            self.reply(caller, result)
        return True


class Link:
    """The client's end of the transmit path: a DEALER that sends requests and collects replies.

    One thread at a time. Nothing here blocks but :meth:`wait`.
    """

    def __init__(self, context: Context, endpoint: str, name: str = "") -> None:
        """``name``: as of :meth:`Context.requester`."""
        self.socket: Socket = context.requester(endpoint, name)
        # What was not delivered when the client ends shall not be delivered afterwards.
        self.socket.setsockopt(zmq.LINGER, 0)
        self._waits: tuple[Descriptor | None, Waiter] | None = None  # for this one

    def send(self, request: bytes) -> bool:
        """Queues a request; ``False`` if the queue is full."""
        try:
            self.socket.send(request, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> bytes | None:
        """A reply, if one has arrived."""
        return self.socket.recv(zmq.NOBLOCK) if readable(self.socket) else None

    def wait(self, wake: Descriptor | None, timeout_ns: int | None) -> None:
        """Waits until a reply may have arrived, ``wake`` is set, or ``timeout_ns`` is over."""
        if self._waits is None or self._waits[0] is not wake:
            waiter = Waiter()
            waiter.add(self.socket)
            if wake is not None:
                waiter.add(wake)
            self._waits = wake, waiter
        self._waits[1].wait(timeout_ns)

    def close(self) -> None:
        self.socket.close()


class ControlLink(Link):
    """Calls the methods of a process, one after the other. One thread at a time."""

    def __init__(self, context: Context, endpoint: str) -> None:
        super().__init__(context, endpoint)
        self._id = 0

    def call(
        self, method: str, params: control.Params, result: type[_T], deadline: int | None
    ) -> _T | None:
        """The answer, ``None`` if there is none by ``deadline``.

        :raises ControlError: the answer is an error.
        :raises WireError: the answer is not of this protocol.
        """
        self._id += 1
        self.send(control.encode_request(self._id, method, params))
        while True:
            while (body := self.receive()) is not None:
                reply = control.decode_reply(body)
                if reply.id == self._id:
                    return _result(method, reply, result)
            if clock.remaining_ns(deadline) == 0:
                return None
            self.wait(None, clock.remaining_ns(deadline))


def _result(method: str, reply: control.Reply, result: type[_T]) -> _T:
    try:
        if not reply.ok:
            raise ControlError(msgspec.msgpack.decode(reply.result, type=control.ErrorResult))
        return msgspec.msgpack.decode(reply.result, type=result)
    except DECODE_ERRORS as error:
        raise WireError(f"reply to {method!r}: {error}") from error


class KeepingLink(Link):
    """A link that loses no reply when a signal handler raises: each is kept until it is `done`.

    Python runs handlers in the main thread between any two steps, also at the end of ``recv``,
    when libzmq has given the message away and nobody has it yet. So libzmq writes it into memory
    of ours, where it is found again.
    """

    def __init__(self, context: Context, endpoint: str, size: int) -> None:
        """``size``: of the largest reply; what is longer arrives truncated."""
        super().__init__(context, endpoint)
        self._kept = bytearray(size)  # begins with 0 if there is none, as no array of MessagePack
        self._length: int | None = None

    def receive(self) -> bytes | None:
        """The reply that is kept, or the next one, if it has arrived."""
        if not self._kept[0]:
            if not readable(self.socket):
                return None
            self._length = None
            self._length = self.socket.recv_into(self._kept, flags=zmq.NOBLOCK)
        return bytes(self._kept[: self._measured() if self._length is None else self._length])

    def done(self) -> None:
        """The reply has been dealt with."""
        self._kept[0] = 0

    def _measured(self) -> int:
        """The length of what is kept; what ends it is no longer there."""
        import msgpack  # noqa: PLC0415 - few programs get here, and all would wait for it at start

        unpacker = msgpack.Unpacker()
        unpacker.feed(self._kept)
        try:
            unpacker.skip()
        except (ValueError, msgpack.OutOfData):  # no reply of this protocol
            return len(self._kept)
        return int(unpacker.tell())


class Intake(_Router):
    """The actor's end of the transmit path: a ROUTER. Made, used and closed by one thread."""

    def __init__(self, context: Context, endpoint: str, refused: Throttle) -> None:
        """``refused``: the account of what is refused."""
        super().__init__(context, endpoint, refused)
        self._last: zmq.Frame | None = None  # the last part
        self._others = 0  # bytes of the parts before it

    def receive(self) -> tuple[bytes, bytes | None] | None:
        """The next request and the connection it came from, if one has arrived.

        Without the request, if that connection was ended for what it sent.
        """
        try:
            identity = self.socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None
        # Parts of a message arrive together. A part that is not copied knows whether it is the
        # last one; asking the socket takes as long as all the rest.
        part = self.socket.recv(zmq.NOBLOCK, copy=False)
        body = b"" if part.more else part.bytes  # no request has several
        self._others = 0
        while part.more:
            self._others += len(part)
            part = self.socket.recv(zmq.NOBLOCK, copy=False)
        self._last = part
        return identity, None if self._guard.has_ended(part) else body

    def refuse(self, identity: bytes, reply: bytes, waiter: Waiter) -> None:
        """Answers what was received last, which is no request; ``waiter`` has told of it."""
        self.reply(identity, reply)
        if self._last is not None:
            self._refuse(self._last, self._others + len(self._last), waiter)

    def reply(self, identity: bytes, reply: bytes) -> None:
        """Answers; a connection that is gone is nobody's loss."""
        self.socket.send_multipart([identity, reply])


class StateFeed:
    """Follows the state stream of a channel. One thread at a time; never blocks.

    Who reads it seldom gets events of long ago first, and misses later ones: :meth:`refresh`.
    """

    def __init__(self, context: Context, endpoint: str, topic: bytes) -> None:
        self.socket: Socket = context.subscriber(endpoint, _UNREAD_STATES)
        self.socket.subscribe(topic)
        self._topic = topic
        self._messages = Messages(self.socket)

    def receive(self) -> bytes | None:
        """The next event's body, if one has arrived."""
        while (message := self._messages.next()) is not None:
            if message[0] == self._topic:
                return message[1]
        return None

    def turn_to(self, topic: bytes) -> None:
        """Follows another topic of the channel from now on; passes over what is left of this."""
        self.socket.unsubscribe(self._topic)
        self.socket.subscribe(topic)
        self._topic = topic

    def refresh(self) -> None:
        """Asks for the state as it is now: a channel tells whoever joins."""
        self.socket.unsubscribe(self._topic)
        self.socket.subscribe(self._topic)

    def close(self) -> None:
        self.socket.close()
