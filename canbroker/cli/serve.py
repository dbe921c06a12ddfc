"""``canbroker serve``."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from canbroker.broker.broker import Broker
from canbroker.cli.common import broker_option
from canbroker.configuration import broker_file
from canbroker.errors import CanInitializationError
from canbroker.system.descriptors import raise_limit
from canbroker.system.lock import BrokerLock
from canbroker.system.service import Terminated, ending_signals, set_up_logging
from canbroker.transport.address import parse_listen
from canbroker.transport.runtime import Runtime

_logger = logging.getLogger(__name__)


@click.command()
@click.option(
    "-c",
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Configuration (TOML): the channels to open. Without it clients open channels.",
)
@click.option(
    "--listen",
    metavar="ADDRESS",
    help="Also serve programs on other hosts, tcp://*:5655. They need keys: canbroker keys.",
)
@broker_option
def serve(path: Path | None, listen: str | None, broker: str | None) -> None:
    """Run a broker in the foreground.

    It opens the channels of its configuration and keeps them open until Ctrl-C, SIGTERM or SIGHUP.
    The log goes to standard error. --broker and --listen come before the
    configuration's own addresses.

    \b
    Examples:
      canbroker serve -c bench.toml
      canbroker serve -c bench.toml --listen tcp://*:5655
    """
    loaded = broker_file.load(path) if path else None
    remote = parse_listen(listen) if listen else None
    runtime = _runtime(broker, loaded)
    runtime.prepare()
    _set_up_logging(loaded)
    raise_limit()
    terminated = Terminated(*ending_signals())
    lock = BrokerLock.take(runtime.lock_path)
    if lock is None:
        raise CanInitializationError(f"a broker runs at {runtime.address} already")
    try:
        server = Broker(runtime, lock, loaded, listen=remote)
    except BaseException:
        lock.release()
        raise
    for channel in loaded.channels.values() if loaded else ():
        given = " ".join(f"{key}={value}" for key, value in channel.parameters.items())
        _logger.info("channel %s: %s %s", channel.name, channel.interface, given)
    _logger.info("ready at %s", runtime.address)
    server.run(terminated)


def _runtime(broker: str | None, loaded: broker_file.Config | None) -> Runtime:
    """Where to serve.

    :raises CanInitializationError: no broker can listen there; names file and line that say so.
    """
    if broker or loaded is None or loaded.broker.address is None:
        return Runtime.at(broker)
    try:
        return Runtime.at(loaded.broker.address)
    except CanInitializationError as error:
        raise loaded.source.fault(("broker", "address"), str(error)) from error


def _set_up_logging(loaded: broker_file.Config | None) -> None:
    """Replaces the command line's terse logging by a process's own."""
    logging.getLogger().handlers.clear()
    set_up_logging(loaded.broker.log_level if loaded else "info", "broker")
