"""Flight records: files with the frames of a channel before something went wrong.

A short-lived process writes them, the command ``canbroker record``: decoding and formatting a ring
of frames takes a second of processor time, which a thread would take from the broker's loop.
"""

from __future__ import annotations

import logging
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from canbroker.configuration.broker_file import Config
from canbroker.errors import CanInitializationError
from canbroker.logs.formats import format_of
from canbroker.system import clock
from canbroker.system.entry_points import EntryPoint
from canbroker.system.priority import lower_priority
from canbroker.transport.runtime import Runtime

#: The newest records of all channels are kept, this many; older ones are removed.
MAX_RECORDS: Final = 20

#: Seconds before the event.
RECORDED_S: Final = 10

#: A channel that keeps failing gets one record in this time.
_INTERVAL_NS: Final = 10 * clock.SECOND

_TOO_LONG_NS: Final = 60 * clock.SECOND

_UNFIT = re.compile(r"[^A-Za-z0-9_.-]+")
_logger = logging.getLogger(__name__)


def record_suffix(config: Config | None) -> str:
    """The suffix of flight records, which says their format, as the configuration wants it.

    :raises CanInitializationError: the format is unknown or needs a package that is missing;
        names file and key.
    """
    if config is None:
        return ".log"
    try:
        found, compressed = format_of(Path(), config.broker.record_format)
        found.check_installed()
    except CanInitializationError as error:
        raise config.source.fault(("broker", "record_format"), str(error)) from error
    return found.suffixes[0] + (".gz" if compressed else "")


class _Writing(NamedTuple):
    """A record that is being written; it is ``unfinished`` until it gets its ``path``."""

    process: subprocess.Popen[bytes]
    path: Path
    unfinished: Path
    began_ns: int


class FlightRecords:
    """The records of a broker's channels. One thread, that of the broker's loop; never waits."""

    def __init__(self, runtime: Runtime, suffix: str = ".log") -> None:
        """:param suffix: of the records' files, as of :func:`record_suffix`."""
        self._address = str(runtime.address)
        self._suffix = suffix
        self._directory = runtime.records_path
        self._writing: dict[str, _Writing] = {}
        self._began_ns: dict[str, int] = {}
        self._last: dict[str, Path] = {}
        for path in self._directory.glob("*.part*"):  # left by a broker that was killed meanwhile
            path.unlink(missing_ok=True)

    def last(self, channel: str) -> str:
        """Path of a channel's newest record; empty if there is none."""
        return str(self._last.get(channel, ""))

    def begin(self, channel: str, reason: str, since_ns: int) -> None:
        """Begins to record the last seconds of a channel, up to now. Its actor must serve.

        :param reason: a word for the file's name.
        :param since_ns: monotonic time of the event.
        """
        now = clock.monotonic_ns()
        began = self._began_ns.get(channel)
        if channel in self._writing or (began is not None and now - began < _INTERVAL_NS):
            return
        self._began_ns[channel] = now
        try:
            since_ns -= RECORDED_S * clock.SECOND
            self._writing[channel] = self._start(channel, reason, since_ns)
        except OSError as error:  # a full disk, no process: only the record is lost
            _logger.warning("channel %r: no record of %s: %s", channel, reason, error)

    def step(self) -> None:
        """Finishes the records that are complete. Call it about every second."""
        for channel, writing in list(self._writing.items()):
            if writing.process.poll() is not None:
                del self._writing[channel]
                self._end(channel, writing)
            elif clock.monotonic_ns() - writing.began_ns > _TOO_LONG_NS:
                writing.process.kill()  # the next step sees its end

    def close(self) -> None:
        """Gives up the records that are not complete."""
        for channel, writing in self._writing.items():
            writing.process.kill()
            self._end(channel, writing)
        self._writing.clear()

    def _start(self, channel: str, reason: str, since_ns: int) -> _Writing:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        at = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        path = self._directory / f"{_UNFIT.sub('_', channel)}-{at}-{reason}{self._suffix}"
        unfinished = path.with_name(f"{path.name.removesuffix(self._suffix)}.part{self._suffix}")
        command = EntryPoint.COMMAND.command(
            *("record", "--since-ns", str(since_ns), "--output", str(unfinished)),
            *("--broker", self._address, "--", channel),
        )
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        lower_priority(process.pid)
        return _Writing(process, path, unfinished, clock.monotonic_ns())

    def _end(self, channel: str, writing: _Writing) -> None:
        _, errors = writing.process.communicate()
        try:
            if code := writing.process.returncode:
                said = errors.decode(errors="replace").strip() or f"it ended with {code}"
                _logger.warning("channel %r: no record: %s", channel, said)
                writing.unfinished.unlink(missing_ok=True)
                return
            writing.unfinished.replace(writing.path)
            self._last[channel] = writing.path
            _logger.warning("channel %r: its last frames are in %s", channel, writing.path)
            self._prune()
        except OSError as error:
            _logger.warning("channel %r: no record: %s", channel, error)

    def _prune(self) -> None:
        records = [path for path in self._directory.iterdir() if ".part" not in path.suffixes]
        records.sort(key=lambda path: path.stat().st_mtime_ns)
        for path in records[:-MAX_RECORDS]:
            path.unlink(missing_ok=True)
