"""``canbroker record CHANNEL``: what was on a channel just now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from canbroker.bus.history import recent_frames
from canbroker.cli import Failure
from canbroker.cli.common import NotNegative, broker_option
from canbroker.cli.lines import LogLines
from canbroker.cli.progress import progress
from canbroker.delivery.tap import Frames
from canbroker.logs.files import replaced
from canbroker.logs.formats import FORMATS, kind_of, open_writer
from canbroker.logs.recent import write_frames
from canbroker.system import clock


@click.command("record")
@click.argument("channel")
@click.option(
    "--last",
    "seconds",
    metavar="SECONDS",
    type=NotNegative(86_400),
    default=10.0,
    show_default=True,
    help="How far back.",
)
@click.option("--since-ns", type=int, hidden=True, help="Or since then, on the monotonic clock.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write there; the suffix says the format. Default: standard output.",
)
@broker_option
def last(
    channel: str, seconds: float, since_ns: int | None, output: Path | None, broker: str | None
) -> None:
    """Write the recent frames of a channel.

    Without -o, and in a file without a known suffix, they are lines of candump -L. Every channel
    keeps its recent frames that passed the filters of any client, up to 16 MiB and 60 s unless
    configured otherwise. If its process was killed and replaced, the frames of the old process
    are still there. CHANNEL is the broker's name for the channel, as canbroker status shows it.

    \b
    Examples:
      canbroker record --last 30 can0 -o before-the-fault.blf
      canbroker record virtual.x | grep 451#
    """
    if since_ns is not None:  # for the broker's flight records: our own start took time, too
        seconds = max((clock.monotonic_ns() - since_ns) / clock.SECOND, 0)
    with progress(f"read {channel}", None) as advance:
        recent = recent_frames(broker, channel, seconds, advance)
    if output is None:
        click.echo(LogLines().text(recent), nl=False)
    else:
        write_recent(recent, output)


def write_recent(recent: Frames, output: Path) -> None:
    """As :func:`save_recent`, with a bar and the account on standard error."""
    with progress(f"record {recent.channel}", len(recent.frames)) as advance:
        account = save_recent(recent, output, advance)
    for line in account:
        click.echo(line, err=True)


def save_recent(
    recent: Frames, output: Path, advance: Callable[[int], object] = lambda _: None
) -> list[str]:
    """Writes the frames; the suffix says the format, and without a known one it is candump's log.

    :param advance: is told the number of frames that were written, again and again.
    :returns: how many there are, and what of them the format cannot hold, in sentences.
    :raises Failure: the file cannot be written.
    :raises CanInitializationError: the format needs a package that is missing.
    """
    kind = _kind_of(output)
    account: list[str] = []
    try:
        with replaced(output) as part:
            if kind is None:
                part.write_text(LogLines().text(recent), encoding="utf-8")
            else:
                with open_writer(part, kind) as writer:
                    write_frames(writer, recent.channel, recent.frames, advance)
                if writer.losses:
                    account.append(f"not in {output}, as its format cannot: {writer.losses}")
    except OSError as error:
        raise Failure(f"cannot write {output}: {error.strerror or error}") from error
    return [*account, f"{len(recent.frames)} frames in {output}"]


def _kind_of(output: Path) -> str | None:
    """The name of the format; of lines as on the terminal, and without a known suffix: none."""
    suffixes = {suffix for each in FORMATS.values() for suffix in each.suffixes}
    if output.suffix == ".log" or suffixes.isdisjoint(map(str.lower, output.suffixes[-2:])):
        return None
    return kind_of(output)
