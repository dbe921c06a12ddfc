"""``canbroker top``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final

import click

from canbroker.bus.brokers import channel_names
from canbroker.cli.common import COUNT, Opener, databases_option, opens_channels
from canbroker.cli.top_channels import Channels
from canbroker.cli.top_rows import Display, heading, headline, load_line, plain_line
from canbroker.cli.top_session import Session
from canbroker.errors import CanInitializationError, CanOperationError
from canbroker.signals import load_databases
from canbroker.system import clock
from canbroker.system.extras import Needs

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
    Above it: the bus load over time, state and losses. Without CHANNEL: the broker's only one, or
    a choice of them.
    Needs an extra, unless with --plain: pip install 'canbroker[top]'

    \b
    Keys:
      q Ctrl-C        quit                  s r       sort by the next column, reverse
      ↑ ↓ PgUp PgDn   move                  /         filter
      space           pause                 f         freeze a row, or end that
      d Enter         data and signals      v         clients and periodic tasks
      t               send a frame          w         save the last 60 s to a file
      c               clear the table       o         another channel

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
    given = load_databases(databases) if databases else None
    with Channels(opener, given) as channels:
        if plain:
            _print(channels.open(channel or _only_channel(opener)), count)
            return
        first = channel or _only_channel(opener, may_choose=True)
        from canbroker.cli.top_app import TopApp  # noqa: PLC0415 - of an extra

        _forget_inherited_size()
        app = TopApp(channels, channels.open(first) if first else None)
        app.run()
        click.get_current_context().exit(app.return_code or 0)


def _forget_inherited_size() -> None:
    """Removes the size of a terminal from the environment, where Python looks first. Programs with
    GNU Readline leave it there (Python's prompt, gdb), and it does not change with the terminal."""
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)


def _only_channel(opener: Opener, *, may_choose: bool = False) -> str:
    """The name of the broker's channel, if it has one; empty if it has more of them and somebody
    ``may_choose``.

    :raises CanInitializationError: it has none or more of them, or does not run.
    """
    if opener.interface is not None:
        raise click.UsageError("name the interface's channel")
    names = channel_names(opener.broker)
    if len(names) == 1:
        return names[0]
    if not names:
        raise CanInitializationError("the broker has no channels, or does not run")
    if may_choose:
        return ""
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
