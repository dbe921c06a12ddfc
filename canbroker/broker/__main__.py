"""``python -m canbroker.broker``: a broker in the background, for the client that starts it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from typing import Final

from canbroker.broker.broker import Broker
from canbroker.bus.starting import LOCKED, READY
from canbroker.configuration.broker_file import load
from canbroker.errors import CanError, CanInitializationError
from canbroker.system import clock
from canbroker.system.background import answers
from canbroker.system.descriptors import open_standard, raise_limit
from canbroker.system.entry_points import EntryPoint
from canbroker.system.lock import BrokerLock
from canbroker.system.portable import PORTABLE
from canbroker.system.processes import ProcessEnd, end_of
from canbroker.system.service import Exit, Terminated, ending_signals, set_up_logging
from canbroker.transport.runtime import Runtime

#: How long the lock may be that of somebody who only looks.
_LOOKERS_NS: Final = clock.SECOND // 2
_TRY_AGAIN_S: Final = 0.01

_logger = logging.getLogger(__name__)


def main() -> int:
    """Runs a broker in the background, for the client that started it; returns the exit code.

    With ``--owner`` it ends with that process, and not when it is idle. The broker tells the client
    that it serves, or why it does not. On Linux the client holds the lock, and lets this process
    inherit it and the pipe to tell it by; elsewhere the broker takes the lock, and tells it by its
    standard output.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {EntryPoint.BROKER}")
    parser.add_argument("--address", required=True)
    parser.add_argument("--lock", type=int, required=not PORTABLE)
    parser.add_argument("--ready", type=int, required=not PORTABLE)
    parser.add_argument("--config")
    parser.add_argument("--owner", type=int)
    arguments = parser.parse_args()
    open_standard()
    raise_limit()
    set_up_logging("info", "broker")
    os.chdir("/")  # the client's file system can be unmounted
    runtime = Runtime.at(arguments.address)
    with answers() if PORTABLE else os.fdopen(arguments.ready, "w") as ready:
        lock = _take_lock(runtime) if PORTABLE else _inherited_lock(runtime, arguments.lock)
        if lock is None:
            ready.write(LOCKED)
            return Exit.REFUSED
        try:
            owners = [] if arguments.owner is None else [_end_of(arguments.owner)]
            loaded = load(arguments.config) if arguments.config else None
            broker = Broker(runtime, lock, loaded, autostarted=not owners)
        except (CanError, OSError) as error:
            ready.write(str(error))
            lock.release()
            return Exit.REFUSED
        ready.write(READY)
    try:
        broker.run(Terminated(*ending_signals()), *owners)
    except CanError:
        _logger.exception("the broker ends")
        return Exit.REFUSED
    return Exit.OK


def _end_of(owner: int) -> ProcessEnd:
    """:raises CanInitializationError: there is no such process, or no descriptor is left."""
    end = end_of(owner)
    if end is None:
        raise CanInitializationError(f"process {owner} has ended, which this broker is for")
    return end


def _inherited_lock(runtime: Runtime, descriptor: int) -> BrokerLock:
    os.set_inheritable(descriptor, False)
    return BrokerLock(runtime.lock_path, descriptor)


def _take_lock(runtime: Runtime) -> BrokerLock | None:
    """The lock, unless another broker has it. Whoever looks whether a broker runs has it, too, but
    for a moment."""
    deadline = clock.monotonic_ns() + _LOOKERS_NS
    while (lock := BrokerLock.take(runtime.lock_path)) is None:
        if clock.monotonic_ns() > deadline:
            return None
        time.sleep(_TRY_AGAIN_S)
    return lock


if __name__ == "__main__":
    sys.exit(main())
