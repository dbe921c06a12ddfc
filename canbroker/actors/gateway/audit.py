"""The audit log: connections of users, refusals and changes, as lines of JSON.

It never has a secret or a routing id: its fields are those that the callers give, which are names,
public keys, addresses and sentences.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final

from canbroker.system import clock
from canbroker.system.files import open_private
from canbroker.system.throttle import Throttle

#: Size of the log, and how many older ones of that size are kept beside it.
MAX_BYTES: Final = 1 << 20
KEPT: Final = 4

#: Events that are alike are written once in this time, with their number: a flood neither fills the
#: disk nor pushes what happened before it out of the log.
_INTERVAL_NS: Final = clock.SECOND

#: Kinds of events that are told apart within that time; there are fewer, unless somebody tries.
_MAX_KINDS: Final = 1_024

#: Characters of a field.
_MAX_TEXT: Final = 512

_logger = logging.getLogger(__name__)


@dataclass
class _Recent:
    """Events of one kind since the last one was written."""

    written_ns: int
    held: int = 0
    fields: dict[str, Any] | None = None  # of the last one that was held back


class Audit:
    """Writes the audit log. One thread. It never raises: what cannot be written is counted."""

    def __init__(
        self,
        path: Path,
        now: Callable[[], int] = clock.monotonic_ns,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """The file is made with the first event. ``now``: monotonic ns."""
        self._now = now
        self._failed = Throttle(_logger)
        self._recent: dict[tuple[str, str, str], _Recent] = {}
        self._handler = _PrivateFile(path, max_bytes, self._failed)

    def __repr__(self) -> str:
        return f"<Audit {self._handler.baseFilename}>"

    def write(self, event: str, user: str, **fields: str) -> None:
        """Writes an event that users cannot cause as often as they like."""
        self._write(event, user, fields, 1)

    def note(self, event: str, user: str, kind: str = "", **fields: str) -> None:
        """Writes an event, or counts it if one of the same user and ``kind`` was just written.

        :param fields: further fields of the line.
        """
        now = self._now()
        which = (event, user, kind)
        if which not in self._recent and len(self._recent) >= _MAX_KINDS:
            which = (event, "", "")
        recent = self._recent.get(which)
        line = {"kind": kind, **fields} if kind else dict(fields)
        if recent is not None and now - recent.written_ns < _INTERVAL_NS:
            recent.held += 1
            recent.fields = line
            return
        held = 0 if recent is None else recent.held
        self._recent[which] = _Recent(now)
        self._write(event, user, line, 1 + held)

    def step(self, now_ns: int) -> None:
        """Writes what was held back for long enough. Call it about every second."""
        for which, recent in list(self._recent.items()):
            if now_ns - recent.written_ns < _INTERVAL_NS:
                continue
            if recent.fields is None:
                del self._recent[which]
            else:
                self._recent[which] = _Recent(now_ns)
                self._write(which[0], which[1], recent.fields, recent.held)
        self._handler.renew()

    def close(self) -> None:
        """Writes everything that was held back."""
        for (event, user, _), recent in self._recent.items():
            if recent.fields is not None:
                self._write(event, user, recent.fields, recent.held)
        self._recent.clear()
        self._handler.close()

    def _write(self, event: str, user: str, fields: dict[str, Any], count: int) -> None:
        time = dt.datetime.fromtimestamp(clock.wall_ns() / clock.SECOND, dt.UTC)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "event": event,
            "user": user,
            **{name: text[:_MAX_TEXT] for name, text in fields.items()},
        }
        if count > 1:
            line["count"] = count
        self._handler.write(json.dumps(line))


class _PrivateFile(RotatingFileHandler):
    """A log that only its owner may read, whose faults are counted instead of printed."""

    def __init__(self, path: Path, max_bytes: int, failed: Throttle) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=KEPT, encoding="utf-8", delay=True)
        self._failed = failed

    def write(self, line: str) -> None:
        self.handle(logging.makeLogRecord({"msg": "%s", "args": (line,)}))

    def renew(self) -> None:
        """Lets go of a file that was removed; the next line makes another one."""
        if self.stream is not None and not Path(self.baseFilename).exists():
            self.stream.close()
            self.stream = None  # as with delay=True

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding="utf-8", opener=open_private)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name

        self._failed.note("audit log not written", f"{sys.exc_info()[1]}: {record.getMessage()}")
