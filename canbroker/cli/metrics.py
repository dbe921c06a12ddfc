"""``canbroker metrics``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from canbroker.cli.common import broker_option
from canbroker.errors import CanError
from canbroker.system.extras import Needs
from canbroker.view.running import RunningBroker
from canbroker.view.tasks import running_tasks
from canbroker.wire.status import BrokerStatus
from canbroker.wire.tasks import TaskStatus

NEEDS: Final = Needs("prometheus_client", "metrics")


@click.command()
@broker_option
def metrics(broker: str | None) -> None:
    """Print a broker's numbers for Prometheus.

    Does not start a broker. The web page serves the same at /metrics; this is for node_exporter's
    textfile collector, and for a look. Needs an extra: pip install 'canbroker[metrics]'

    \b
    Example:
      canbroker metrics > can.prom.new && mv can.prom.new /var/lib/node_exporter/can.prom
    """
    NEEDS.check("the format of Prometheus")
    from canbroker.view.metrics import render  # noqa: PLC0415 - of an extra

    with RunningBroker(broker) as running:
        status = running.status()
        text = render(status, _tasks(status, running))
    click.echo(text, nl=False)


def _tasks(status: BrokerStatus, running: RunningBroker) -> Sequence[TaskStatus] | None:
    try:
        return running_tasks(status, (), running.context)
    except CanError as error:  # a scheduler that hangs is no reason to hide the rest
        click.echo(f"canbroker: metrics: without those of tasks: {error}", err=True)
        return None
