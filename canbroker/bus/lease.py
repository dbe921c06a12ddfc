"""Leases: a channel of a pool for one program, until the program releases it or ends."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Final, Self

import msgspec

from canbroker.bus import discovery, lifetime
from canbroker.bus.line import Line, line_to
from canbroker.bus.ownership import Uncopyable, end_block
from canbroker.errors import CanError, CanOperationError, CanTimeoutError
from canbroker.system import clock
from canbroker.system.processes import start_of
from canbroker.transport.calls import NoAnswerError
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import SharedContext
from canbroker.wire import control

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

    def __init__(
        self, runtime: Runtime, line: Line, pool: str, lease_id: str, channel: str
    ) -> None:
        self._released = False
        self._runtime = runtime
        self._line = line
        self._share = _Share()
        lifetime.needs(self, self._share)
        line.users.add(self._share)
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
            if self._is_kept():
                _give_back(self._line, self._lease_id)
        except CanTimeoutError as error:
            if self._is_kept():
                raise CanOperationError(f"{self!r} is not given back: {error}") from error
        self._released = True
        self._line.leave(self._share)
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

    def _is_kept(self) -> bool:
        """Whether a broker knows of the lease, or a killed broker has left a record."""
        return discovery.is_running(self._runtime) or self._runtime.leases_path.exists()

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
    runtime = Runtime.at(broker)
    pid = os.getpid()
    request = control.TakeLease(
        lease_id=os.urandom(6).hex(),
        pid=pid,
        started=start_of(pid) or 0,
        program=discovery.program(),
        pool=pool,
    )
    asking = _Share()
    line = line_to(runtime.address, asking)
    try:
        channel = _take(runtime, request, deadline)
        return Lease(runtime, line, pool, request.lease_id, channel)
    except CanError:
        raise
    except BaseException:  # of a signal handler: the lease may be granted already
        _give_back(line, request.lease_id)
        raise
    finally:
        line.leave(asking)


def _take(runtime: Runtime, request: control.TakeLease, deadline: int | None) -> str:
    """The leased channel. Repeats the request, which a broker that knows it ignores."""
    context = SharedContext()
    try:
        while True:
            discovery.find_broker(context, runtime, autostart=False)
            left = clock.remaining_ns(deadline)
            patience = _ASK_AGAIN_S
            if left is not None:
                patience = min(patience, left / clock.SECOND + _ANSWER_S)
            asked = msgspec.structs.replace(request, timeout_ns=left)
            try:
                leased = discovery.ask(context, runtime, "lease", asked, control.Leased, patience)
            except NoAnswerError:
                if left == 0:
                    raise
            else:
                return leased.channel
    finally:
        context.close()


def _give_back(line: Line, lease_id: str) -> None:
    """:raises CanError: the broker does not confirm it."""
    line.tell("release", control.Release(lease_id=lease_id), _ANSWER_S)
