"""The calling end of control calls: the one place that decodes answers and maps errors.

:class:`ControlLink` speaks the protocol: it returns results and raises :class:`ControlError` or
:class:`~canbroker.wire.WireError`. :class:`ControlClient` and :func:`ask` raise only what users
know, which :mod:`canbroker.errors` documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from canbroker.errors import (
    CanError,
    CanInitializationError,
    CanInterfaceNotImplementedError,
    CanOperationError,
    CanTimeoutError,
)
from canbroker.system import clock
from canbroker.transport.address import Address
from canbroker.transport.links import Link
from canbroker.transport.sockets import Context, follow
from canbroker.transport.waiter import Descriptor
from canbroker.wire import WireError, control

_T = TypeVar("_T")


#: How often to try to send a request that cannot be queued, as nothing listens at a file's path.
_SEND_AGAIN_NS: Final = 20 * clock.MILLISECOND


class ControlError(CanOperationError):
    """The peer answered with an error: ``code`` is to act on, the text to show."""

    def __init__(self, error: control.ErrorResult) -> None:
        super().__init__(error.message)
        self.code = error.code


class ShuttingDownError(CanOperationError):
    """The peer is about to end."""


class NoAnswerError(CanTimeoutError):
    """The peer did not answer in time."""


#: What the code of an error asks of the user. With any other code, this operation has failed:
#: the error stays a :class:`ControlError`.
_DOCUMENTED: Final[Mapping[str, type[CanError]]] = {
    "interface": CanInterfaceNotImplementedError,
    "initialization": CanInitializationError,
    "shutting-down": ShuttingDownError,
    "timeout": CanTimeoutError,
}


def documented(error: ControlError | WireError, name: str) -> CanError:
    """The error that users know for what a peer has answered. ``name``: of the peer, for people."""
    if isinstance(error, WireError):
        return CanOperationError(f"{name}: {error}")
    known = _DOCUMENTED.get(error.code)
    return error if known is None else known(str(error))


class Peer(msgspec.Struct, frozen=True):
    """A process that serves control methods: where it listens, and its name for messages."""

    endpoint: Address
    name: str


def result_of(reply: control.Reply, result: type[_T], method: str) -> _T:
    """The result that a reply to ``method`` carries.

    :raises CanPermissionError: a gateway has refused it.
    :raises ControlError: it carries another error.
    :raises WireError: it carries something else.
    """
    answer = control.decode_result(reply, result, method)
    if isinstance(answer, control.ErrorResult):
        if answer.code == control.FORBIDDEN:
            raise control.forbidden(answer)
        raise ControlError(answer)
    return answer


class ControlLink(Link):
    """Calls the methods of a process. One thread at a time."""

    def __init__(self, context: Context, endpoint: Address, name: str = "") -> None:
        """
        :param name: as of :meth:`Context.requester`.
        :raises CanInitializationError, CanOperationError: cannot open a socket.
        """
        super().__init__(context, endpoint, name)
        self._id = 0

    def request(self, method: str, params: control.Params) -> int:
        """Sends a request without waiting; returns its number, or 0 if the queue is full."""
        if not self.repeat(self._id + 1, method, params):
            return 0
        self._id += 1
        return self._id

    def repeat(self, number: int, method: str, params: control.Params) -> bool:
        """Sends a request again, which may have been lost; ``False`` if the queue is full."""
        return self.send(control.encode_request(number, method, params))

    def reply(self) -> control.Reply | None:
        """The next reply that has arrived, to whichever request.

        :raises WireError: it does not follow the protocol.
        """
        body = self.receive()
        return None if body is None else control.decode_reply(body)

    def call(
        self,
        method: str,
        params: control.Params,
        result: type[_T],
        deadline: int | None,
        wake: Descriptor | None = None,
    ) -> _T | None:
        """The answer, ``None`` if there is none by ``deadline`` (monotonic ns).

        ``wake`` interrupts the wait to look at the clock again.

        :raises ControlError: the answer is an error.
        :raises WireError: the answer does not follow the protocol.
        """
        number = self.request(method, params)
        while True:
            while number and (reply := self.reply()) is not None:
                if reply.id == number:
                    return result_of(reply, result, method)
            if clock.remaining_ns(deadline) == 0:
                return None
            if number:
                self.wait(wake, clock.remaining_ns(deadline))
            else:  # nobody listens there yet
                self.wait(wake, min(_SEND_AGAIN_NS, clock.remaining_ns(deadline) or _SEND_AGAIN_NS))
                number = self.request(method, params)


class ControlClient:
    """Asks one peer, and raises documented errors. One thread at a time."""

    def __init__(self, context: Context, peer: Peer) -> None:
        """:raises CanInitializationError, CanOperationError: cannot open a socket."""
        self._peer = peer
        self._link = ControlLink(context, peer.endpoint)

    def ask(
        self, method: str, params: control.Params, result: type[_T], deadline: int | None
    ) -> _T:
        """The peer's answer.

        :raises NoAnswerError: there is none by ``deadline`` (monotonic ns). A peer that does not
            have the request yet does not get it.
        :raises CanError: the answer is an error, of the class that its code stands for;
            :class:`CanOperationError` if it does not follow the protocol.
        """
        try:
            answer = self._link.call(method, params, result, deadline)
        except (ControlError, WireError) as error:
            raise documented(error, self._peer.name) from error
        if answer is None:
            self._link.forget()
            raise NoAnswerError(f"{self._peer.name} does not answer")
        return answer

    def call(
        self, method: str, params: control.Params, result: type[_T], deadline: int | None
    ) -> _T | None:
        """As :meth:`ControlLink.call`."""
        return self._link.call(method, params, result, deadline)

    def reach(self) -> None:
        """Connects where the peer listens now, where sockets are portable."""
        follow(self._link.socket)

    def close(self) -> None:
        self._link.close()


def ask(
    context: Context,
    peer: Peer,
    method: str,
    params: control.Params,
    result: type[_T],
    timeout: float,
) -> _T:
    """As :meth:`ControlClient.ask`, over a connection for this call alone.

    :param timeout: seconds.
    :raises CanError: as there.
    """
    deadline = clock.deadline_after(timeout)
    client = ControlClient(context, peer)
    try:
        return client.ask(method, params, result, deadline)
    finally:
        client.close()


def call(
    context: Context,
    endpoint: Address,
    method: str,
    params: control.Params,
    result: type[_T],
    deadline: int | None,
) -> _T | None:
    """As :meth:`ControlLink.call`, over a connection for this call alone.

    :raises CanOperationError, CanInitializationError: cannot open a socket.
    """
    link = ControlLink(context, endpoint)
    try:
        return link.call(method, params, result, deadline)
    finally:
        link.close()
