"""``canbroker stop``."""

from __future__ import annotations

import time
from typing import Final

import click

from canbroker.bus.starting import is_running
from canbroker.cli.common import broker_option
from canbroker.errors import CanError, CanOperationError, CanTimeoutError
from canbroker.system import clock
from canbroker.transport.runtime import Runtime
from canbroker.view.running import RunningBroker
from canbroker.wire import control

#: The broker gives its actors 3 s before it kills them.
_STOP_S: Final = 10.0


@click.command()
@broker_option
def stop(broker: str | None) -> None:
    """Stop the broker and everything it has started.

    Returns when its processes, sockets and lock are gone; one on another host is only told.
    Programs that still use a channel get an error.

    \b
    Example:
      canbroker stop
    """
    with RunningBroker(broker) as running:
        try:
            running.ask("shutdown", control.Nothing)
        except CanTimeoutError:
            raise
        except CanError as error:  # the broker has another version
            raise CanOperationError(f"{running.name} does not stop: {error}") from error
        if running.runtime is None:  # its lock is on another host
            click.echo(f"told {running.name} to stop")
            return
        _wait_for_end(running.runtime)
    click.echo(f"stopped the broker at {running.runtime.address}")


def _wait_for_end(runtime: Runtime) -> None:
    """Waits until the broker has released its lock, which it does last.

    :raises CanTimeoutError: it has not released it in time.
    """
    deadline = clock.deadline_after(_STOP_S)
    while is_running(runtime):
        if not clock.remaining_ns(deadline):
            raise CanTimeoutError(
                f"{runtime.place.describe_broker()} has not stopped in {_STOP_S} s"
            )
        time.sleep(0.01)
