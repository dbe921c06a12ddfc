"""Starts and ends the broker of one test session."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Final

from canbroker.bus import discovery
from canbroker.errors import CanTimeoutError
from canbroker.system import clock
from canbroker.system.lock import BrokerLock
from canbroker.transport.calls import NoAnswerError
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context, SharedContext
from canbroker.wire import control

#: The broker gives its actors 3 s before it kills them.
_STOP_S: Final = 15.0
_ANSWER_S: Final = 5.0


def start(runtime: Runtime, owner: int, config: Path | None) -> None:
    """Has a broker serve at ``runtime``; of processes that call this at once, one starts it.

    :param owner: the process whose end, whatever the reason, is the broker's.
    :param config: absolute path of its configuration.
    :raises CanInitializationError: the configuration is wrong, or the broker does not start.
    """
    options = ["--owner", str(owner)]
    if config is not None:
        options += ["--config", str(config)]
    context = SharedContext()
    try:
        discovery.find_broker(context, runtime, autostart=True, options=options)
    finally:
        context.close()


def stop(runtime: Runtime) -> None:
    """Ends the broker at ``runtime``, if one runs; returns when it has left.

    :raises CanTimeoutError: it has not in time.
    """
    deadline = clock.deadline_after(_STOP_S)
    told = False
    context = SharedContext()
    try:
        while (lock := BrokerLock.take(runtime.lock_path)) is None:
            if not clock.remaining_ns(deadline):
                raise CanTimeoutError(f"the broker at {runtime.address} does not leave")
            told = told or _tell_to_stop(context, runtime)
            time.sleep(0.01)
        lock.release()
    finally:
        context.close()


def remove(runtime: Runtime) -> None:
    """Removes the directory of a broker that was stopped, with its log."""
    shutil.rmtree(runtime.directory)


def _tell_to_stop(context: Context, runtime: Runtime) -> bool:
    """Whether it has answered; one that is just starting may need a second call."""
    nothing = control.Params()
    try:
        discovery.ask(context, runtime, "shutdown", nothing, control.Nothing, _ANSWER_S)
    except NoAnswerError:
        return False
    return True
