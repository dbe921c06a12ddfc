"""``canbroker top``."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from canbroker.bus.brokers import channel_names
from canbroker.bus.databases import channel_decoder
from canbroker.cli.common import COUNT, Opener, databases_option, opens_channels
from canbroker.cli.top_rows import Display, heading, headline, load_line, plain_line
from canbroker.cli.top_session import Session
from canbroker.client import Bus
from canbroker.errors import CanError, CanInitializationError, CanOperationError
from canbroker.model.wording import printable
from canbroker.system import clock
from canbroker.system.extras import Needs
from canbroker.view.follower import Follower

if TYPE_CHECKING:
    from canbroker.signals.decoder import Decoder

NEEDS: Final = Needs("textual", "top")

_PLAIN_PERIOD_S: Final = 1.0

#: Of a line in a pipe: identifier to data of 64 bytes, and a name.
_PLAIN_WIDTH: Final = 280


@click.command()
@click.argument("channel", required=False)
@databases_option("Name and decode messages. Default: by the channel's own databases.")
@click.option("--plain", is_flag=True, help="Print the table as text once a second, for pipes.")
@click.option("-n", "count", metavar="N", type=COUNT, help="With --plain: end after N tables.")
@opens_channels("-b", "--bitrate")
def top(
    channel: str | None,
    databases: tuple[Path, ...],
    plain: bool,
    count: int | None,
    opener: Opener,
) -> None:
    """Show a channel as a table, one row for each identifier.

    With count, rate, period and its jitter, age and data; bytes that have just changed are marked.
    Above it: the bus load over time, state and losses. Without CHANNEL: the broker's only one.
    Needs an extra, unless with --plain: pip install 'canbroker[top]'

    \b
    Keys:
      q Ctrl-C        quit                  s r       sort by the next column, reverse
      ↑ ↓ PgUp PgDn   move                  /         filter
      space           pause                 f         freeze a row, or end that
      d Enter         data and signals      v         clients and periodic tasks
      t               send a frame          w         save the last 60 s to a file
      c               clear the table

    \b
    Examples:
      canbroker top can0 --dbc car.dbc
      canbroker top --plain -n 1 -i slcan /dev/ttyACM0 -b 500000 | sort -k 3 -n
    """
    if count is not None and not plain:
        raise click.UsageError("-n needs --plain")
    if not plain:
        NEEDS.check("the screen of top (--plain works without)")
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise click.UsageError("no terminal: use --plain")
    given = _given_decoder(databases)
    name = channel or _only_channel(opener)
    with ExitStack() as stack:
        bus = opener.open(name)
        stack.callback(bus.shutdown)
        follower = stack.enter_context(Follower(name, bus))
        decoder, problem = (given, "") if given is not None else _own_decoder(bus)
        session = Session(follower, bus, opener.broker, decoder)
        session.message = problem
        if plain:
            _print(session, count)
        else:
            from canbroker.cli.top_screen import TopApp  # noqa: PLC0415 - of an extra

            _forget_inherited_size()
            app = TopApp(session)
            app.run()
            click.get_current_context().exit(app.return_code or 0)


def _forget_inherited_size() -> None:
    """Removes the size of a terminal from the environment, where Python looks first. Programs with
    GNU Readline leave it there (Python's prompt, gdb), and it does not change with the terminal."""
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)


def _given_decoder(databases: tuple[Path, ...]) -> Decoder | None:
    if not databases:
        return None
    from canbroker.signals import load_databases  # noqa: PLC0415 - only with a database

    return load_databases(databases)


def _own_decoder(bus: Bus) -> tuple[Decoder | None, str]:
    """That of the databases that the broker has for the channel, or why there is none: the rest of
    the display does not need it."""
    try:
        return channel_decoder(bus), ""
    except CanError as error:
        return None, f"no names and signals: {printable(str(error))}"


def _only_channel(opener: Opener) -> str:
    """The name of the broker's channel, if it has one.

    :raises CanInitializationError: it has another number of channels, or does not run.
    """
    if opener.interface is not None:
        raise click.UsageError("name the interface's channel")
    names = channel_names(opener.broker)
    if len(names) == 1:
        return names[0]
    if not names:
        raise CanInitializationError("the broker has no channels, or does not run")
    raise CanInitializationError(f"name a channel: {', '.join(names)}")


def _print(session: Session, count: int | None) -> None:
    """Prints a table a second, until there were ``count`` or the channel has ended.

    :raises CanOperationError: it has ended.
    """
    display = Display(session.name_of)
    view, lock = session.follower.view, session.follower.lock
    left = count
    time.sleep(_PLAIN_PERIOD_S)  # rates of the first table are over a second, too
    while left != 0:
        time.sleep(_PLAIN_PERIOD_S)
        with lock:
            now_ns = clock.monotonic_ns()
            view.table.tick(now_ns)
            display.take(view.table.rows.values(), now_ns)
            lines = [
                headline(view, _PLAIN_WIDTH),
                load_line(view.load.samples, 80),
                heading(display.sort, is_reversed=False, has_names=session.has_names),
            ]
        lines += [plain_line(row, _PLAIN_WIDTH) for row in display.rows]
        sys.stdout.write("\n".join(lines) + "\n\n")
        sys.stdout.flush()  # a program that reads the output need not wait
        if view.ended:
            raise CanOperationError(view.problem)
        left = None if left is None else left - 1
