"""``python -m canbroker.broker``: a broker in the background, for the client that starts it."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys

from canbroker.broker.broker import Broker
from canbroker.bus.discovery import READY
from canbroker.configuration.broker_file import load
from canbroker.errors import CanError
from canbroker.system.descriptors import open_standard, raise_limit
from canbroker.system.entry_points import EntryPoint
from canbroker.system.lock import BrokerLock
from canbroker.system.service import Exit, Terminated, set_up_logging
from canbroker.transport.runtime import Runtime

_logger = logging.getLogger(__name__)


def main() -> int:
    """Runs a broker in the background, for the client that started it; returns the exit code.

    With ``--owner`` it ends with that process, and not when it is idle. Linux only. The client
    holds the lock and lets this process inherit it. The broker writes to the ready pipe that it
    serves, or why it does not.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {EntryPoint.BROKER}")
    parser.add_argument("--address", required=True)
    parser.add_argument("--lock", type=int, required=True)
    parser.add_argument("--ready", type=int, required=True)
    parser.add_argument("--config")
    parser.add_argument("--owner", type=int)
    arguments = parser.parse_args()
    open_standard()
    raise_limit()
    set_up_logging("info", "broker")
    os.chdir("/")  # the client's file system can be unmounted
    runtime = Runtime.at(arguments.address)
    lock = BrokerLock(runtime.lock_path, arguments.lock)
    os.set_inheritable(arguments.lock, False)
    with os.fdopen(arguments.ready, "w") as ready:
        try:
            owners = [] if arguments.owner is None else [os.pidfd_open(arguments.owner)]
            loaded = load(arguments.config) if arguments.config else None
            broker = Broker(runtime, lock, loaded, autostarted=not owners)
        except (CanError, OSError) as error:
            ready.write(str(error))
            lock.release()
            return Exit.REFUSED
        ready.write(READY)
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    try:
        broker.run(Terminated(*signals), *owners)
    except CanError:
        _logger.exception("the broker ends")
        return Exit.REFUSED
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main())
