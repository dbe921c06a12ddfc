"""Every file format that canbroker reads and writes, in one table."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from canbroker.errors import CanInitializationError
from canbroker.logs.losses import Holds
from canbroker.logs.streams import Reader, Writer
from canbroker.system import clock
from canbroker.system.extras import Needs


@dataclass(frozen=True)
class Format:
    """A row of the table.

    ``reader`` and ``writer`` are imported when they are used. ``gzip``: another suffix ``.gz``
    compresses it. ``survives``: what a writer has synced can be read although its process was
    killed.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    reader: str
    writer: str
    holds: Holds
    needs: Needs | None = None
    gzip: bool = False
    survives: bool = True

    @property
    def is_installed(self) -> bool:
        return self.needs is None or self.needs.is_there

    def check_installed(self) -> None:
        """:raises CanInitializationError: a package is missing; names the extra that has it."""
        if self.needs is not None:
            self.needs.check(self.title)


_NUMBERED: Final = "numbers"
_PYTHON_CAN: Final = Needs("can", "python-can")
_ARROW: Final = Needs("pyarrow", "parquet")

FORMATS: Final[Mapping[str, Format]] = {
    each.name: each
    for each in (
        Format(
            "log",
            "candump's log",
            (".log", ".candump"),
            "canbroker.logs.text:CandumpReader",
            "canbroker.logs.text:CandumpWriter",
            Holds(resolution_ns=clock.MICROSECOND),
            gzip=True,
        ),
        Format(
            "blf",
            "Vector BLF",
            (".blf",),
            "canbroker.logs.python_can_reading:BlfReader",
            "canbroker.logs.python_can_writing:BlfWriter",
            Holds(channels=_NUMBERED),
            needs=_PYTHON_CAN,
        ),
        Format(
            "asc",
            "Vector ASC",
            (".asc",),
            "canbroker.logs.python_can_reading:AscReader",
            "canbroker.logs.python_can_writing:AscWriter",
            Holds(channels=_NUMBERED, errors="bare", resolution_ns=clock.MICROSECOND),
            gzip=True,
            needs=_PYTHON_CAN,
        ),
        Format(
            "trc",
            "PEAK TRC",
            (".trc",),
            "canbroker.logs.python_can_reading:TrcReader",
            "canbroker.logs.python_can_writing:TrcWriter",
            Holds(
                channels=_NUMBERED,
                errors="none",
                remotes="none",
                fd="none",
                resolution_ns=clock.MICROSECOND,
            ),
            gzip=True,
            needs=_PYTHON_CAN,
        ),
        Format(
            "mf4",
            "ASAM MF4",
            (".mf4",),
            "canbroker.logs.mf4:Mf4Reader",
            "canbroker.logs.mf4_writing:Mf4Writer",
            Holds(channels=_NUMBERED),
            needs=Needs("asammdf", "mf4"),
            survives=False,
        ),
        Format(
            "csv",
            "CSV, as python-can has it",
            (".csv",),
            "canbroker.logs.text:CsvReader",
            "canbroker.logs.text:CsvWriter",
            Holds(channels="none", direction=False, fd="data"),
            gzip=True,
        ),
        Format(
            "sqlite",
            "SQLite, as python-can has it",
            (".db", ".sqlite"),
            "canbroker.logs.database:SqliteReader",
            "canbroker.logs.database:SqliteWriter",
            Holds(channels="none", direction=False, fd="data", resolution_ns=clock.MICROSECOND),
        ),
        Format(
            "parquet",
            "Parquet",
            (".parquet",),
            "canbroker.logs.arrow:ParquetReader",
            "canbroker.logs.arrow:ParquetWriter",
            Holds(origin=True),
            needs=_ARROW,
            survives=False,
        ),
        Format(
            "arrow",
            "Arrow file (Feather)",
            (".arrow", ".feather"),
            "canbroker.logs.arrow:ArrowReader",
            "canbroker.logs.arrow:ArrowFileWriter",
            Holds(origin=True),
            needs=_ARROW,
        ),
        Format(
            "arrows",
            "Arrow stream",
            (".arrows",),
            "canbroker.logs.arrow:ArrowReader",
            "canbroker.logs.arrow:ArrowStreamWriter",
            Holds(origin=True),
            needs=_ARROW,
        ),
        Format(
            "pcapng",
            "pcapng, for Wireshark",
            (".pcapng",),
            "canbroker.logs.pcapng:PcapngReader",
            "canbroker.logs.pcapng:PcapngWriter",
            Holds(),
            gzip=True,
        ),
    )
}


def format_of(path: Path, kind: str | None = None) -> tuple[Format, bool]:
    """The format of a file, and whether it is compressed by gzip.

    :param kind: the format's name, with ``.gz`` if it is compressed; ``None``: the file's last
        suffixes say it.
    :raises CanInitializationError: the format is unknown; lists those that are known.
    """
    if kind is not None:
        name, _, rest = kind.partition(".")
        found = FORMATS.get(name)
        if found is None or rest not in {"", "gz"}:
            raise CanInitializationError(f"format {kind!r} is not one of {', '.join(FORMATS)}")
        compressed = rest == "gz"
    else:
        suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
        compressed = suffixes[-1:] == [".gz"]
        last = suffixes[-2:-1] if compressed else suffixes[-1:]
        found = next((each for each in FORMATS.values() if last and last[0] in each.suffixes), None)
        if found is None:
            known = ", ".join(suffix for each in FORMATS.values() for suffix in each.suffixes)
            raise CanInitializationError(f"{path}: the suffix is not one of {known}")
    if compressed and not found.gzip:
        raise CanInitializationError(f"{path}: {found.title} is not compressed by gzip")
    return found, compressed


def kind_of(path: Path) -> str:
    """The format that the suffix says, as :func:`open_writer` takes it for another file.

    :raises CanInitializationError: the suffix is unknown; lists those that are known.
    """
    found, compressed = format_of(path)
    return f"{found.name}.gz" if compressed else found.name


def open_reader(path: Path | str, kind: str | None = None) -> Reader:
    """Opens a file to read records from.

    :param kind: as of :func:`format_of`.
    :raises CanInitializationError: the format is unknown or needs a package that is missing, or
        the file cannot be read.
    """
    path = Path(path)
    found, _ = format_of(path, kind)
    found.check_installed()
    reader: Reader = _class(found.reader)(path)
    return reader


def open_writer(
    path: Path | str, kind: str | None = None, metadata: Mapping[str, str] | None = None
) -> Writer:
    """Creates a file, in place of an older one, to write records to.

    :param kind: as of :func:`format_of`.
    :param metadata: what the file is to say about itself, if its format has a place for that.
    :raises CanInitializationError: the format is unknown or needs a package that is missing.
    :raises OSError: the file cannot be created.
    """
    path = Path(path)
    found, compressed = format_of(path, kind)
    found.check_installed()
    writer: Writer = _class(found.writer)(
        path, compressed=compressed, holds=found.holds, metadata=metadata or {}
    )
    return writer


def load_writer(kind: str) -> None:
    """Imports what :func:`open_writer` needs for a format, so that no file has to wait for that.

    :raises CanInitializationError: the format is unknown or needs a package that is missing.
    """
    found, _ = format_of(Path(), kind)
    found.check_installed()
    _class(found.writer)


def _class(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
