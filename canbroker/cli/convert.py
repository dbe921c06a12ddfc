"""``canbroker convert``."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal

import click

from canbroker.cli import Failure
from canbroker.cli.common import count_damage_only, databases_option
from canbroker.cli.progress import file_progress
from canbroker.logs import converting
from canbroker.logs.files import replaced
from canbroker.logs.formats import FORMATS, format_of, kind_of, open_reader, open_writer
from canbroker.logs.streams import Reader
from canbroker.signals import load_databases


class _Interrupt:
    """Notes the first Ctrl-C, so that files are closed at a whole record; the second one raises."""

    def __init__(self) -> None:
        self.came = False

    def note(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _interrupt() -> Iterator[_Interrupt]:
    interrupt = _Interrupt()
    before: Any = signal.signal(signal.SIGINT, interrupt.note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


_HELP: Final = """\
Convert a log file into another format.

The formats are those of the files' suffixes. What the new format cannot hold is counted, and said
at the end; so are damaged parts of IN, which are skipped, and where it was cut off. Ctrl-C leaves a
valid file with the frames so far.

With --dbc, OUT becomes a directory with decoded signals: a file for each channel, message and day,
OUT/can0_Motion/2026/11/30/drive.parquet, with the time in column t and a column for each signal.
The files are CSV if OUT ends with .csv.

\b
Formats (.gz as a second suffix compresses *):
{formats}

\b
Examples:
  canbroker convert drive.blf drive.pcapng
  canbroker convert drive.mf4 drive.asc.gz
  canbroker convert drive.log lake --dbc car.dbc
"""


def _formats() -> str:
    return "\n".join(
        f"  {form.title + ' *' * form.gzip:30} {', '.join(form.suffixes)}"
        for form in FORMATS.values()
    )


@click.command(help=_HELP.format(formats=_formats()))
@click.argument("source", metavar="IN", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@databases_option("Decode signals.")
def convert(source: Path, target: Path, databases: tuple[Path, ...]) -> None:
    """Converts; see the help above."""
    count_damage_only()
    with open_reader(source) as reader, _interrupt() as interrupt:
        work = _decoded(databases) if databases else _copied
        with file_progress(f"convert {source.name}") as show:

            def advance(frames: int) -> bool:
                show(frames, *reader.progress)
                return not interrupt.came

            try:
                lines = work(reader, target, advance)
            except OSError as error:
                raise Failure(f"cannot write {target}: {error.strerror or error}") from error
    if reader.skipped:
        lines.append(f"{source}: {reader.skipped}")
    if reader.end:
        lines.append(f"{source}: {reader.end}")
    for line in lines:
        click.echo(f"canbroker: convert: {line}", err=True)
    if interrupt.came:
        click.echo("canbroker: convert: interrupted", err=True)
        raise click.Abort


Work = Callable[[Reader, Path, Callable[[int], bool]], list[str]]


def _copied(reader: Reader, target: Path, advance: Callable[[int], bool]) -> list[str]:
    """Copies into another format; returns what there is to say.

    :raises OSError: the target cannot be written; nothing is left of it.
    """
    if target.exists() and target.samefile(reader.name):
        raise click.UsageError(f"{target} is the file to read")
    with replaced(target) as part, open_writer(part, kind_of(target)) as writer:
        count = converting.convert(reader, writer, advance)
    lines = [f"{count:,} frames in {target}"]
    if writer.losses:
        lines.append(f"{format_of(target)[0].title} cannot hold: {writer.losses}")
    return lines


def _decoded(databases: Sequence[Path]) -> Work:
    """Work that decodes signals by these databases."""
    decoder = load_databases(databases)
    from canbroker.logs import signals  # noqa: PLC0415 - needs an extra

    def decode(reader: Reader, target: Path, advance: Callable[[int], bool]) -> list[str]:
        kind: Literal["csv", "parquet"] = "csv" if target.suffix.lower() == ".csv" else "parquet"
        stem = Path(reader.name).name.partition(".")[0]
        with signals.Lake(target, stem, kind, decoder) as lake:
            for batch in reader.batches():
                lake.write(batch)
                if not advance(len(batch)):
                    break
        return lake.report()

    return decode
