"""What a broker tells of the databases of its channels."""

from __future__ import annotations

import msgspec


class DatabaseInfo(msgspec.Struct, kw_only=True):
    """A database of a channel, as the broker has read it when it started.

    ``path``: as the configuration has it. ``size``: of the file, in bytes; ``sha256``: its digest.
    """

    path: str
    size: int
    sha256: str


class DatabasePart(msgspec.Struct, kw_only=True):
    """A part of a database, or, if the channel has no such one, its ``count`` alone.

    ``count``: how many databases the channel has. ``compressed``: size of the whole content as
    zlib has compressed it; ``content``: this part of that, 256 KiB at most.
    """

    count: int
    database: DatabaseInfo | None = None
    compressed: int = 0
    content: bytes = b""
