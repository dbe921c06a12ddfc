"""A child that inherits nothing but its standard streams: its lifeline is its standard input."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import threading
from contextlib import ExitStack, suppress
from typing import Final

import msgspec

from canbroker.actors.birth import REPORTS_BEGIN
from canbroker.actors.specs import ActorSpec
from canbroker.broker.process_child import ProcessChild
from canbroker.system.background import NO_WINDOW
from canbroker.system.descriptors import pipe
from canbroker.system.entry_points import EntryPoint

_CHUNK: Final = 65_536
_STANDARD_ERROR: Final = 2

_logger = logging.getLogger(__name__)


class PortableChild(ProcessChild):
    """A child that inherits nothing else.

    Its standard input brings the specification in one line, then the reason why it ends. Its
    reports come from its standard output. Windows cannot wait for pipes and sockets together, so a
    thread passes them on to a socket.
    """

    _GONE = OSError  # Windows has other errors for that

    def __init__(self, name: str, spec: ActorSpec) -> None:
        """As :func:`canbroker.broker.child.start`."""
        with ExitStack() as ours, ExitStack() as childs:
            self._reports, passing = socket.socketpair()
            ours.callback(self._reports.close)
            ours.callback(passing.close)
            self._reports.setblocking(False)
            lifeline, our_lifeline = pipe()
            childs.callback(os.close, lifeline)
            ours.callback(os.close, our_lifeline)
            output, reporting = pipe()
            childs.callback(os.close, reporting)
            ours.callback(os.close, output)
            process = subprocess.Popen(
                EntryPoint.ACTOR.command(name, str(os.getpid())),
                stdin=lifeline,
                stdout=reporting,
                creationflags=NO_WINDOW,
            )
            ours.pop_all()
        super().__init__(process, our_lifeline)
        self._telling = threading.Lock()
        self._telling.acquire()  # the thread has it first
        work = (msgspec.json.encode(spec) + b"\n", output, passing)
        name = f"child {self.pid}"
        threading.Thread(target=self._serve, args=work, name=name, daemon=True).start()

    def fileno(self) -> int:
        return self._reports.fileno()

    def close(self) -> None:
        self.release()
        # A child of the child may have its standard output still: the thread does not wait for it.
        self._reports.close()

    def _receive(self) -> bytes:
        return self._reports.recv(_CHUNK)

    def _leave(self, last_words: str) -> None:
        with self._telling:
            super()._leave(last_words)

    def _serve(self, specification: bytes, output: int, passing: socket.socket) -> None:
        """[thread] Passes on the specification, then all reports."""
        try:
            left = memoryview(specification)
            while left:
                left = left[os.write(self._lifeline, left) :]
        except OSError:
            _logger.debug("actor process %d has left", self.pid)
        finally:
            self._telling.release()
        try:
            with passing:
                passing.sendall(_first_reports(output))
                while data := os.read(output, _CHUNK):
                    passing.sendall(data)
        except OSError:
            _logger.debug("nobody hears actor process %d any more", self.pid)
        finally:
            os.close(output)


def _first_reports(output: int) -> bytes:
    """Waits for the first reports; what was printed before them goes to the log."""
    printed = b""
    while REPORTS_BEGIN not in printed:
        data = os.read(output, _CHUNK)
        if not data:  # it ended before it could report
            _log(printed)
            return b""
        at = max(0, len(printed) - len(REPORTS_BEGIN))
        _log(printed[:at])
        printed = printed[at:] + data
    printed, _, reports = printed.partition(REPORTS_BEGIN)
    _log(printed)
    return reports


def _log(printed: bytes) -> None:
    if printed:
        with suppress(OSError):  # the disk with the log is full
            os.write(_STANDARD_ERROR, printed)
