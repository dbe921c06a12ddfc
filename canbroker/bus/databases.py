"""The databases of a channel, as its broker has them."""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from canbroker.bus.connection import Connection
from canbroker.errors import CanOperationError
from canbroker.signals import check_installed
from canbroker.wire import control
from canbroker.wire.databases import DatabaseInfo, DatabasePart

if TYPE_CHECKING:
    from canbroker.signals.decoder import Decoder

#: More than the broker reads: 16 files of a channel.
_MOST: Final = 16

_T = TypeVar("_T")


class Ask(Protocol):
    """Asks the broker."""

    def __call__(self, method: str, params: control.Params, result: type[_T], /) -> _T:
        """Its answer.

        :raises CanError: the answer is an error, or there is none.
        """


class Attached(Protocol):
    """An open bus."""

    _connection: Connection


def channel_decoder(bus: Attached) -> Decoder | None:
    """As :func:`fetch_decoder`, for the channel of an open bus."""
    connection = bus._connection
    return fetch_decoder(connection.ask_broker, connection.attached.name)


def fetch_decoder(ask: Ask, channel: str) -> Decoder | None:
    """A decoder for the databases that the configuration of the broker gives a channel; ``None``
    if there are none.

    :param channel: the broker's name for it.
    :raises CanInitializationError: cantools is not installed here.
    :raises CanError: as ``ask``; the answers do not follow the protocol.
    """
    count = ask("database", control.GetDatabase(channel=channel), DatabasePart).count
    if not count:
        return None
    check_installed(f"the database of channel {channel!r}")
    from canbroker.signals.decoder import Decoder  # noqa: PLC0415 - of an extra

    parts = [_fetch(ask, channel, number) for number in range(min(count, _MOST))]
    return Decoder.joined([Decoder.parse(content, path) for path, content in parts])


def _fetch(ask: Ask, channel: str, number: int) -> tuple[str, bytes]:
    """Path and content of a database."""
    compressed = b""
    while True:
        request = control.GetDatabase(channel=channel, number=number, offset=len(compressed))
        part = ask("database", request, DatabasePart)
        compressed += part.content
        if part.database is None:
            raise CanOperationError(f"channel {channel!r} has no database {number} any more")
        if len(compressed) >= part.compressed:
            return part.database.path, _checked(channel, part.database, compressed)
        if not part.content:
            raise CanOperationError(f"channel {channel!r}: a part of a database is empty")


def _checked(channel: str, database: DatabaseInfo, compressed: bytes) -> bytes:
    """The content, which is what the broker has announced."""
    try:
        content = zlib.decompressobj().decompress(compressed, database.size + 1)
    except zlib.error as error:
        raise CanOperationError(f"channel {channel!r}: {database.path}: {error}") from error
    if hashlib.sha256(content).hexdigest() != database.sha256:
        raise CanOperationError(f"channel {channel!r}: {database.path} arrived damaged")
    return content
