"""What a listening socket of libzmq has where sockets are portable, whatever it is for."""

from __future__ import annotations

from canbroker.transport.address import IpcAddress
from canbroker.transport.loopback_listening import LoopbackListening
from canbroker.transport.sockets import Socket, readable
from canbroker.transport.waiter import Waiter


class LoopbackSocket:
    """As the parts of :class:`~canbroker.transport.routers.Router` and
    :class:`~canbroker.transport.xpub.Xpub` that are the same."""

    def __init__(self, socket: Socket, endpoint: IpcAddress) -> None:
        """``socket`` is bound to ``endpoint``.

        :raises CanInitializationError: no descriptors are left. The socket is closed.
        """
        self.socket = socket
        self.listening = LoopbackListening(socket, endpoint)

    def watch(self, waiter: Waiter) -> None:
        waiter.add(self.socket)
        waiter.add(self.listening.monitor)

    @property
    def has_more(self) -> bool:
        return readable(self.socket)

    def close(self) -> None:
        self.listening.close()
        self.socket.close()
