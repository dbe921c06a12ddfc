"""``canbroker web``."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import click

from canbroker.actors.web.installed import check_installed
from canbroker.actors.web.options import WebOptions
from canbroker.cli import Failure
from canbroker.cli.common import broker_option, databases_option
from canbroker.errors import CanInitializationError
from canbroker.keys.authorized import Role
from canbroker.keys.web_tokens import ROLES, load_or_create, tokens_path
from canbroker.system import clock
from canbroker.system.service import Terminated, ending_signals
from canbroker.view.running import RunningBroker

if TYPE_CHECKING:
    from canbroker.actors.web.service import WebService

#: A page that is just starting is there by then.
_START_S: Final = 10.0
_LOOK_S: Final = 0.05

_ROLES: Final = [str(role) for role in ROLES]


@click.command()
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:8080",
    show_default=True,
    help="Where browsers of this host connect. Port 0: any free one.",
)
@click.option(
    "--transmit",
    metavar="FIRST-LAST",
    multiple=True,
    help="Identifiers that may be sent from the page, 100-1FF or x18DA0000. Repeatable.",
)
@databases_option("Decode signals of channels that have no database of their own.")
@click.option(
    "--role",
    type=click.Choice(_ROLES),
    default=str(Role.TRANSMIT),
    show_default=True,
    help="Whose token is in the address that is printed.",
)
@broker_option
def web(
    listen: str,
    transmit: tuple[str, ...],
    databases: tuple[Path, ...],
    role: str,
    broker: str | None,
) -> None:
    """Show a broker's channels in a browser.

    Prints the address of the page, with the token that opens it: open it in a browser. If the
    broker has a page, by [web] in its configuration, that is the one. Else this command serves a
    page until Ctrl-C; it may start before its broker, and goes on when that ends and comes back.

    \b
    Examples:
      canbroker web
      canbroker web --transmit 100-1FF --dbc car.dbc
      canbroker web --role observe
      canbroker web --broker tcp://bench1:5655
    """
    check_installed()
    chosen = Role.parse(role)
    if url := _configured(broker):
        tokens = load_or_create(tokens_path())
        click.echo(_with_token(url, tokens.by_role[chosen]))
        return
    try:
        options = WebOptions(listen=listen, transmit=list(transmit))
    except ValueError as error:
        raise click.BadParameter(_worded(str(error))) from error
    service = _service(options, broker, databases)
    click.echo(_with_token(service.url, service.tokens.current.by_role[chosen]))
    service.run([Terminated(*ending_signals())], lambda _: None)


def _configured(broker: str | None) -> str:
    """The address of the page that the broker itself has; empty if it has none, or does not run.

    :raises Failure: it is to have one, and that does not serve.
    """
    deadline = clock.deadline_after(_START_S)
    try:
        with RunningBroker(broker) as running:
            while (found := running.status().web) is not None and not found.url:
                is_late = not clock.remaining_ns(deadline)
                if is_late or found.phase in {"failed", "stopped"}:
                    why = found.reason or "it does not answer"
                    raise Failure(f"the broker's page at {found.listen} is {found.phase}: {why}")
                time.sleep(_LOOK_S)
    except CanInitializationError:
        return ""
    return "" if found is None else found.url


def _service(options: WebOptions, broker: str | None, databases: tuple[Path, ...]) -> WebService:
    from canbroker.actors.web.service import WebService  # noqa: PLC0415 - of an extra

    os.environ["CANBROKER_AUTOSTART"] = "0"  # the page only looks at what is there
    logging.getLogger("canbroker").setLevel(logging.WARNING)
    return WebService(options, broker, [str(path.absolute()) for path in databases])


def _with_token(url: str, token: str) -> str:
    return f"{url}?token={quote(token)}"


def _worded(fault: str) -> str:
    """A fault of the table as one of the options."""
    key, colon, rest = fault.partition(": ")
    hint = "" if key != "listen" or "HOST:PORT" in rest else ", in a table [web]"
    return f"--{key}: {rest}{hint}" if colon else fault
