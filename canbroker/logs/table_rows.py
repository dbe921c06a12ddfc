"""Rows of the table that python-can writes: as CSV, and in SQLite."""

from __future__ import annotations

from canbroker.logs.records import check_time, error_flags, valid_frame
from canbroker.model.frame import EXTENDED, FD, REMOTE, Frame


def frame_of(
    timestamp_ns: int,
    arbitration_id: int,
    extended: bool,
    remote: bool,
    error: bool,
    dlc: int,
    data: bytes,
) -> Frame:
    """The frame of a row.

    :param dlc: the number of bytes; a frame with more than 8 is an FD frame.
    :raises ValueError: no such frame can exist, or not at that time.
    """
    flags = (EXTENDED if extended else 0) | (FD if dlc > 8 else 0)
    content: bytes | int = data
    if error:
        flags = error_flags(arbitration_id)
    elif remote:
        flags, content = flags | REMOTE, dlc
    if isinstance(content, bytes) and len(content) != dlc:
        raise ValueError(f"{len(content)} bytes of data, but dlc {dlc}")
    check_time(timestamp_ns)
    return valid_frame(timestamp_ns, arbitration_id, flags, content)
