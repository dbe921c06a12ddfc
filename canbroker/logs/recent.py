"""Writes frames as a channel's ring has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from canbroker.logs.records import AT_ONCE, Record
from canbroker.logs.streams import Writer
from canbroker.model.frame import EchoFrame


def write_frames(
    writer: Writer,
    channel: str,
    frames: Sequence[EchoFrame],
    advance: Callable[[int], object] = lambda _: None,
) -> None:
    """Adds the frames to a file; with the clients that sent them, if its format has a place for it.

    :param advance: is told the number of frames that were written, again and again.
    :raises OSError: the file system is at fault.
    """
    keeps_origin = writer.holds.origin
    for begin in range(0, len(frames), AT_ONCE):
        part = frames[begin : begin + AT_ONCE]
        writer.write(
            [
                Record(
                    frame,
                    channel,
                    sent=frame.origin is not None,
                    origin=frame.origin if keeps_origin else None,
                )
                for frame in part
            ]
        )
        advance(len(part))
