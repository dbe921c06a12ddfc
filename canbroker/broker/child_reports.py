"""What an actor's process reports to the broker: lines of JSON."""

from __future__ import annotations

from typing import Final

import msgspec

from canbroker.actors.specs import Alive, Ready
from canbroker.wire import DECODE_ERRORS

#: Characters of a line of a report; a longer line is not a report.
_MAX_REPORT: Final = 16_384
_QUOTED: Final = 200


class ReportError(Exception):
    """A child has reported something that makes no sense; the message quotes it."""


class ReportReader:
    """Makes reports of the bytes that come from a child."""

    def __init__(self) -> None:
        self._unread = b""

    def read(self, data: bytes) -> list[Ready | Alive] | None:
        """The reports that are complete with ``data``, which is empty at the end; then ``None``.

        :raises ReportError: something is not a report.
        """
        if not data and not self._unread:
            return None
        *lines, self._unread = (self._unread + data).split(b"\n")
        if not data or len(self._unread) > _MAX_REPORT:  # it ended within a line
            lines, self._unread = [*lines, self._unread], b""
        return [_report(line) for line in lines]


def _report(line: bytes) -> Ready | Alive:
    try:
        return _report_decoder.decode(line)
    except DECODE_ERRORS as error:
        said = line[:_QUOTED].decode(errors="replace")
        raise ReportError(f"reports what is not understood: {said!r}") from error


_report_decoder = msgspec.json.Decoder(Ready | Alive)
