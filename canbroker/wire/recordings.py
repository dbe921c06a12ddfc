"""What a broker tells of its recordings."""

from __future__ import annotations

import msgspec


class RecordingStatus(msgspec.Struct, kw_only=True):
    """A recording, and what it has done since the broker began.

    ``phase`` as of a channel. ``file``: path of the current file, or of the last one. ``lost``:
    frames that are in none of its files, as far as their number is known. ``unfit``: nor are
    these, as the format cannot hold them. ``trouble``: what keeps it from recording now.
    """

    name: str
    channels: list[str]
    directory: str
    format: str
    configured: bool
    phase: str
    reason: str
    pid: int | None
    restarts: int
    file: str = ""
    files: int = 0
    frames: int = 0
    bytes: int = 0
    lost: int = 0
    unfit: int = 0
    trouble: str = ""
