"""The databases of a broker's channels, which clients ask for: they may be on other hosts."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Final, NamedTuple

from canbroker.configuration.broker_file import ChannelConfig, Config
from canbroker.errors import CanInitializationError
from canbroker.signals import check_installed
from canbroker.system.imports import without
from canbroker.transport.replier import Caller
from canbroker.wire import control
from canbroker.wire.databases import DatabaseInfo, DatabasePart

#: Bytes of a part: a message has 1 MiB at most.
PART_BYTES: Final = 1 << 18


class _Database(NamedTuple):
    info: DatabaseInfo
    compressed: bytes


class Databases:
    """What the files were when the broker started, so that all clients decode alike."""

    def __init__(self, config: Config | None) -> None:
        """
        :raises CanInitializationError: a file cannot be read or is not a database, or cantools is
            not installed; names file, line and key of the configuration.
        """
        self._databases: dict[str, list[_Database]] = {}
        for channel in config.channels.values() if config else ():
            if config is not None and channel.databases:
                self._databases[channel.name] = _read(config, channel)

    def of(self, channel: str) -> list[DatabaseInfo]:
        """The databases of a channel."""
        return [database.info for database in self._databases.get(channel, ())]

    def part(self, _: Caller, request: control.GetDatabase) -> DatabasePart:
        """Answers the request for a part of a database."""
        databases = self._databases.get(request.channel, [])
        if request.number >= len(databases):
            return DatabasePart(count=len(databases))
        info, compressed = databases[request.number]
        return DatabasePart(
            count=len(databases),
            database=info,
            compressed=len(compressed),
            content=compressed[request.offset : request.offset + PART_BYTES],
        )


def _read(config: Config, channel: ChannelConfig) -> list[_Database]:
    directory = Path(config.source.path).absolute().parent
    try:
        check_installed("a channel with a database")
        return [_load(directory, path) for path in channel.databases]
    except CanInitializationError as error:
        keys = ("channels", channel.name, "database")
        raise config.source.fault(keys, str(error)) from error


def _load(directory: Path, path: str) -> _Database:
    """Reads a file, and checks that it is a database.

    :raises CanInitializationError: it cannot be read, or is not.
    """
    # python-can, which cantools imports, loads it and with it pandas: 130 MB in this process.
    with without("asammdf"):
        from canbroker.signals.decoder import Decoder, read_database  # noqa: PLC0415 - of an extra

    content = read_database(directory / path)
    Decoder.parse(content, path)
    digest = hashlib.sha256(content).hexdigest()
    info = DatabaseInfo(path=path, size=len(content), sha256=digest)
    return _Database(info, zlib.compress(content))
