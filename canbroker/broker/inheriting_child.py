"""A child that inherits the descriptors by which the broker talks to it."""

from __future__ import annotations

import logging
import os
import subprocess
from contextlib import ExitStack
from typing import Final

import msgspec

from canbroker.actors.specs import MAX_TEXT, ActorSpec, Alive, Ready
from canbroker.broker.child_reports import ReportReader
from canbroker.system.descriptors import never_wait, pipe
from canbroker.system.entry_points import EntryPoint
from canbroker.system.shared_memory import unnamed_file

_CHUNK: Final = 65_536

_STDERR: Final = 2

_logger = logging.getLogger(__name__)


class InheritingChild:
    """A child that inherits the descriptors of its specification, lifeline and reports."""

    def __init__(self, name: str, spec: ActorSpec) -> None:
        """As :func:`canbroker.broker.child.start`."""
        ring = getattr(spec, "ring_descriptor", None)
        with ExitStack() as ours, ExitStack() as childs:
            specification = unnamed_file(msgspec.json.encode(spec))
            childs.callback(os.close, specification)
            lifeline, self._lifeline = pipe()
            childs.callback(os.close, lifeline)
            ours.callback(os.close, self._lifeline)
            self._reports, reports = pipe()
            childs.callback(os.close, reports)
            ours.callback(os.close, self._reports)
            never_wait(self._reports)
            descriptors = (specification, lifeline, reports)
            self._process = subprocess.Popen(
                EntryPoint.ACTOR.command(name, *map(str, (os.getpid(), *descriptors))),
                stdin=subprocess.DEVNULL,
                stdout=_STDERR,
                pass_fds=descriptors if ring is None else (*descriptors, ring),
            )
            ours.pop_all()
        self.pid = self._process.pid
        self._reader = ReportReader()
        self._released = False

    def fileno(self) -> int:
        return self._reports

    def reports(self) -> list[Ready | Alive] | None:
        try:
            data = os.read(self._reports, _CHUNK)
        except BlockingIOError:
            return []
        return self._reader.read(data)

    def release(self, last_words: str = "") -> None:
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
        return self._process.poll()

    def close(self) -> None:
        self.release()
        os.close(self._reports)
