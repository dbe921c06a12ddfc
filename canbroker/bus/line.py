"""The connection by which all buses and leases of a process tell a broker that they end.

It is open as long as there are any, because no descriptor may be left when they end.
"""

from __future__ import annotations

import functools
from contextlib import suppress
from weakref import WeakSet

from canbroker.bus.turns import Turn
from canbroker.errors import CanError
from canbroker.system import clock, handles
from canbroker.system.portable import PORTABLE
from canbroker.transport.address import Address
from canbroker.transport.calls import ControlClient, Peer
from canbroker.transport.sockets import SharedContext
from canbroker.wire import control


class Line:
    """A connection to one broker. Any thread. Made by :func:`line_to`."""

    def __init__(self, address: Address) -> None:
        """:raises CanError: no descriptors are left."""
        self.users: WeakSet[object] = WeakSet()
        self._address = address
        self._turn = Turn("talking to the broker")
        self._context = SharedContext()
        self._broker = ControlClient(self._context, Peer(address, f"the broker at {address}"))

    def tell(self, method: str, params: control.Params, timeout: float) -> None:
        """Sends a request without a result, and waits until the broker confirms it.

        :raises CanError: it answers with an error.
        :raises CanTimeoutError: it does not answer within ``timeout`` seconds.
        """
        deadline = clock.deadline_after(timeout)
        ask = functools.partial(self._broker.ask, method, params, control.Nothing, deadline)
        self._turn.run(deadline, ask)

    def reach(self) -> None:
        """Connects to a broker that has begun to listen just now, where sockets are portable: there
        ZeroMQ does not know yet where. No descriptor may be left for that when it is needed."""
        if PORTABLE:
            with suppress(CanError):  # another thread uses it, so it is connected
                self._turn.run(clock.deadline_after(0), self._broker.reach)

    def leave(self, user: object) -> None:
        """``user`` no longer needs it. Idempotent. The last user closes it."""
        with handles.fork_lock:
            self.users.discard(user)
            if self.users:
                return
            if _lines.get(self._address) is self:
                del _lines[self._address]
            self._context.close()


def line_to(address: Address, user: object) -> Line:
    """The line to the broker at ``address``, for ``user`` until it calls :meth:`Line.leave`.

    :raises CanError: no descriptors are left.
    """
    handles.register(in_child=_forget)
    with handles.fork_lock:
        line = _lines.get(address)
        if line is None:
            line = Line(address)
        line.users.add(user)
        _lines[address] = line
        return line


def leave_line(address: Address, user: object) -> None:
    """``user`` does not need the line any more, if it ever had it. Idempotent."""
    line = _lines.get(address)
    if line is not None:
        line.leave(user)


_lines: dict[Address, Line] = {}


def _forget() -> None:
    """[forked child] Leaves the lines to the parent."""
    _lines.clear()
