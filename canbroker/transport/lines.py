"""Lines to the sockets of the broker and its actors, for a process that relays by many of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from canbroker.system.portable import PORTABLE
from canbroker.transport.address import IpcAddress
from canbroker.transport.ipc_line import IpcLine, IpcStream
from canbroker.transport.links import Link
from canbroker.transport.selector import SocketSelector
from canbroker.transport.sockets import Context
from canbroker.transport.stream_link import StreamLink
from canbroker.transport.zmtp import opening


class Line(Protocol):
    """What both kinds of lines have."""

    def report_to(self, owner: object) -> None: ...

    def receive(self) -> Sequence[bytes] | None: ...

    def again(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def step(self) -> None: ...

    def close(self) -> None: ...


class Requester(Line, Protocol):
    """As :class:`canbroker.transport.ipc_line.IpcLine`."""

    def send(self, body: bytes) -> bool: ...


class Stream(Line, Protocol):
    """As :class:`canbroker.transport.ipc_line.IpcStream`."""

    def subscribe(self, topic: bytes) -> bool: ...

    def unsubscribe(self, topic: bytes) -> bool: ...


class IpcLines:
    """Makes lines, and has them connect again. One thread."""

    def __init__(self, selector: SocketSelector[object], sockets: int) -> None:
        """
        :param selector: reports the owners of lines.
        :param sockets: the most lines.
        """
        del sockets  # the portable side has to know
        self._selector = selector
        self._away: dict[IpcLine, int] = {}  # until when, monotonic ns

    def requester(self, endpoint: IpcAddress, name: str = "") -> Requester:
        """A line to a ROUTER; ``name``: as of :meth:`Context.requester`.

        :raises CanInitializationError: no descriptors are left.
        """
        return IpcLine(self._selector, self, endpoint, opening("DEALER", name))

    def subscriber(self, endpoint: IpcAddress) -> Stream:
        """A line to an XPUB.

        :raises CanInitializationError: no descriptors are left.
        """
        return IpcStream(self._selector, self, endpoint, opening("SUB"))

    @property
    def waits(self) -> bool:
        """Whether a line is to be connected again."""
        return bool(self._away)

    def step(self, now_ns: int) -> int | None:
        """Connects what is to be connected again; returns when to call it again, if ever."""
        for line, until_ns in list(self._away.items()):
            if until_ns <= now_ns:
                del self._away[line]
                line.connect(now_ns)
        return min(self._away.values(), default=None)

    def wait_for(self, line: IpcLine, until_ns: int) -> None:
        """A line is to connect at that time."""
        self._away[line] = until_ns

    def forget(self, line: IpcLine) -> None:
        """A line is not to connect any more."""
        self._away.pop(line, None)

    def close(self) -> None:
        """After its lines."""


class PortableLines:
    """As :class:`IpcLines`, where sockets are portable: libzmq encrypts these connections."""

    def __init__(self, selector: SocketSelector[object], sockets: int) -> None:
        self._selector = selector
        self._context = Context(sockets=sockets)

    def requester(self, endpoint: IpcAddress, name: str = "") -> Requester:
        return _PortableRequester(self._selector, Link(self._context, endpoint, name))

    def subscriber(self, endpoint: IpcAddress) -> Stream:
        return _PortableStream(self._selector, StreamLink(self._context, endpoint))

    #: libzmq connects again by itself.
    waits: Final = False

    def step(self, _now_ns: int) -> int | None:
        return None

    def close(self) -> None:
        self._context.close()


class _Watched:
    """A socket that a selector watches."""

    def __init__(self, selector: SocketSelector[object], link: Link | StreamLink) -> None:
        self._selector = selector
        self._socket = link.socket
        self._close = link.close

    def report_to(self, owner: object) -> None:
        self._selector.add(self._socket, owner)

    def again(self) -> None:
        """The selector looks again by itself."""

    def pause(self) -> None:
        self._selector.pause(self._socket)

    def resume(self) -> None:
        self._selector.resume(self._socket)

    def step(self) -> None:
        """libzmq follows the connection."""

    def close(self) -> None:
        if not self._socket.closed:
            self._selector.remove(self._socket)
            self._close()


class _PortableRequester(_Watched):
    def __init__(self, selector: SocketSelector[object], link: Link) -> None:
        super().__init__(selector, link)
        self._link = link

    def send(self, body: bytes) -> bool:
        is_sent = self._link.send(body)
        self._selector.used(self._socket)
        return is_sent

    def receive(self) -> Sequence[bytes] | None:
        body = self._link.receive()
        return None if body is None else (body,)


class _PortableStream(_Watched):
    def __init__(self, selector: SocketSelector[object], link: StreamLink) -> None:
        super().__init__(selector, link)
        self._link = link

    def subscribe(self, topic: bytes) -> bool:
        self._link.subscribe(topic)
        self._selector.used(self._socket)
        return True

    def unsubscribe(self, topic: bytes) -> bool:
        self._link.unsubscribe(topic)
        self._selector.used(self._socket)
        return True

    def receive(self) -> Sequence[bytes] | None:
        return self._link.receive()


if TYPE_CHECKING or PORTABLE:  # noqa: SIM108 - mypy reads it
    Lines = PortableLines
else:
    Lines = IpcLines
