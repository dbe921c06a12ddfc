"""The channels of a broker, for who has not attached to one yet."""

from __future__ import annotations

from typing import Final

from canbroker.bus import discovery
from canbroker.errors import CanTimeoutError
from canbroker.system import clock, handles
from canbroker.system.lock import BrokerLock
from canbroker.system.undisturbed import undisturbed
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import SharedContext
from canbroker.wire import control

#: A broker answers at once; one that is just starting may take this long on a busy machine.
_ANSWER_S: Final = 15.0

#: One that leaves may have closed its socket, so whether it is still there is looked up again.
_ASK_S: Final = 0.5


def channel_names(address: str | None) -> list[str]:
    """Names of the channels of the broker at ``address``; none if it does not run.

    :param address: ``None`` is this user's own. It is not started.
    :raises CanError: it runs, and does not answer as it should.
    """
    runtime = Runtime.at(address)
    deadline = clock.deadline_after(_ANSWER_S)
    while is_running(runtime):
        context = SharedContext()
        try:
            status = discovery.ask(
                context, runtime, "status", control.Params(), control.BrokerStatus, _ASK_S
            )
        finally:
            context.close()
        if status is not None:
            return [channel.name for channel in status.channels]
        if not clock.remaining_ns(deadline):
            raise CanTimeoutError(f"the broker at {runtime.address} does not answer")
    return []


def is_running(runtime: Runtime) -> bool:
    """Whether there is a broker: somebody holds the lock."""
    if not runtime.directory.exists():
        return False
    runtime.prepare()
    found: list[bool] = []
    # A lock that an exception of a signal handler has lost keeps everybody out.
    undisturbed(lambda: found.append(_is_held(runtime)))
    return any(found)


def _is_held(runtime: Runtime) -> bool:
    with handles.fork_lock:  # a child would hold it for as long as it lives
        lock = BrokerLock.take(runtime.lock_path)
        if lock is not None:
            lock.release()
        return lock is None
