"""The serving end of control calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from canbroker.system.throttle import Throttle
from canbroker.transport.address import IpcAddress
from canbroker.transport.routers import REST_NS, router
from canbroker.transport.sockets import REQUEST_HIGH_WATER, Context
from canbroker.transport.waiter import Waiter
from canbroker.wire import WireError, control

_logger = logging.getLogger(__name__)

#: Requests handled before the process does something else.
_AT_ONCE: Final = 64


class Caller(NamedTuple):
    """The connection and the request to answer, now or later."""

    identity: bytes
    request_id: int


Handler = Callable[[Caller, Any], msgspec.Struct | None]


class Replier:
    """Serves control methods. Made, used and closed by one thread at a time.

    A handler returns the result, or ``None`` to answer later with :meth:`reply`.
    """

    def __init__(
        self,
        context: Context,
        endpoint: IpcAddress,
        methods: Mapping[str, type[control.Params]],
        handlers: Mapping[str, Handler],
        refused: Throttle,
        unread: int = REQUEST_HIGH_WATER,
    ) -> None:
        """
        :param refused: the account of rejected messages.
        :param unread: as of :func:`router`.
        :raises CanInitializationError: cannot listen on ``endpoint``.
        """
        self._methods = methods
        self._handlers = handlers
        self._refused = refused
        self._router = router(context, endpoint, refused, unread)
        self.socket, self.listening = self._router.socket, self._router.listening
        self.watch, self.look = self._router.watch, self._router.look
        self.is_connected = self._router.is_connected
        self.close = self._router.close

    def serve(self, waiter: Waiter, at_most: int = _AT_ONCE) -> None:
        """Handles up to ``at_most`` of the requests that have arrived.

        ``waiter`` has reported the socket as readable; it rests the socket after a malformed
        request.
        """
        for _ in range(at_most):
            received = self._router.receive()
            if received is None:
                return
            if not self._request(*received):
                waiter.rest(self.socket, REST_NS)
                self._router.refuse()
                return

    def reply(self, caller: Caller, result: msgspec.Struct) -> None:
        """Answers a request. The answer is lost if its connection is gone."""
        self._router.reply(caller.identity, control.encode_reply(caller.request_id, result))

    def _request(self, identity: bytes, parts: Sequence[bytes]) -> bool:
        """Handles and answers a request; returns ``False`` if it is malformed."""
        caller = Caller(identity, 0)
        try:
            request = control.decode_request(b"".join(parts))
            caller = Caller(identity, request.id)
            params = control.decode_params(request, self._methods)
        except WireError as error:
            self._refused.note("control request refused", str(error))
            self.reply(caller, control.ErrorResult("malformed", str(error)))
            return False
        try:
            result = self._handlers[request.method](caller, params)
        except Exception as error:  # one request must not end the process that serves all others
            _logger.exception("method %r failed", request.method)
            result = control.ErrorResult("internal", f"{request.method}: {error!r}")
        if result is not None:
            self.reply(caller, result)
        return True
