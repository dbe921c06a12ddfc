"""``canbroker record``: recordings that go on, and the recent frames of a channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from canbroker.bus.recording import start_recording, stop_recording
from canbroker.cli import Failure
from canbroker.cli.common import NotNegative, Opener, broker_option, opens_channels
from canbroker.cli.record_last import last
from canbroker.cli.tables import recording_notes, recordings_table, terminal, unfit_frames
from canbroker.view.running import RunningBroker

_OF_LAST: Final = "last"


class RecordGroup(click.Group):
    """A group whose first argument may also be a channel, or an option of :func:`last`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_help = bool(args) and args[0] in ctx.help_option_names
        if args and args[0] not in self.commands and not is_help:
            args = [_OF_LAST, *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "[--last SECONDS] [-o FILE] CHANNEL")
        formatter.write_usage(ctx.command_path, "start|stop|list ...", prefix="       ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        last.format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


@click.group(cls=RecordGroup)
def record() -> None:
    """Record channels to files, or write the recent frames of one.

    A recording (start, stop, list) goes on until it is stopped, whatever happens to the program
    that has started it. Recordings that belong to a bench are named in the broker's configuration,
    as [record.NAME].

    With a CHANNEL, its recent frames are written, as the suffix of the file says or as lines of
    candump -L. Every channel keeps its recent frames that passed the filters of any client, up to
    16 MiB and 60 s unless configured otherwise. If its process was killed and replaced, the frames
    of the old process are still there. CHANNEL is the broker's name for the channel, as canbroker
    status shows it.

    \b
    Examples:
      canbroker record start drive -c can0 -c can1 -f blf -o recordings --rotate-mb 100
      canbroker record list
      canbroker record stop drive
      canbroker record --last 30 can0 -o before-the-fault.blf
    """


record.add_command(last, _OF_LAST)
last.hidden = True


@record.command()
@click.argument("name")
@click.option(
    "-c", "--channel", "channels", metavar="CHANNEL", multiple=True, help="Record it. Repeatable."
)
@click.option(
    "-f",
    "--format",
    "kind",
    metavar="FORMAT",
    default="log",
    show_default=True,
    help="Of the files: log, blf, asc, ...",
)
@click.option(
    "-o",
    "--directory",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Write files there. Default: here.",
)
@click.option("--rotate-mb", metavar="MIB", type=float, help="Begin another file after MIB.")
@click.option("--rotate-s", metavar="SECONDS", type=float, help="Begin another file after SECONDS.")
@click.option(
    "--keep-mb", metavar="MIB", type=float, help="Remove the oldest files beyond MIB altogether."
)
@click.option(
    "--filter",
    "filters",
    metavar="FILTER",
    multiple=True,
    help="Record frames that pass it, as of canbroker dump. Repeatable.",
)
@click.option("--separate", is_flag=True, help="A file for each channel.")
@click.option(
    "--trigger",
    metavar="CONDITION",
    help="Only record around it: error, 123#01.. (any byte), 123#01* (any rest), a filter, or a "
    "comparison like 'EngineSpeed > 3000'.",
)
@click.option(
    "--before-s", metavar="SECONDS", type=NotNegative(), help="Before the trigger. Default: 10."
)
@click.option(
    "--after-s", metavar="SECONDS", type=NotNegative(), help="After the trigger. Default: 10."
)
@click.option(
    "--database",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="With the signals of the trigger: DBC, ARXML, KCD, ...",
)
@opens_channels("-b", "--bitrate")
def start(
    name: str, channels: tuple[str, ...], kind: str, directory: Path, opener: Opener, **others: Any
) -> None:
    """Begin to record channels.

    The files are called NAME, time and number, and have the suffix .part until they are complete.
    Beside each there is a .json with what was lost or has happened. If a recorder is killed, or
    the disk was full, the next one goes on where the files end.

    \b
    Examples:
      canbroker record start drive -c can0 -f blf -o recordings --rotate-mb 100 --keep-mb 2000
      canbroker record start demo -i virtual -c demo
      canbroker record start fault -c can0 -f blf --trigger error --before-s 30 --after-s 5
    """
    options: dict[str, Any] = {
        "channels": list(channels),
        "directory": str(directory.absolute()),
        "format": kind,
        **{key: value for key, value in others.items() if value not in {None, (), False}},
    }
    if opener.interface is not None:
        options |= {"interface": opener.interface, "parameters": opener.parameters}
    if "filters" in options:
        options["filters"] = list(options["filters"])
    began = start_recording(name, options, opener.broker)
    click.echo(f"recording {name!r} to {began.directory}")


@record.command()
@click.argument("name")
@broker_option
def stop(name: str, broker: str | None) -> None:
    """End a recording, and say what it has done.

    \b
    Example:
      canbroker record stop drive
    """
    ended = stop_recording(name, broker)
    click.echo(
        f"recording {name!r}: {ended.frames:,} frames in {ended.files} files, {ended.lost} lost; "
        f"the last file is {ended.file}"
    )
    if ended.unfit:
        click.echo(unfit_frames(ended))
    if ended.trouble:
        raise Failure(f"not everything was written: {ended.trouble}")


@record.command("list")
@broker_option
def list_(broker: str | None) -> None:
    """Show the recordings of the broker: files, frames, what was lost, and what is wrong.

    \b
    Example:
      canbroker record list
    """
    with RunningBroker(broker) as running:
        status = running.status()
    if not status.recordings:
        click.echo("no recordings")
        return
    console = terminal()
    console.print(recordings_table(status.recordings))
    for note in recording_notes(status.recordings):
        console.print(note, soft_wrap=True)
