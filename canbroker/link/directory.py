"""The channels of a broker, for who has not attached to one yet."""

from __future__ import annotations

from typing import Final

from canbroker.errors import CanTimeoutError
from canbroker.fabric.sockets import Context
from canbroker.link import attach
from canbroker.runtime import BrokerLock, Runtime
from canbroker.wire import control

_ANSWER_S: Final = 5.0


def channel_names(address: str | None) -> list[str]:
    """Names of the channels of the broker at ``address``; none if it does not run.

    :param address: ``None`` is this user's own. It is not started.
    :raises CanError: it runs, and does not answer as it should.
    """
    runtime = Runtime.at(address)
    if not _runs(runtime):
        return []
    context = Context()
    try:
        status = attach.ask(
            context, runtime, "status", control.Params(), control.BrokerStatus, _ANSWER_S
        )
    finally:
        context.close()
    if status is None:
        raise CanTimeoutError(f"the broker at {runtime.address} does not answer")
    return [channel.name for channel in status.channels]


def _runs(runtime: Runtime) -> bool:
    """Whether somebody holds the lock."""
    if not runtime.directory.exists():
        return False
    runtime.prepare()
    lock = BrokerLock.take(runtime.lock_path)
    if lock is None:
        return True
    lock.release()
    return False
