"""An actor's process: the broker starts it, hears its reports, and tells it to leave."""

from __future__ import annotations

import logging
import os
import subprocess
import tempfile
from contextlib import ExitStack
from typing import Final

import msgspec

from canbroker.actors.specs import MAX_TEXT, ActorSpec, Alive, Ready
from canbroker.system.descriptors import beyond_standard, pipe
from canbroker.system.entry_points import EntryPoint
from canbroker.wire import DECODE_ERRORS

#: Characters of a line of a report; a longer line is not a report.
_MAX_REPORT: Final = 16_384
_CHUNK: Final = 65_536
_QUOTED: Final = 200

_STDERR: Final = 2

_logger = logging.getLogger(__name__)


class ReportError(Exception):
    """A child has reported something that makes no sense; the message quotes it."""


class Child:
    """A running actor process, seen from the broker. Watch :meth:`fileno` for its reports."""

    def __init__(self, name: str, spec: ActorSpec) -> None:
        """Starts the process; returns at once. ``name`` shows in the list of processes.

        :raises OSError: no process, no descriptor or no memory is left.
        """
        ring = getattr(spec, "ring_descriptor", None)
        with ExitStack() as ours, ExitStack() as childs:
            specification = _written(msgspec.json.encode(spec))
            childs.callback(os.close, specification)
            lifeline, self._lifeline = pipe()
            childs.callback(os.close, lifeline)
            ours.callback(os.close, self._lifeline)
            self._reports, reports = pipe()
            childs.callback(os.close, reports)
            ours.callback(os.close, self._reports)
            os.set_blocking(self._reports, False)
            descriptors = (specification, lifeline, reports)
            self._process = subprocess.Popen(
                EntryPoint.ACTOR.command(name, *map(str, (os.getpid(), *descriptors))),
                stdin=subprocess.DEVNULL,
                stdout=_STDERR,
                pass_fds=descriptors if ring is None else (*descriptors, ring),
            )
            ours.pop_all()
        self.pid = self._process.pid
        self._unread = b""
        self._released = False

    def fileno(self) -> int:
        return self._reports

    def reports(self) -> list[Ready | Alive] | None:
        """The child's reports since the last call; ``None`` if it ends, or has ended.

        :raises ReportError: something is not a report.
        """
        try:
            data = os.read(self._reports, _CHUNK)
        except BlockingIOError:
            return []
        if not data and not self._unread:
            return None
        *lines, self._unread = (self._unread + data).split(b"\n")
        if not data or len(self._unread) > _MAX_REPORT:  # it ended within a line
            lines, self._unread = [*lines, self._unread], b""
        return [_report(line) for line in lines]

    def release(self, last_words: str = "") -> None:
        """Tells the child to leave, by closing its lifeline.

        :param last_words: why it ends for good. A broker that is killed leaves no such words.
        """
        if self._released:
            return
        self._released = True
        try:
            os.write(self._lifeline, last_words.encode()[:MAX_TEXT])
        except BrokenPipeError:
            _logger.debug("actor process %d had already left", self.pid)
        finally:
            os.close(self._lifeline)

    def kill(self) -> None:
        self._process.kill()

    def poll(self) -> int | None:
        """The exit code, ``None`` while the child runs."""
        return self._process.poll()

    def close(self) -> None:
        """Closes the pipes of a child that has ended."""
        self.release()
        os.close(self._reports)


def _written(content: bytes) -> int:
    """A descriptor of a file without a name with this ``content``, at its start."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("canbroker specification")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    descriptor = beyond_standard(descriptor)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _report(line: bytes) -> Ready | Alive:
    try:
        return _report_decoder.decode(line)
    except DECODE_ERRORS as error:
        said = line[:_QUOTED].decode(errors="replace")
        raise ReportError(f"reports what is not understood: {said!r}") from error


_report_decoder = msgspec.json.Decoder(Ready | Alive)
