"""Starts and ends the broker of one test session."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from canbroker.bus import discovery
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import SharedContext

#: The broker gives its actors 3 s before it kills them.
_STOP_S: Final = 15.0


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
    discovery.stop_broker(runtime, _STOP_S)


def remove(runtime: Runtime) -> None:
    """Removes the directory of a broker that was stopped, with its log."""
    shutil.rmtree(runtime.directory)
