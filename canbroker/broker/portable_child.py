"""A child that inherits nothing but its standard streams: its lifeline is its standard input."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import threading
from contextlib import ExitStack
from typing import Final

import msgspec

from canbroker.actors.specs import MAX_TEXT, ActorSpec, Alive, Ready
from canbroker.broker.child_reports import ReportReader
from canbroker.system.background import NO_WINDOW
from canbroker.system.descriptors import pipe
from canbroker.system.entry_points import EntryPoint

_CHUNK: Final = 65_536


_logger = logging.getLogger(__name__)


class PortableChild:
    """As :class:`~canbroker.broker.child.InheritingChild`.

    Its standard input brings the specification in one line, then the reason why it ends. Its
    reports come from its standard output. Windows cannot wait for pipes and sockets together, so a
    thread passes them on to a socket.
    """

    def __init__(self, name: str, spec: ActorSpec) -> None:
        """Starts the process; returns at once. ``name`` shows in the list of processes.

        :raises OSError: no process, no descriptor or no memory is left.
        """
        with ExitStack() as ours, ExitStack() as childs:
            self._reports, passing = socket.socketpair()
            ours.callback(self._reports.close)
            ours.callback(passing.close)
            self._reports.setblocking(False)
            lifeline, self._lifeline = pipe()
            childs.callback(os.close, lifeline)
            ours.callback(os.close, self._lifeline)
            output, reporting = pipe()
            childs.callback(os.close, reporting)
            ours.callback(os.close, output)
            self._process = subprocess.Popen(
                EntryPoint.ACTOR.command(name, str(os.getpid())),
                stdin=lifeline,
                stdout=reporting,
                creationflags=NO_WINDOW,
            )
            ours.pop_all()
        self.pid = self._process.pid
        self._reader = ReportReader()
        self._released = False
        self._telling = threading.Lock()
        self._telling.acquire()  # the thread has it first
        work = (msgspec.json.encode(spec) + b"\n", output, passing)
        name = f"child {self.pid}"
        threading.Thread(target=self._serve, args=work, name=name, daemon=True).start()

    def fileno(self) -> int:
        return self._reports.fileno()

    def reports(self) -> list[Ready | Alive] | None:
        """The child's reports since the last call; ``None`` if it ends, or has ended.

        :raises ReportError: something is not a report.
        """
        try:
            data = self._reports.recv(_CHUNK)
        except BlockingIOError:
            return []
        return self._reader.read(data)

    def release(self, last_words: str = "") -> None:
        """Tells the child to leave, by closing its lifeline.

        :param last_words: why it ends for good. A broker that is killed leaves no such words.
        """
        if self._released:
            return
        self._released = True
        with self._telling:
            try:
                os.write(self._lifeline, last_words.encode()[:MAX_TEXT])
            except OSError:
                _logger.debug("actor process %d had already left", self.pid)
            finally:
                os.close(self._lifeline)

    def kill(self) -> None:
        self._process.kill()

    def poll(self) -> int | None:
        """The exit code, ``None`` while the child runs."""
        return self._process.poll()

    def close(self) -> None:
        """Closes what is open for a child that has ended."""
        self.release()
        # A child of the child may have its standard output still: the thread does not wait for it.
        self._reports.close()

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
                while data := os.read(output, _CHUNK):
                    passing.sendall(data)
        except OSError:
            _logger.debug("nobody hears actor process %d any more", self.pid)
        finally:
            os.close(output)
