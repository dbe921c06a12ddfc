"""``canbroker config``."""

from __future__ import annotations

import json

import click

from canbroker.bus.brokers import channel_names
from canbroker.cli.common import broker_option
from canbroker.cli.tables import cell, table, terminal
from canbroker.configuration import bus_settings
from canbroker.model.wording import printable


@click.group()
def config() -> None:
    """Show what programs are configured with.

    \b
    Example:
      canbroker config show --context bench
    """


@config.command()
@click.option("--context", metavar="NAME", help="As config_context of Bus.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@broker_option
def show(context: str | None, as_json: bool, broker: str | None) -> None:
    """Show what Bus() takes from environment and files, and where each value is from.

    Starts no broker. A channel of a running one goes before interfaces of files.

    \b
    Examples:
      canbroker config show
      CAN_INTERFACE_BENCH=slcan canbroker config show --context BENCH --json
    """
    given = {} if broker is None else {"broker": broker}
    found = bus_settings.gather(given, {}, context)
    opens = "channel" in found.values
    if opens:
        found = bus_settings.effective(found, channel_names)
    if as_json:
        values = {
            key: {"value": value.value, "origin": value.origin}
            for key, value in found.values.items()
        }
        click.echo(json.dumps({"values": values, "looked_at": list(found.looked_at)}, indent=2))
        return
    if found.values:
        made = table("configuration", "key", "value", "origin")
        for key, value in found.values.items():
            made.add_row(cell(key), cell(str(value.value)), cell(value.origin))
        terminal().print(made)
    if not opens:
        looked_at = ", ".join(found.looked_at)
        click.echo(printable(f"no channel is configured; looked at: {looked_at}"), err=True)
