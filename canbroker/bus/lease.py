"""Leases: a channel of a pool for one program, until the program releases it or ends."""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self
from weakref import WeakSet

import msgspec

from canbroker.bus import discovery, lifetime
from canbroker.bus.brokers import remote_broker
from canbroker.bus.line import line_to
from canbroker.bus.ownership import Uncopyable, end_block
from canbroker.bus.starting import is_running
from canbroker.errors import CanError, CanOperationError, CanTimeoutError
from canbroker.system import clock
from canbroker.system.processes import start_of
from canbroker.transport.calls import NoAnswerError
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import SharedContext
from canbroker.wire import control, ids

if TYPE_CHECKING:
    from canbroker.bus.remote import RemoteBroker

#: A broker answers at once, on a busy machine within this time.
_ANSWER_S: Final = 2.0

#: A broker that has replaced another one does not know our request; it is repeated this often.
_ASK_AGAIN_S: Final = 5.0


class _Share:
    """Uses the line for a lease, or for a request for one."""


class Lease(Uncopyable):
    """A channel that no other program gets from its pool. Any thread; made by :func:`lease`.

    It is given back by :meth:`release`, by the end of a ``with`` block, and by the end of the
    process, whatever ends it. In a forked child :meth:`release` does nothing.
    """

    def __init__(self, holding: _Holding, pool: str, lease_id: str, channel: str) -> None:
        self._released = False
        self._holding = holding
        self._share = _Share()
        lifetime.needs(self, self._share)
        holding.join(self._share)
        self._lease_id = lease_id
        self.pool = pool
        self.channel = channel
        lifetime.opened(self)

    def __repr__(self) -> str:
        return f"<Lease {self.channel!r} of pool {self.pool!r}>"

    def release(self) -> None:
        """Gives the channel back. Idempotent.

        :raises CanOperationError: the broker does not answer. The channel is given back when
            this process ends; before, this call can be repeated.
        """
        if self._released:
            return
        try:
            if self._holding.is_kept():
                _give_back(self._holding, self._lease_id)
        except CanTimeoutError as error:
            if self._holding.is_kept():
                raise CanOperationError(f"{self!r} is not given back: {error}") from error
        self._released = True
        self._holding.leave(self._share)
        lifetime.closed(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        end_block(self.release, exc, CanError)

    def __del__(self) -> None:
        if not getattr(self, "_released", True):
            lifetime.forgotten(self, repr(self), self.release, "released")

    def _abandon(self) -> None:
        lifetime.end(self, self.release, "released")

    def _forked(self) -> None:
        """[forked child]"""
        self._released = True


def lease(pool: str, timeout: float | None = None, *, broker: str | None = None) -> Lease:
    """Leases a free channel of a pool, or waits for one, first come first served.

    :param pool: as the ``pool`` of channels in the broker's configuration says.
    :param timeout: seconds to wait; ``None``: for as long as it takes.
    :param broker: address of the broker; ``None`` is this user's own. It is not started.
    :raises ValueError: ``pool`` cannot be the name of a pool, or ``timeout`` is not a time.
    :raises CanInitializationError: the broker has no such pool, or does not run.
    :raises CanTimeoutError: no channel was free in time; names the channels and their holders.
    :raises CanOperationError: the broker stops, or too many requests wait.
    """
    if not pool or not pool.isprintable():
        raise ValueError(f"a pool has a name of printable characters, not {pool!r}")
    deadline = clock.deadline_after(timeout)
    asking = _Share()
    holding = _holding(broker, asking)
    pid = os.getpid()
    request = control.TakeLease(
        lease_id=holding.new_id(),
        # The process means nothing to another host: the lease belongs to the connection there.
        pid=pid if holding.is_local else None,
        started=(start_of(pid) or 0) if holding.is_local else 0,
        program=discovery.program(),
        pool=pool,
    )
    try:
        channel = _take(holding, request, deadline)
        return Lease(holding, pool, request.lease_id, channel)
    except CanError:
        raise
    except BaseException:  # of a signal handler: the lease may be granted already
        _give_back(holding, request.lease_id)
        raise
    finally:
        holding.leave(asking)


class _Holding(Protocol):
    """A connection to the broker that grants leases. It is open as long as it has users."""

    #: Whether the broker knows the processes of this host.
    is_local: bool

    def new_id(self) -> str:
        """A fresh id for a lease of ours."""

    def join(self, user: object) -> None: ...

    def leave(self, user: object) -> None: ...

    def find(self) -> None:
        """:raises CanError: the broker does not run, or does not answer."""

    def ask(self, request: control.TakeLease, timeout: float) -> control.Leased:
        """:raises CanError: the broker refuses it, or does not answer in ``timeout`` seconds."""

    def tell(self, method: str, params: control.Params, timeout: float) -> None:
        """:raises CanError: the broker does not confirm it in ``timeout`` seconds."""

    def is_kept(self) -> bool:
        """Whether a broker may know of a lease that it has granted."""


class _LocalHolding:
    is_local = True

    def __init__(self, runtime: Runtime, user: object) -> None:
        """:raises CanError: no descriptors are left."""
        self._runtime = runtime
        self._line = line_to(runtime.address, user)
        self.leave = self._line.leave
        self.tell = self._line.tell

    def new_id(self) -> str:
        return ids.new_id()

    def join(self, user: object) -> None:
        self._line.users.add(user)

    def find(self) -> None:
        context = SharedContext()
        try:
            discovery.find_broker(context, self._runtime, autostart=False)
        finally:
            context.close()

    def ask(self, request: control.TakeLease, timeout: float) -> control.Leased:
        context = SharedContext()
        try:
            return discovery.ask(context, self._runtime, "lease", request, control.Leased, timeout)
        finally:
            context.close()

    def is_kept(self) -> bool:
        """Whether one runs, or one that was killed has left a record."""
        return is_running(self._runtime) or self._runtime.leases_path.exists()


class _RemoteHolding:
    """The lease belongs to this connection, and is given back when that ends."""

    is_local = False

    def __init__(self, broker: RemoteBroker, context: SharedContext, user: object) -> None:
        self._broker = broker
        self._context = context
        self._users: WeakSet[object] = WeakSet([user])
        self.tell = broker.tell
        self.new_id = broker.new_id

    def join(self, user: object) -> None:
        self._users.add(user)

    def leave(self, user: object) -> None:
        self._users.discard(user)
        if not self._users:
            self._broker.close()
            self._context.close()

    def find(self) -> None:
        self._broker.meet()

    def ask(self, request: control.TakeLease, timeout: float) -> control.Leased:
        return self._broker.ask("lease", request, control.Leased, timeout)

    def is_kept(self) -> bool:
        return True


def _holding(address: str | None, user: object) -> _Holding:
    """:raises CanError: the address is not one, a key is missing, or no descriptors are left."""
    context = SharedContext()
    try:
        remote = remote_broker(address, context)
    except BaseException:
        context.close()
        raise
    if remote is not None:
        return _RemoteHolding(remote, context, user)
    return _LocalHolding(Runtime.at(address), user)


def _take(holding: _Holding, request: control.TakeLease, deadline: int | None) -> str:
    """The leased channel. Repeats the request, which a broker that knows it ignores."""
    while True:
        holding.find()
        left = clock.remaining_ns(deadline)
        patience = _ASK_AGAIN_S
        if left is not None:
            patience = min(patience, left / clock.SECOND + _ANSWER_S)
        asked = msgspec.structs.replace(request, timeout_ns=left)
        try:
            return holding.ask(asked, patience).channel
        except NoAnswerError:
            if left == 0:
                raise


def _give_back(holding: _Holding, lease_id: str) -> None:
    """:raises CanError: the broker does not confirm it."""
    holding.tell("release", control.Release(lease_id=lease_id), _ANSWER_S)
