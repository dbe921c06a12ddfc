"""``canbroker fleet``: all benches of a site, by what they publish to NATS."""

from __future__ import annotations

import json
from typing import Any, Final

import click
import msgspec
from rich.table import Table

from canbroker.cli.tables import alarm, cell, duration, table, terminal
from canbroker.jetstream.server import Server, Tls
from canbroker.jetstream.subjects import encode_name
from canbroker.model.wording import printable
from canbroker.view.fleet import Fleet, FleetChannel
from canbroker.view.fleet import fleet as read_fleet

_STYLES: Final = {"active": "green", "passive": "cyan", "error": "red", "gone": "bold red"}


@click.group()
def fleet() -> None:
    """Show the benches of a site, by what they publish to NATS.

    \b
    Example:
      canbroker fleet status nats://nats.lab:4222 --site lab
    """


def _name(_context: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    try:
        if value is not None:
            encode_name(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return value


@fleet.command()
@click.argument("urls", metavar="URL…", nargs=-1, required=True, envvar="CANBROKER_NATS")
@click.option("--site", metavar="NAME", callback=_name, help="Only this site.")
@click.option("--bench", metavar="NAME", callback=_name, help="Only this bench.")
@click.option(
    "--credentials",
    metavar="FILE",
    default="",
    help="A NATS user's .creds, the seed of an NKey, or USER:PASSWORD.",
)
@click.option("--ca", metavar="FILE", default="", help="PEM file with the server's authority.")
@click.option("--cert", metavar="FILE", default="", help="Our certificate, if the server asks.")
@click.option("--key", metavar="FILE", default="", help="The key of our certificate.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def status(  # noqa: PLR0913 - one for each option
    *,
    urls: tuple[str, ...],
    site: str | None,
    bench: str | None,
    credentials: str,
    ca: str,
    cert: str,
    key: str,
    as_json: bool,
) -> None:
    """Show the channels of all benches, each with the age of its state.

    Asks NATS alone; no bench is contacted. A bench repeats its states every 10 s; "gone" is one
    that has not for 30 s. Ages are by the clock of the NATS server. Of a cluster, name several
    servers; without a URL, it is CANBROKER_NATS. Needs an extra: pip install 'canbroker[nats]'

    \b
    Examples:
      canbroker fleet status nats://nats.lab:4222 --site lab
      canbroker fleet status tls://nats.lab:4222 --ca ca.pem --credentials me.creds
      canbroker fleet status nats://nats.lab:4222 --json | jq '.channels[] | select(.age_s > 30)'
    """
    try:
        tls = Tls(ca=ca, cert=cert, key=key) if ca or cert or key else None
        server = Server(url=[*urls], credentials=credentials, tls=tls)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    found = read_fleet(server, site, bench)
    if as_json:
        click.echo(json.dumps(_document(found), indent=2))
    else:
        _show(found)


def _document(found: Fleet) -> dict[str, Any]:
    """The fleet as JSON has it."""
    channels = [
        {
            "site": each.site,
            "bench": each.bench,
            "channel": each.channel,
            "status": each.word,
            "note": each.note,
            "age_s": each.age_s,
            "clock_s": each.clock_s,
            "lag_ms": each.told.lag_ms,
            "lost": each.told.lost,
            "epoch": each.told.epoch,
            "state": msgspec.to_builtins(each.told.state),
        }
        for each in found.channels
    ]
    return {"channels": channels, "unreadable": found.unreadable}


def _show(found: Fleet) -> None:
    console = terminal()
    if found.channels:
        console.print(_table(found.channels))
    for each in found.channels:
        if each.note:
            name = printable(f"{each.site}/{each.bench}/{each.channel}")
            console.print(cell(f"{name}: {each.note}", "yellow"), soft_wrap=True)
    gone = sum(each.word == "gone" for each in found.channels)
    console.print(
        f"{len(found.benches)} benches, {len(found.channels)} channels"
        + (f", {gone} of them gone" if gone else ""),
        soft_wrap=True,
    )
    if found.unreadable:
        console.print(cell(f"{found.unreadable} messages are not states", "red"), soft_wrap=True)


def _table(channels: list[FleetChannel]) -> Table:
    numbers = ("rx/s", "tx/s", "load", "lag ms", "lost", "age")
    made = table("fleet", "site", "bench", "channel", "state", *numbers, right=numbers)
    for each in channels:
        state = each.told.state
        made.add_row(
            cell(each.site),
            cell(each.bench),
            cell(each.channel),
            cell(each.word, _STYLES.get(each.word, "")),
            f"{state.received_rate:,.0f}",
            f"{state.transmitted_rate:,.0f}",
            "-" if state.load is None else f"{state.load:.0%}",
            str(each.told.lag_ms),
            alarm(each.told.lost),
            duration(each.age_s),
        )
    return made
