"""Requests and replies: control calls, and the transmit path of clients and actors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import zmq

from canbroker.system import clock
from canbroker.system.throttle import Throttle
from canbroker.transport.address import Address
from canbroker.transport.links import Link, Router
from canbroker.transport.sockets import REQUEST_HIGH_WATER, Context
from canbroker.transport.waiter import Waiter
from canbroker.wire import DECODE_ERRORS, WireError, control

_logger = logging.getLogger(__name__)

#: Requests that are handled before the process does something else.
_AT_ONCE: Final = 64

_T = TypeVar("_T")


class ControlError(Exception):
    """A control request was answered with an error: ``code`` to act on, text to show."""

    def __init__(self, error: control.ErrorResult) -> None:
        super().__init__(error.message)
        self.code = error.code


def call(
    context: Context,
    endpoint: Address,
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


class Replier(Router):
    """A ROUTER that serves control methods. Made, used and closed by one thread.

    A handler returns the result, or ``None`` to answer later with :meth:`reply`.
    """

    def __init__(
        self,
        context: Context,
        endpoint: Address,
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


class ControlLink(Link):
    """Calls the methods of a process, one after the other. One thread at a time."""

    def __init__(self, context: Context, endpoint: Address) -> None:
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
